"""The galaxies of a packed dataset as sources of arcs, a row each."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lens_hpc.dataset.columns import ColumnReader
from lens_hpc.dataset.kept_columns import read_kept_columns
from lens_hpc.dataset.manifest import Manifest, read_manifest
from lens_hpc.dataset.verdict import manifest_crc32
from lens_hpc.errors import UserError
from lens_hpc.files import expand
from lens_hpc.logs import logger
from lens_hpc.packing.injection_recipe import InjectionRecipe
from lens_hpc.packing.linear_pixels import refuse_pictures
from lens_hpc.sky.laws import SourceLaw
from lens_hpc.sky.pictured_source import Picture, cut_out_galaxy

LOOKED_AT = 64
"""So many galaxies, spread over all, are looked at before anything is painted."""
PICTURES_KEPT = 128


class PackedGalaxies:
    """The rows of a packed dataset that can be sources, as `sky.sources.SourceGalaxies`.

    Those are all of a split (None: of all splits) that are not labelled a lens and have a number in
    each of the columns asked for. Raises UserError for a folder that is no dataset, and a band or a
    column that it does not have.
    """

    def __init__(
        self, dataset: Path, band: str | None, columns: tuple[str, ...], split: str | None = None
    ) -> None:
        self.dataset = dataset
        self.manifest = read_manifest(dataset)
        self._bands = _band_numbers(dataset, self.manifest, band)
        self._columns = columns

        kept = read_kept_columns(dataset, self.manifest)
        splits = self.manifest.splits if split is None else [split]
        self._readers = [ColumnReader(dataset, name, manifest=self.manifest) for name in splits]
        of_splits = [_read_rows(reader, kept, columns) for reader in self._readers]
        self._reader_of = np.repeat(range(len(of_splits)), [len(rows.rows) for rows in of_splits])
        self._rows, self._ids, self._values = map(np.concatenate, zip(*of_splits, strict=True))
        if not len(self):
            of_split = "" if split is None else f" of split {split}"
            raise UserError(
                f"sources.galaxies = {dataset}: no row{of_split} can be a source: all are labelled "
                f"lenses or without a number in a column that the recipe names "
                f"({', '.join(columns)})"
            )
        self.picture = lru_cache(PICTURES_KEPT)(self._cut_out)

    def __len__(self) -> int:
        return len(self._rows)

    def draw(self, rng: np.random.Generator) -> "PackedGalaxy":
        """Draw a galaxy, each as likely as any other."""
        return PackedGalaxy(self, int(rng.integers(len(self))))

    def name(self, number: int) -> str:
        """Return the id of a galaxy."""
        return str(self._ids[number])

    def value(self, number: int, column: str) -> float:
        """Return the value of a galaxy in one of the columns asked for."""
        return float(self._values[number, self._columns.index(column)])

    def pixels(self, number: int) -> np.ndarray:
        """Return the cutout of a galaxy, (bands, height, width), as it was packed.

        Raises UserError where the dataset is damaged.
        """
        reader = self._readers[self._reader_of[number]]
        rows = self._rows[[number]]
        reader.check_blocks(rows)
        [cutout] = reader.take("images", rows)
        return cutout

    def _cut_out(self, number: int) -> Picture | None:
        """Return the light of a galaxy; None where there is none to be seen."""
        seen = self.pixels(number)[self._bands].astype(np.float64).mean(axis=0)
        return cut_out_galaxy(seen, self.manifest.pixel_scale_arcsec)


@dataclass(frozen=True)
class PackedGalaxy:
    """One of them, as `sky.sources.SourceGalaxy`."""

    galaxies: PackedGalaxies
    number: int

    @property
    def name(self) -> str:
        """Its id."""
        return self.galaxies.name(self.number)

    def value(self, column: str) -> float:
        """Return what its catalogue says."""
        return self.galaxies.value(self.number, column)

    def picture(self) -> Picture | None:
        """Return its light; None where there is none to be seen."""
        return self.galaxies.picture(self.number)


def open_galaxies(law: SourceLaw, hosts: str | None = None) -> PackedGalaxies | None:
    """Open the galaxies that a law names, once for all parts; None where it names none.

    Behind hosts of a split are galaxies of the split with the same name, where there is one: what a
    finder is tested on should not have the sources that it was trained on.
    """
    if law.galaxies is None:
        return None
    dataset = expand(law.galaxies)
    split = hosts if hosts in read_manifest(dataset).splits else None
    return _open(dataset, law.galaxies_band, tuple(law.columns()), split, manifest_crc32(dataset))


@lru_cache(maxsize=4)
def _open(
    dataset: Path,
    band: str | None,
    columns: tuple[str, ...],
    split: str | None,
    _manifest_crc32: str,
) -> PackedGalaxies:
    return PackedGalaxies(dataset, band, columns, split)


def galaxies_crc32(law: SourceLaw) -> str | None:
    """Return the checksum of the galaxies' manifest; None where there are none."""
    return None if law.galaxies is None else manifest_crc32(expand(law.galaxies))


