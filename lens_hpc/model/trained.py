"""Weights on disk: RUN/best and RUN/final, each all that scoring needs.

model.safetensors   weights; its metadata says from which epoch, and with which validation AUC
config.yaml         the run's settings
manifest.json       the dataset's manifest: bands, features and the statistics of training
calibration.json    from logits to probabilities (lens_hpc.scoring.calibration)
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from lens_hpc import config, files
from lens_hpc import settings as reading
from lens_hpc.dataset.manifest import Manifest, read_run_manifest
from lens_hpc.errors import UserError
from lens_hpc.layout import BEST, CONFIG, FINAL, MANIFEST, WEIGHTS
from lens_hpc.model.build import build_model, without_weights
from lens_hpc.model.pretrained import LONGEST_SHOWN, read_weights, write_weights


@dataclass(frozen=True)
class TrainedModel:
    """A trained model and what it was trained with."""

    model: torch.nn.Module
    settings: config.Train
    manifest: Manifest
    folder: Path
    """RUN/best or RUN/final."""
    facts: dict[str, str]
    """Metadata of the weights: epoch, step, validation AUC, ..."""

    @property
    def sees_features(self) -> bool:
        """Whether the model looks at catalogue features at all."""
        return self.settings.model.inputs != "image"


def save_trained(
    folder: Path,
    model: torch.nn.Module,
    settings: config.Train,
    manifest: Manifest,
    facts: dict[str, str],
) -> None:
    """Write or replace the weights in `folder`; a reader finds the old or the new ones, complete.

    `facts` go into the metadata of the weights.
    """
    files.make_folder(folder)
    files.write_text(folder / CONFIG, reading.dump(settings))
    files.write_text(folder / MANIFEST, manifest.model_dump_json(indent=1) + "\n")

    state = model.state_dict()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_weights(folder / WEIGHTS, tensors, facts)


def weights_folder(run: Path, which: str) -> Path:
    """Return the folder of a run's `best` or `final` weights, or of the FILE that is named.

    An export has one kind of weights, which lie in the folder itself.
    """
    if which == BEST and (run / WEIGHTS).is_file():
        return run
    if which in {BEST, FINAL}:
        return run / which

    file = files.expand(which)
    if file.is_dir():
        return file
    if file.name == WEIGHTS:
        return file.parent
    raise UserError(
        f"weights = {which}: must be best, final, or a {WEIGHTS} with its config.yaml and "
        "manifest.json"
    )


def load_trained(folder: Path, code: Collection[str] = ()) -> TrainedModel:
    """Load the model in RUN/best or RUN/final.

    `code` names the packages that a model of one's own may come from; what the run's own config
    says of that is not trusted. Raises UserError for what is missing or does not match.
    """
    if not (folder / WEIGHTS).is_file():
        why = f"is {folder.parent} a run that has trained for an epoch?"
        if not folder.parent.exists():
            why = f"there is no folder {folder.parent}; name one of a run"
        raise UserError(f"{folder} holds no {WEIGHTS}: {why}")

    settings = reading.load(config.Train, folder / CONFIG)
    manifest = read_run_manifest(folder)
    if manifest.statistics is None:
        raise UserError(
            f"{folder / MANIFEST}: has no statistics of training, so no run was trained on it; "
            "copy the run again"
        )
    weights = read_weights(folder / WEIGHTS)
    # The weights are drawn only to be replaced, so this leaves the caller's random state alone.
    with torch.random.fork_rng(devices=[]):
        model = build_model(without_weights(settings.model), manifest, code)

    try:
        model.load_state_dict(weights.tensors)
    except RuntimeError as error:
        raise UserError(
            f"{folder / WEIGHTS}: is damaged, or not of the model in its config.yaml: "
            f"{str(error)[:LONGEST_SHOWN]}"
        ) from error
    return TrainedModel(model, settings, manifest, folder, weights.facts)
