"""Runs for tests that need scores and not skill: models as they were drawn, saved in a moment."""

from pathlib import Path

import torch

from lens_hpc import config
from lens_hpc.dataset.dataset import Dataset
from lens_hpc.dataset.manifest import Manifest, read_manifest
from lens_hpc.dataset.training_rows import hash_rows, write_row_hashes
from lens_hpc.layout import BEST, TRAINING_ROWS
from lens_hpc.model.build import build_model
from lens_hpc.model.trained import save_trained
from lens_hpc.scoring.calibration import Calibration, write_calibration
from tests.conftest import SMALL_MODEL

CALIBRATION = Calibration(
    temperature=1.5,
    isotonic_logits=(-2.0, 2.0),
    isotonic_probabilities=(0.1, 0.9),
    prevalence=0.5,
)


def make_run(
    folder: Path,
    dataset: Path,
    seed: int = 0,
    manifest: Manifest | None = None,
    is_calibrated: bool = True,
    **model: object,
) -> Path:
    """Save an untrained model as the best of a run on a packed dataset."""
    manifest = manifest or read_manifest(dataset)
    tree = {"run": folder, "data": {"dataset": dataset}, "model": SMALL_MODEL | model}
    settings = config.Train.model_validate(tree)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_model(settings.model, manifest)
        # Scores of drawn weights are nearly the same for all: these differ.
        for parameter in network.parameters():
            parameter.data *= 3

    best = folder / BEST
    facts = {"step": "1", "epoch": "1", "loss": "0.7", "lr": "0.001", "val_auc": "0.5"}
    save_trained(best, network, settings, manifest, facts)
    if is_calibrated:
        write_calibration(best, CALIBRATION, "1")
    write_row_hashes(best / TRAINING_ROWS, hash_rows(Dataset(dataset)["train"]))
    return folder
