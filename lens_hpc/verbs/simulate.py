"""simulate: make a labelled mock survey, so that the demo and the tests need no network."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from lens_hpc.resources import usable_cpus
from lens_hpc.settings import FilePath
from lens_hpc.settings import Settings as BaseSettings
from lens_hpc.sky.surveys import SURVEYS

if TYPE_CHECKING:
    from lens_hpc.sky.mock_survey import MockSurvey

TARGET = "OUT"
TARGET_SETTING = "out"
SUMMARY = (
    "Make a labelled mock survey: "
    "FITS cutouts, catalogue.csv, truth.csv and recipe.yaml in the new folder OUT."
)
EXAMPLE = "lens-hpc simulate data/demo/survey objects=4000 seed=0"

# A narrower field has room for too few lenses. *Unit: smallest Einstein radius*
MINIMUM_FIELD = 8.0


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
    survey: Literal["euclid", "hsc"] = "euclid"
    """Whose images the cutouts are like: one sharp band (vis) from space, or several (g, r, i, z,
    y) from the ground. The catalogue has the same columns for both."""
    size: Annotated[int, Field(ge=32, le=512)] | None = None
    """Height and width of a cutout, pixels; null: 80 for euclid, 64 for hsc."""
    pixel_scale: Annotated[float, Field(ge=0.05, le=0.5)] | None = None
    """Arcseconds per pixel; null: 0.1 for euclid, 0.168 for hsc."""
    bands: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Filters of each cutout, in this order; null: [vis] for euclid, [g, r, i] for hsc."""
    processes: PositiveInt = Field(default_factory=usable_cpus)
    """Worker processes."""

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

    Raise UserError when the folder exists, or when its cutouts are too small to show lenses.
    """
    from lens_hpc.sky.mock_survey import SurveyDesign, make_mock_survey  # imports torch

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
    return make_mock_survey(settings.out, design, settings.processes)


def text(survey: "MockSurvey") -> str:
    """Return what was made, and how to pack it."""
    out = survey.folder
    return (
        f"{out}: {survey.objects:,} objects, {survey.lenses:,} of them lenses. Pack it with\n"
        f"  lens-hpc pack {out}/recipe.yaml source={out} output=FOLDER"
    )
