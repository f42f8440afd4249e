"""predict: score a whole survey, straight from its mosaics, its image files or a packed dataset."""

from typing import TYPE_CHECKING

from lens_hpc.predicting.predict_settings import PredictSettings as Settings

if TYPE_CHECKING:
    from lens_hpc.predicting.prediction import Prediction

TARGET = "RUN [RUN ...] SURVEY"
TARGET_SETTING = "targets"
EXTRA = "train"
SUMMARY = (
    "Score each object of a survey once: SURVEY is a recipe of mosaics (no cutouts are stored), "
    "of image files, or a packed dataset. OUTPUT gets scores/*.parquet, summary.json and the "
    "highest scores as a packed dataset, candidates/."
)
EXAMPLE = (
    "lens-hpc predict runs/demo data/demo/sky/recipe.yaml source=data/demo/sky "
    "output=data/demo/scored"
)
PROCESSES = (
    "Processes to start on this machine, one a GPU; without GPUs they share the cores. For several "
    "machines: accelerate launch."
)


def run(settings: Settings) -> "Prediction | None":
    """Score a survey on all processes, or go on; the first process returns what was done."""
    from lens_hpc.predicting.prediction import predict_survey  # imports torch

    return predict_survey(settings)


def text(prediction: "Prediction") -> str:
    """Say what was scored, and where everything is."""
    return prediction.text
