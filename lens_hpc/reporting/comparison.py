"""Other runs, evaluated on the same samples: the ablation that an honest paper shows."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lens_hpc import config, layout, metrics, settings
from lens_hpc.errors import UserError
from lens_hpc.metrics import Curve, Difference, table

# Evaluations that agree in these are of the same samples.
SAME_SAMPLES = ("split", "dataset_crc32")


@dataclass
class Comparison:
    """Another run, and how the evaluated run differs from it."""

    run: Path
    inputs: str
    """What its model sees: fusion, image or features."""
    metrics: dict[str, Any]
    """What its metrics.json holds."""
    predictions: Path
    difference: Difference | None = None
    """AUC of the evaluated run minus its own."""
    curve: Curve | None = None

    def compare(
        self, labels: np.ndarray, logits: np.ndarray, groups: np.ndarray | None = None
    ) -> None:
        """Test the difference of the AUCs over the samples with labels and logits (N,).

        `groups` are (N,) int. Where one of the classes is missing, there is none. Raise UserError
        when its predictions are damaged.
        """
        other_logits = read_logits(self.predictions, len(logits))
        labelled = labels >= 0
        lenses = (labels == 1).sum()
        if 0 < lenses < labelled.sum():
            labels = labels[labelled]
            other_logits = other_logits[labelled]
            groups = None if groups is None else groups[labelled]
            self.difference = metrics.compare_aucs(labels, logits[labelled], other_logits, groups)
            self.curve = metrics.rank(labels, other_logits)

    def __str__(self) -> str:
        text = f"than {self.run} ({self.inputs})"
        if self.difference is None:
            return text

        low, high = self.difference.ci95
        return (
            f"{text}: better by {self.difference.difference:+.4f} in AUC [{low:+.4f}, {high:+.4f}],"
            f" p {self.difference.shown_p} (paired test)"
        )


def read_comparison(run: Path, evaluation: Path, origin: dict[str, Any]) -> Comparison:
    """Read the evaluation of another run, to compare it with one of this origin.

    Raise UserError when there is none, when it is damaged, or when it is one of other samples.
    """
    file = evaluation / layout.METRICS
    if not file.is_file():
        raise UserError(
            f"compare = {run}: {evaluation} is not there; "
            "evaluate that run with the same settings first"
        )

    tree = _read_metrics(file)
    differ = [key for key in SAME_SAMPLES if tree.get(key) != origin[key]]
    if differ:
        raise UserError(
            f"compare = {run}: {evaluation} is of other samples ({', '.join(differ)}); "
            "evaluate it again"
        )

    # That its predictions are damaged would else be found when all is scored.
    predictions = evaluation / layout.PREDICTIONS
    with _damage_named(predictions):
        pq.read_schema(predictions)

    trained = settings.load(config.Train, run / layout.CONFIG)
    return Comparison(run, trained.model.inputs, tree, predictions)


def read_logits(predictions: Path, count: int) -> np.ndarray:
    """Return the logits of a split's `count` rows, in their order. Raise UserError for damage."""
    with _damage_named(predictions):
        columns = pq.read_table(predictions, columns=["index", "logit"])
        index = columns["index"].cast(pa.int64()).to_numpy()
        logits = columns["logit"].cast(pa.float32()).to_numpy()
        if not np.array_equal(np.sort(index), np.arange(count)) or not np.isfinite(logits).all():
            raise ValueError(f"has not one score for each of {count:,} rows")

    # Its samples may lie in another order: each goes to its own row.
    in_order = np.empty(count, np.float32)
    in_order[index] = logits
    return in_order


def _read_metrics(file: Path) -> dict[str, Any]:
    """Return what metrics.json holds. Raise UserError for what no evaluation has written."""
    with _damage_named(file):
        tree = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(tree, dict):
            raise ValueError("holds no mapping")

        headlines = [metric.key for metric in table.METRICS if metric.headline]
        for key in headlines:
            if not isinstance(tree.get(key), int | float | None):
                raise ValueError(f"{key} is no number")
    return tree


@contextmanager
def _damage_named(file: Path) -> Iterator[None]:
    """Turn what a reader of this file raises into one UserError that names it."""
    try:
        yield
    except (OSError, ValueError, KeyError, RecursionError, pa.ArrowException) as error:
        raise UserError(f"{file}: is damaged ({error}); evaluate that run again") from error
