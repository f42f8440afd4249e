"""The numbers of a validation, and the one of them that chooses the best weights (`train.best`)."""

from pathlib import Path

import numpy as np
import torch

from lens_hpc import config, metrics
from lens_hpc.dataset.manifest import Manifest
from lens_hpc.errors import UserError
from lens_hpc.metrics.table import METRICS
from lens_hpc.training.optimizer import BinaryLoss

ValidationNumbers = dict[str, float]
"""The loss, and entries of the table of metrics, by the words of `train.best`."""

LOSS = "loss"
TITLES = {"auc": "AUC", "tpr10": "TPR10", "partial_auc": "partial AUC", LOSS: LOSS}
RANKING = {metric.key: metric for metric in METRICS if metric.key in TITLES}

RECORDED = "val_"
"""What the name of a number begins with in metrics.jsonl, in trackers and beside weights."""


def check_best(dataset: Path, manifest: Manifest, split: str, best: str) -> None:
    """Raise UserError when a split has too few non-lenses for the number that chooses."""
    if best not in RANKING:
        return
    needed = RANKING[best].non_lenses_needed
    found = manifest.splits[split].non_lenses
    if found < needed:
        raise UserError(
            f"train.best = {best}: needs {needed} non-lenses or more in the split {split}, and "
            f"{dataset} has {found} there; choose auc or loss"
        )


def measure_validation(
    labels: np.ndarray, logits: np.ndarray, loss: config.Loss
) -> ValidationNumbers:
    """Return the numbers of labels (N,) and finite logits (N,) of the validation split.

    The loss is the one that is trained, with its weights and its smoothing, so that the two may be
    compared: its mean over all samples, each once. A number that needs more non-lenses is left out.
    """
    targets = torch.from_numpy(labels).float()
    losses = BinaryLoss(loss)(torch.from_numpy(logits), targets)
    numbers = {LOSS: float(losses.double().mean())}

    curve = metrics.rank(labels, logits)
    for name, metric in RANKING.items():
        if curve.non_lenses >= metric.non_lenses_needed:
            numbers[name] = float(metric.compute(curve))
    return numbers


def is_better(numbers: ValidationNumbers, best: ValidationNumbers, by: str) -> bool:
    """Whether weights with these numbers are better than the best so far; ties are not.

    Before the first epoch there are none; and of weights that an earlier version chose by AUC, no
    other number is known: any weights are then better.
    """
    if by not in best:
        return True
    if by == LOSS:
        return numbers[by] < best[by]
    return numbers[by] > best[by]


# ---- in records ----


def as_recorded(numbers: ValidationNumbers) -> dict[str, float]:
    """Return the numbers by the names that records have for them."""
    return {RECORDED + name: value for name, value in numbers.items()}


def best_of_records(records: list[dict[str, float]], by: str) -> ValidationNumbers:
    """Return the numbers of the best of the recorded epochs; none where there is none."""
    best: ValidationNumbers = {}
    for record in records:
        numbers = {name: record[RECORDED + name] for name in TITLES if RECORDED + name in record}
        if by in numbers and is_better(numbers, best, by):
            best = numbers
    return best
