"""simulate: make a labelled mock survey, so that the demo and the tests need no network."""

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from lens_hpc.describing import show
from lens_hpc.resources import usable_cpus
from lens_hpc.settings import FilePath
from lens_hpc.settings import Settings as BaseSettings
from lens_hpc.sky.surveys import SURVEYS

if TYPE_CHECKING:
    from lens_hpc.sky.mock_survey import MockSurvey

TARGET = "OUT"
TARGET_SETTING = "out"
EXTRA = "simulate"
SUMMARY = (
    "Make a labelled mock survey in the new folder OUT: FITS cutouts or, with tiles=2x2, mosaics, "
    "with catalogue, truth.csv and the recipe.yaml with which pack and predict read it."
)
EXAMPLE = "lens-hpc simulate data/demo/survey objects=4000 seed=0"

# A narrower field has room for too few lenses. *Unit: smallest Einstein radius*
MINIMUM_FIELD = 8.0

TILES = re.compile(r"([1-9][0-9]?)x([1-9][0-9]?)")


class Settings(BaseSettings):
    """Settings of `lens-hpc simulate`."""

    out: FilePath
    """Folder of the new survey."""
    objects: PositiveInt = 4000
    """Number of objects."""
    seed: NonNegativeInt = 0
    """The same seed gives the same bytes, whatever the number of processes."""
    prevalence: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the objects that are lenses; one in a thousand or fewer on the real sky."""
    survey: Literal["euclid", "hsc"] = "euclid"
    """Whose images the cutouts are like: one sharp band (vis) from space, or several (g, r, i, z,
    y) from the ground. The catalogue has the same columns for both."""
    size: Annotated[int, Field(ge=32, le=512)] | None = None
    """Height and width of a cutout, pixels; null: 80 for euclid, 64 for hsc."""
    pixel_scale: Annotated[float, Field(ge=0.05, le=0.5)] | None = None
    """Arcseconds per pixel; null: 0.1 for euclid, 0.168 for hsc."""
    bands: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Filters of each cutout, in this order; null: [vis] for euclid, [g, r, i] for hsc."""
    tiles: str | None = None
    """Rows x columns of mosaics in place of cutouts: 2x2 makes four, each with a file a band, that
    overlap by the width of a cutout and hold the same pixels there. Objects lie on them at random,
    with faint galaxies and noise between. null: a FITS file with the cutout of each object. To
    score mosaics: lens-hpc predict RUN OUT/recipe.yaml source=OUT output=FOLDER"""
    tile_size: PositiveInt | None = None
    """Height and width of a mosaic, pixels; null: so that each object has, on average, the area of
    four cutouts."""
    processes: PositiveInt = Field(default_factory=usable_cpus)
    """Worker processes."""

    @field_validator("tiles", mode="before")
    @classmethod
    def _tiles_are_rows_and_columns(cls, tiles: Any) -> Any:
        # YAML takes 0x2 for a number.
        if tiles is not None and not TILES.fullmatch(str(tiles)):
            raise ValueError(
                f"must be ROWSxCOLUMNS of 1 to 99 each, such as 2x2: got {show(tiles)}"
            )
        return tiles

    @model_validator(mode="after")
    def _tiles_have_a_size(self) -> "Settings":
        if self.tile_size is not None and self.tiles is None:
            raise ValueError("tile_size is of mosaics: give tiles, too, such as tiles=2x2")
        return self

    @model_validator(mode="after")
    def _bands_are_of_the_survey(self) -> "Settings":
        known = list(SURVEYS[self.survey].seeing)
        unknown = [band for band in self.bands or () if band not in known]
        if unknown:
            raise ValueError(
                f"bands: survey={self.survey} has {', '.join(known)}, not {', '.join(unknown)}; "
                f"the others are {_other_surveys(self.survey)}"
            )
        if self.bands and len(set(self.bands)) < len(self.bands):
            raise ValueError("bands must differ from each other")
        return self

    @model_validator(mode="after")
    def _arcs_fit(self) -> "Settings":
        survey = SURVEYS[self.survey]
        size = self.size or survey.size
        pixel_scale = self.pixel_scale or survey.pixel_scale
        field_arcsec = size * pixel_scale
        minimum_arcsec = MINIMUM_FIELD * survey.smallest_einstein_radius
        if field_arcsec < minimum_arcsec:
            raise ValueError(
                f"size x pixel_scale must be at least {minimum_arcsec:.1f} arcsec, "
                f"or arcs would not fit: got {field_arcsec:.1f}"
            )
        return self


def _other_surveys(name: str) -> str:
    """Return the other surveys with their bands, for a message."""
    others = []
    for other, survey in SURVEYS.items():
        if other != name:
            others.append(f"survey={other} ({', '.join(survey.seeing)})")
    return ", ".join(others)


def run(settings: Settings) -> "MockSurvey":
    """Make a mock survey in a new folder, which appears when all of it is complete.

    Raise UserError when the folder exists, when its cutouts are too small to show lenses, or when
    its tiles have no room for the objects.
    """
    from lens_hpc.sky.mock_mosaics import make_mock_mosaics  # imports torch
    from lens_hpc.sky.mock_survey import SurveyDesign, make_mock_survey

    survey = SURVEYS[settings.survey]
    design = SurveyDesign(
        survey=survey,
        objects=settings.objects,
        seed=settings.seed,
        prevalence=settings.prevalence,
        size=settings.size or survey.size,
        pixel_scale=settings.pixel_scale or survey.pixel_scale,
        bands=settings.bands or survey.bands,
    )
    if settings.tiles is None:
        return make_mock_survey(settings.out, design, settings.processes)

    rows, columns = settings.tiles.split("x")
    tiles = int(rows), int(columns)
    return make_mock_mosaics(settings.out, design, tiles, settings.tile_size, settings.processes)


def text(survey: "MockSurvey") -> str:
    """Return what was made, how to pack it and, if it is of mosaics, how to score it."""
    out = survey.folder
    made = f"{survey.objects:,} objects, {survey.lenses:,} of them lenses"
    pack = f"Pack it with\n  lens-hpc pack {out}/recipe.yaml source={out} output=FOLDER"
    if not survey.tiles:
        return f"{out}: {made}. {pack}"

    predict = f"lens-hpc predict RUN {out}/recipe.yaml source={out} output=FOLDER"
    return f"{out}: {made}, on {survey.tiles:,} tiles. {pack}\nand score it with\n  {predict}"
