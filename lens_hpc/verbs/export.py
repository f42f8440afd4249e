"""export: share a trained model: safetensors, ONNX and torch.export, with a model card."""

from typing import TYPE_CHECKING, Literal

from lens_hpc.settings import FilePath, WordOrPath
from lens_hpc.settings import Settings as BaseSettings

if TYPE_CHECKING:
    from lens_hpc.exporting.export import Export

TARGET = "RUN"
TARGET_SETTING = "run"
EXTRA = "export"
SUMMARY = (
    "Export a trained run to a new folder for others: OUTPUT gets model.safetensors, which "
    "Finder.load reads, model.onnx and model.pt2, which take cutouts and features as they are "
    "stored, and README.md, a card with the figures of the run's evaluations."
)
EXAMPLE = "lens-hpc export runs/demo output=data/demo/exported"


class Settings(BaseSettings):
    """Settings of `lens-hpc export`."""

    run: FilePath
    """Run to export; of an ensemble, each run by itself."""
    output: FilePath
    """Folder of the export, which must be new."""
    weights: WordOrPath = "best"
    """best (on the validation split, by train.best) | final (last epoch) | a FILE
    model.safetensors, its config.yaml beside it."""
    formats: tuple[Literal["onnx", "torch"], ...] = ("onnx", "torch")
    """What is written beside model.safetensors: onnx (model.onnx, for ONNX Runtime) | torch
    (model.pt2, for torch.export.load). []: neither."""
    license: str | None = None
    """Licence of the weights, as Hugging Face names them, such as cc-by-4.0; null: the card says
    that there is none yet."""
    code: tuple[str, ...] = ()
    """Packages of your own that the run's model may come from; nothing else is imported."""


def run(settings: Settings) -> "Export":
    """Export a run; the folder appears when all of it is complete."""
    from lens_hpc.exporting.export import export_run  # imports torch

    return export_run(
        run=settings.run,
        output=settings.output,
        weights=settings.weights,
        formats=settings.formats,
        code=settings.code,
        license_name=settings.license,
    )


def text(export: "Export") -> str:
    """Say what was written, and how to use it."""
    return export.text
