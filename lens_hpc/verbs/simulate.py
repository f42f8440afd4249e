"""simulate: make a labelled mock survey, so that the demo and the tests need no network."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from lens_hpc.resources import usable_cpus
from lens_hpc.settings import FilePath
from lens_hpc.settings import Settings as BaseSettings

if TYPE_CHECKING:
    from lens_hpc.sky.mock_survey import MockSurvey

TARGET = "OUT"
TARGET_SETTING = "out"
SUMMARY = (
    "Make a labelled mock survey: "
    "FITS cutouts, catalogue.csv and recipe.yaml in the new folder OUT."
)
EXAMPLE = "lens-hpc simulate data/demo/survey objects=4000 seed=0"

MINIMUM_FIELD_ARCSEC = 8.0

Band = Literal["g", "r", "i", "z", "y"]


class Settings(BaseSettings):
    """Settings of `lens-hpc simulate`."""

    out: FilePath
    """Folder of the new survey."""
    objects: PositiveInt = 4000
    """Number of cutouts."""
    seed: NonNegativeInt = 0
    """The same seed gives the same bytes, whatever the number of processes."""
    prevalence: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the objects that are lenses; one in a thousand or fewer on the real sky."""
    size: Annotated[int, Field(ge=32, le=512)] = 64
    """Height and width of a cutout, pixels."""
    pixel_scale: Annotated[float, Field(ge=0.05, le=0.5)] = 0.168
    """Arcseconds per pixel."""
    bands: Annotated[tuple[Band, ...], Field(min_length=1)] = ("g", "r", "i")
    """Filters of each cutout, in this order."""
    processes: PositiveInt = Field(default_factory=usable_cpus)
    """Worker processes."""

    @model_validator(mode="after")
    def _fits(self) -> "Settings":
        field_arcsec = self.size * self.pixel_scale
        if field_arcsec < MINIMUM_FIELD_ARCSEC:
            raise ValueError(
                f"size x pixel_scale must be at least {MINIMUM_FIELD_ARCSEC} arcsec, "
                f"or arcs would not fit: got {field_arcsec:.1f}"
            )
        if len(set(self.bands)) < len(self.bands):
            raise ValueError("bands must differ from each other")
        return self


def run(settings: Settings) -> "MockSurvey":
    """Make a mock survey in a new folder, which appears when all of it is complete.

    Raise UserError when the folder exists, or when its cutouts are too small to show lenses.
    """
    from lens_hpc.sky.mock_survey import SurveyDesign, make_mock_survey  # imports torch

    design = SurveyDesign(**settings.model_dump(exclude={"out", "processes"}))
    return make_mock_survey(settings.out, design, settings.processes)


def text(survey: "MockSurvey") -> str:
    """Return what was made, and how to pack it."""
    out = survey.folder
    return (
        f"{out}: {survey.objects:,} objects, {survey.lenses:,} of them lenses. Pack it with\n"
        f"  lens-hpc pack {out}/recipe.yaml source={out} output=FOLDER"
    )
