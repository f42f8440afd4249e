"""Other runs, evaluated on the same samples: the ablation that an honest paper shows."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from lens_hpc import config, layout, metrics, settings
from lens_hpc.errors import UserError
from lens_hpc.metrics import Curve, Difference

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

    def compare(self, labels: np.ndarray, logits: np.ndarray) -> None:
        """Test the difference of the AUCs over the samples with labels and logits (N,).

        Where one of the classes is missing, there is none.
        """
        # Its samples may lie in another order: each goes to its own row.
        columns = pq.read_table(self.predictions, columns=["index", "logit"])
        other_logits = np.empty_like(logits)
        other_logits[columns["index"].to_numpy()] = columns["logit"].to_numpy()

        labelled = labels >= 0
        lenses = (labels == 1).sum()
        if 0 < lenses < labelled.sum():
            labels = labels[labelled]
            other_logits = other_logits[labelled]
            self.difference = metrics.compare_aucs(labels, logits[labelled], other_logits)
            self.curve = metrics.rank(labels, other_logits)

    def __str__(self) -> str:
        text = f"than {self.run} ({self.inputs})"
        if self.difference is None:
            return text

        low, high = self.difference.ci95
        return (
            f"{text}: better by {self.difference.difference:+.4f} in AUC [{low:+.4f}, {high:+.4f}],"
            f" p {self.difference.shown_p} (DeLong, paired)"
        )


def read_comparison(run: Path, evaluation: Path, origin: dict[str, Any]) -> Comparison:
    """Read the evaluation of another run, to compare it with one of this origin.

    Raise UserError when there is none, or when it is one of other samples.
    """
    file = evaluation / layout.METRICS
    if not file.is_file():
        raise UserError(
            f"compare = {run}: {evaluation} is not there; "
            "evaluate that run with the same settings first"
        )

    tree = json.loads(file.read_text(encoding="utf-8"))
    differ = [key for key in SAME_SAMPLES if tree.get(key) != origin[key]]
    if differ:
        raise UserError(
            f"compare = {run}: {evaluation} is of other samples ({', '.join(differ)}); "
            "evaluate it again"
        )

    trained = settings.load(config.Train, run / layout.CONFIG)
    return Comparison(run, trained.model.inputs, tree, evaluation / layout.PREDICTIONS)
