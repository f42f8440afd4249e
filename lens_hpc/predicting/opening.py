"""Opening the survey that is to be scored: a recipe with mosaics or images, or a packed dataset."""

from pathlib import Path

from lens_hpc import settings as reading
from lens_hpc.errors import UserError
from lens_hpc.layout import MANIFEST, SURVEY_ROWS
from lens_hpc.packing.recipe import PackSettings
from lens_hpc.packing.survey_rows import SurveyRows, sort_rows
from lens_hpc.predicting.image_survey import ImageSurvey
from lens_hpc.predicting.mosaic_survey import MosaicSurvey
from lens_hpc.predicting.packed_survey import PackedSurvey
from lens_hpc.predicting.predict_settings import PredictSettings
from lens_hpc.predicting.survey import SurveyToScore

NOT_LOOKED_AT = dict.fromkeys(("label", "target", "weight", "group", "split"))
"""Columns of a training set, which a survey may not have."""


def read_recipe(settings: PredictSettings) -> PackSettings | None:
    """Return the recipe of the survey; None for a packed dataset. Raises UserError for neither."""
    survey = settings.survey
    if (survey / MANIFEST).is_file():
        if settings.source is not None or settings.recipe:
            raise UserError(f"{survey}: is a packed dataset; source= and recipe= are for a recipe")
        return None
    if not survey.is_file():
        raise UserError(
            f"{survey}: is neither a packed dataset nor the file of a recipe; the survey comes "
            "last: lens-hpc predict RUN RECIPE source=DIR output=DIR"
        )
    if settings.truth:
        raise UserError(f"truth: {survey} is a recipe; only of an injected dataset it is known")
    if settings.source is None:
        raise UserError(f"source: which folder holds the catalogue and images of {survey}?")

    places = {"source": settings.source, "output": settings.output}
    own = {"code": settings.code, "tile_memory": settings.tile_memory}
    values = {**settings.recipe, **places, **own}
    recipe = reading.load(PackSettings, survey, values=values)
    columns = recipe.columns.model_copy(update=NOT_LOOKED_AT)
    return recipe.model_copy(update={"columns": columns})


def open_in_place(
    recipe: PackSettings | None, survey: Path, with_truth: bool
) -> SurveyToScore | None:
    """Open a survey that is read as it lies; None for mosaics, whose rows are sorted first."""
    if recipe is None:
        return PackedSurvey(survey, with_truth)
    if recipe.mosaics is None:
        return ImageSurvey(recipe, recipe.source)
    return None


def sort_survey(recipe: PackSettings, folder: Path) -> None:
    """Sort the rows of a survey of mosaics by tile, in `folder`, unless that is done already."""
    rows = folder / SURVEY_ROWS
    if rows.is_dir() and SurveyRows(rows).is_of(recipe, recipe.source):
        return
    sort_rows(recipe, recipe.source, rows)


def open_sorted(recipe: PackSettings, folder: Path) -> SurveyToScore:
    """Open a survey of mosaics, whose rows were sorted in `folder`."""
    return MosaicSurvey(recipe, SurveyRows(folder / SURVEY_ROWS))