def check_galaxies(recipe: InjectionRecipe, hosts: Manifest) -> None:
    """Look at some galaxies before anything is painted.

    Raises UserError for pixels that are no fluxes, and where no galaxy is to be seen; warns where
    pixels are as coarse as those of the hosts.
    """
    galaxies = open_galaxies(recipe.sources)
    if galaxies is None:
        return

    count = min(LOOKED_AT, len(galaxies))
    numbers = np.linspace(0, len(galaxies) - 1, count).astype(int).tolist()
    if recipe.pixels == "linear":
        cutouts = [galaxies.pixels(number) for number in numbers]
        refuse_pictures(galaxies.dataset, cutouts, "no source can be made of them")
    if all(galaxies.picture(number) is None for number in numbers):
        raise UserError(
            f"sources.galaxies = {galaxies.dataset}: in the middle of {count} pictures that were "
            f"looked at, such as {galaxies.name(numbers[0])}, nothing stands out of the noise; "
            "pack cutouts with their galaxies in the middle, or name another sources.galaxies_band"
        )

    scale = galaxies.manifest.pixel_scale_arcsec
    if scale >= hosts.pixel_scale_arcsec:
        logger.warning(
            "sources.galaxies = %s: its pixels of %g arcsec are not finer than the hosts' of %g: "
            "lenses magnify, so that arcs will be smoother than real ones",
            galaxies.dataset,
            scale,
            hosts.pixel_scale_arcsec,
        )


# ---- what is read ----


def _band_numbers(dataset: Path, manifest: Manifest, band: str | None) -> list[int]:
    """Return the numbers of the bands whose mean is the picture."""
    if band is None:
        return [*range(len(manifest.bands))]
    if band not in manifest.bands:
        raise UserError(
            f"sources.galaxies_band = {band}: is no band of {dataset}; it has "
            f"{', '.join(manifest.bands)}"
        )
    return [manifest.bands.index(band)]


class _Rows(NamedTuple):
    """The rows of a split that can be sources, n of them."""

    rows: np.ndarray
    """(n,) int."""
    ids: np.ndarray
    """(n,) strings."""
    values: np.ndarray
    """(n, columns) float64."""


def _read_rows(split: ColumnReader, kept: pd.DataFrame, columns: tuple[str, ...]) -> _Rows:
    """Find the rows of a split that are not labelled a lens and have all values."""
    ids = split.ids()
    values = np.empty((len(ids), len(columns)))
    for number, name in enumerate(columns):
        values[:, number] = _read_column(split, kept, ids, name)

    is_lens = split.take("labels", np.arange(len(ids))) == 1
    rows = np.flatnonzero(~is_lens & np.isfinite(values).all(axis=1))
    return _Rows(rows, ids[rows], values[rows])


def _read_column(split: ColumnReader, kept: pd.DataFrame, ids: np.ndarray, name: str) -> np.ndarray:
    """Return a feature or a kept column of all rows, (N,), NaN where there is no value."""
    features = split.manifest.features
    if name in features:
        return split.take("features", np.arange(len(ids)))[:, features.index(name)]
    if name not in kept.columns:
        known = ", ".join([*features, *kept.columns]) or "none"
        raise UserError(
            f"sources: {name!r} is neither a feature nor a kept column of the galaxies, "
            f"{split.dataset}; they have {known}"
        )
    try:
        return kept[name].reindex(ids).to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"sources: the column {name!r} of the galaxies, {split.dataset}, holds what is no "
            f"number ({error}); name one of numbers"
        ) from error
