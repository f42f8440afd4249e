"""What a survey that is to be scored offers, be it mosaics, image files or a packed dataset.

A survey comes in parts: the tiles of mosaics, shards, or some thousand rows. The scores of a part
are one file. Everything here is a function of the survey's files alone, so that any number of
processes makes the same bytes.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from lens_hpc.dataset.survey_kind import SurveyKind
from lens_hpc.packing.plan import by_band
from lens_hpc.packing.recipe import Recipe


class SurveyPart(NamedTuple):
    """A part of a survey, whose scores are one file."""

    name: str
    """Of the file, without its ending."""
    objects: int
    bytes: int
    """About how many bytes of images will be read."""
    fingerprint: str
    """SHA-256 of what its scores depend on, besides the models: rows, and stamps of files."""


class PartRows(NamedTuple):
    """The N objects of a part, in the order of the catalogue."""

    table: pa.Table
    """id, ra, dec (degrees, null where unknown), tile (null without one), then the kept columns."""
    features: np.ndarray
    """(N, F) float32, NaN where a value is missing."""
    reasons: dict[int, str]
    """Row: why it has no cutout, as far as the catalogue tells."""

    @property
    def positions(self) -> np.ndarray:
        """Right ascension and declination, (N, 2), NaN where unknown. *Unit: degrees*"""
        columns = [self.table[name].to_numpy() for name in ("ra", "dec")]
        return np.stack(columns, axis=1).astype(np.float64)


class PartCutouts(NamedTuple):
    """Cutouts of some objects of one part."""

    rows: np.ndarray
    """Their numbers within the part, (n,), growing."""
    pixels: np.ndarray
    """(n, bands, height, width), as `pack` would store them."""
    edge_fraction: np.ndarray
    """Which part of each cutout lies outside of the mosaics, (n,)."""


class SurveyToScore(Protocol):
    """Objects to be scored, in parts."""

    @property
    def kind(self) -> SurveyKind:
        """What the cutouts are, to be compared with the training's."""

    @property
    def parts(self) -> Sequence[SurveyPart]:
        """All parts, in the order of their names."""

    def rows(self, part: int) -> PartRows:
        """Return the objects of a part."""

    def batches(
        self, part: int, rows: PartRows, batch_size: int, reasons: dict[int, str]
    ) -> Iterator[PartCutouts]:
        """Yield the cutouts of a part, looking at `batch_size` objects at a time.

        An object without a usable cutout is in no batch, and gets its reason in `reasons`. Raises
        BadCutoutError where nothing of the part can be read.
        """

    def cutouts(self, part: int, rows: np.ndarray) -> np.ndarray:
        """Return the cutouts of some objects of a part, by their numbers, all of them usable."""


def kind_of_recipe(recipe: Recipe, size: tuple[int, int]) -> SurveyKind:
    """Return what kind of survey a recipe describes, with cutouts of a height and width."""
    height, width = size
    return SurveyKind(
        name=recipe.name,
        bands=recipe.bands,
        height=height,
        width=width,
        pixel_scale_arcsec=recipe.finest_pixel_scale,
        units=recipe.units,
        zero_point=by_band(recipe.zero_point, recipe.bands),
        features=recipe.columns.features,
    )
