"""Weights on disk: RUN/best and RUN/final, each all that evaluate needs.

model.safetensors   weights; its metadata says from which epoch, and with which validation AUC
config.yaml         the run's settings
manifest.json       the dataset's manifest: bands, features and the statistics of training
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.utils.model_ema import ModelEmaV3

from lens_hpc import UserError, config, files
from lens_hpc.data.shards import Manifest, read_manifest
from lens_hpc.logs import logger
from lens_hpc.model.fusion import FusionModel

WEIGHTS = "model.safetensors"


def save(
    folder: Path, model: torch.nn.Module, settings: config.Train, manifest: Manifest, facts: dict[str, str]
) -> None:
    """Write or replace the weights in `folder`; a reader finds the old ones or the new ones, whole."""
    files.make_folder(folder)
    files.write_text(folder / "config.yaml", config.dump(settings))
    files.write_text(folder / "manifest.json", manifest.model_dump_json(indent=1) + "\n")
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with files.whole_file(folder / WEIGHTS) as partial:
        save_file(state, partial, metadata=facts)


@dataclass(frozen=True)
class Trained:
    """A trained model and what it was trained with."""

    model: FusionModel
    settings: config.Train
    manifest: Manifest


def folder_of(run: Path, which: str) -> Path:
    """The folder of a run's `best` or `final` weights, or of the FILE that is named."""
    if which in {"best", "final"}:
        return run / which
    file = Path(which).expanduser()
    if file.is_dir() or file.name == WEIGHTS:
        return file if file.is_dir() else file.parent
    raise UserError(f"weights = {which}: must be best, final, or a {WEIGHTS} with its config.yaml and manifest.json")


def load(folder: Path) -> Trained:
    """The model in RUN/best or RUN/final. UserError names what is missing or does not match."""
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} holds no {WEIGHTS}: is {folder.parent} a run that has trained for an epoch?")
    settings = config.load(config.Train, folder / "config.yaml")
    manifest = read_manifest(folder)
    model = make_model(settings.model.model_copy(update={"weights": "none"}), manifest)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise UserError(f"{folder / WEIGHTS}: is damaged, or not of the model in its config.yaml: {error}") from error
    return Trained(model, settings, manifest)


def make_model(settings: config.Model, manifest: Manifest) -> FusionModel:
    """The model for cutouts and features as the manifest describes them, with its initial weights."""
    shape = len(manifest.bands), (manifest.height, manifest.width), len(manifest.features)
    start = Path(settings.weights)
    if not start.is_dir():
        return FusionModel(settings, *shape)
    model = FusionModel(settings.model_copy(update={"weights": "none"}), *shape)
    take_over(model, start if (start / WEIGHTS).is_file() else start / "best")
    return model


def take_over(model: FusionModel, folder: Path) -> None:
    """Start from the weights of another run. What is not there, or of another shape, keeps its new weights."""
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"model.weights = {folder}: holds no {WEIGHTS}; name a run that has trained for an epoch")
    theirs, ours = load_file(folder / WEIGHTS), model.state_dict()
    fitting = {name: value for name, value in theirs.items() if name in ours and ours[name].shape == value.shape}
    model.load_state_dict(fitting, strict=False)
    if anew := [name for name in ours if name not in fitting]:
        logger.warning(
            "model.weights = %s: %d of %d tensors have no match there and begin anew: %s",
            folder, len(anew), len(ours), ", ".join(anew[:5]) + ", ..." * (len(anew) > 5),
        )  # fmt: skip


def average_statistics(accelerator: Accelerator, model: torch.nn.Module, ema: ModelEmaV3 | None) -> None:
    """Give all processes the mean of their BatchNorm statistics, so that all validate and save the same model."""
    for module in (accelerator.unwrap_model(model), *([ema.module] if ema else [])):
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.copy_(accelerator.reduce(buffer, reduction="mean"))
