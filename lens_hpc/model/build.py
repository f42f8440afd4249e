"""Names become models: the one place where a model is made."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from lens_hpc import config, files
from lens_hpc import settings as reading
from lens_hpc.dataset.feature_scaling import feature_width
from lens_hpc.dataset.manifest import Manifest
from lens_hpc.errors import UserError
from lens_hpc.extensions import find_object
from lens_hpc.layout import BEST, CONFIG, WEIGHTS
from lens_hpc.logs import logger
from lens_hpc.model import hub
from lens_hpc.model.fusion import FusionModel
from lens_hpc.model.pretrained import read_weights

# A model of one's own has the same signature and the same forward(images, features) -> logits (B,).
MODELS = {"fusion": FusionModel}

NAMES_SHOWN = 5
TRIED_BATCH = 2  # BatchNorm over a single position needs as many


def build_model(
    settings: config.Model, manifest: Manifest, code: Collection[str] = ()
) -> nn.Module:
    """Make the model for cutouts and features as a manifest describes them.

    It has its initial weights: random ones, timm's, or those of another run, as `settings.weights`
    says. `code` names the packages that `settings.name` may come from. Raises UserError for what
    cannot be made.
    """
    model_class = find_object("model.name", settings.name, MODELS, code)
    settings = hub.with_architecture(settings)
    bands, features = len(manifest.bands), feature_width(settings, manifest)
    size = (manifest.height, manifest.width)

    start = _run_to_start_from(settings)
    if start is None:
        return model_class(settings, bands, size, features)

    model = model_class(without_weights(settings), bands, size, features)
    take_over_weights(model, start)
    return model


def build_initial_model(settings: config.Train, manifest: Manifest) -> nn.Module:
    """Make the model that a training begins with, as `build_model` does.

    Warn where its weights are of a run whose inputs were scaled in another way.
    """
    model = build_model(settings.model, manifest, settings.code)
    start = _run_to_start_from(settings.model)
    if start is not None:
        _warn_of_other_scaling(settings, start)
    return model


def _run_to_start_from(settings: config.Model) -> Path | None:
    """Return the folder whose whole model is the start, None where it is timm's or a file's."""
    start = files.expand(settings.weights)
    if not start.is_dir() or hub.is_hub_folder(start):
        return None
    return start if (start / WEIGHTS).is_file() else start / BEST


def find_unused(
    trial: nn.Module,
    settings: config.Model,
    manifest: Manifest,
    batch_size: int = TRIED_BATCH,
) -> list[str]:
    """Return the trainable parameters for which a training step gives no gradient.

    `forward_features` of many timm models leaves parts of the head unused. They are found by a step
    of a model that is good for nothing else afterwards, on its device, with so many random samples:
    where parts depend on the samples, as in a mixture of experts, some may be named that others
    use. Raises UserError when BatchNorm cannot be trained with one sample.
    """
    device = next(trial.parameters()).device
    trial.train()

    with torch.random.fork_rng(devices=[]):
        images = torch.rand(batch_size, len(manifest.bands), manifest.height, manifest.width)
        features = torch.rand(batch_size, feature_width(settings, manifest))
        with few_values_named(batch_size):
            logits = trial(images.to(device), features.to(device))
        logits.sum().backward()

    named = trial.named_parameters()
    return [name for name, one in named if one.requires_grad and one.grad is None]


@contextmanager
def few_values_named(batch_size: int) -> Iterator[None]:
    """Raise UserError when BatchNorm cannot be trained, meanwhile, with a batch of this size."""
    try:
        yield
    except ValueError as error:
        if batch_size > 1 or "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            f"a micro-batch of 1 cutout fails in training ({error}): BatchNorm needs more values "
            "than one. Choose train.micro_batch_size=2 or more, and a train.global_batch_size that "
            "leaves each process as many"
        ) from error


def without_weights(settings: config.Model) -> config.Model:
    """Return the settings of a model whose weights will be loaded, so that none need be fetched."""
    return settings.model_copy(update={"weights": "none"})


def take_over_weights(model: nn.Module, folder: Path) -> None:
    """Start from the weights of another run, as far as names and shapes are the same.

    What has no match there keeps its new weights, and is named in a warning.
    """
    if not (folder / WEIGHTS).is_file():
        raise UserError(
            f"model.weights = {folder}: holds no {WEIGHTS}; name a run that has trained for an "
            "epoch"
        )

    ours = model.state_dict()
    theirs = read_weights(folder / WEIGHTS).tensors
    fitting = {
        name: tensor
        for name, tensor in theirs.items()
        if name in ours and ours[name].shape == tensor.shape
    }
    model.load_state_dict(fitting, strict=False)

    anew = [name for name in ours if name not in fitting]
    if anew:
        shown = ", ".join(anew[:NAMES_SHOWN])
        more = ", ..." if len(anew) > NAMES_SHOWN else ""
        logger.warning(
            "model.weights = %s: %d of %d tensors have no match there and begin anew: %s%s",
            folder,
            len(anew),
            len(ours),
            shown,
            more,
        )


def _warn_of_other_scaling(settings: config.Train, folder: Path) -> None:
    """Warn where the weights in `folder` were trained on inputs of another scaling."""
    if not (folder / CONFIG).is_file():
        return
    theirs = reading.load(config.Train, folder / CONFIG)

    # Only a branch that both models have takes weights over.
    inputs = {theirs.model.inputs, settings.model.inputs}
    scalings: dict[str, tuple[str, str]] = {}
    if "features" not in inputs:
        scalings["data.image_scale"] = theirs.data.image_scale, settings.data.image_scale
    if "image" not in inputs:
        scaling = theirs.model.feature_scaling, settings.model.feature_scaling
        scalings["model.feature_scaling"] = scaling

    for key, (there, here) in scalings.items():
        if there != here:
            logger.warning(
                "model.weights = %s: was trained with %s=%s, and starts here with %s; "
                "choose the same",
                *(folder, key, there, here),
            )
