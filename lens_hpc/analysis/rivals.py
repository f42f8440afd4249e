"""Other runs, evaluated on the same samples, to compare with: the ablation that an honest paper shows."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from lens_hpc import UserError, config
from lens_hpc.analysis import metrics
from lens_hpc.analysis.metrics import Curve, Difference

SAME = ("split", "dataset_crc32")


@dataclass
class Rival:
    """Another run, and how the evaluated run differs from it."""

    run: Path
    inputs: str
    metrics: dict[str, Any]
    """Its metrics.json."""
    predictions: Path
    difference: Difference | None = None
    """AUC of the evaluated run minus its own."""
    curve: Curve | None = None

    def compare(self, labels: np.ndarray, logits: np.ndarray) -> None:
        """Read its logits and test the difference of the AUCs over the same samples."""
        columns = pq.read_table(self.predictions, columns=["index", "logit"])
        theirs = np.empty_like(logits)
        theirs[columns["index"].to_numpy()] = columns["logit"].to_numpy()
        known = labels >= 0
        if 0 < (labels == 1).sum() < known.sum():
            self.difference = metrics.compare(labels[known], logits[known], theirs[known])
            self.curve = metrics.rank(labels[known], theirs[known])

    def __str__(self) -> str:
        told = "" if self.difference is None else (
            f": better by {self.difference.difference:+.4f} in AUC [{self.difference.ci95[0]:+.4f}, "
            f"{self.difference.ci95[1]:+.4f}], p {self.difference.shown_p} (DeLong, paired)"
        )  # fmt: skip
        return f"than {self.run} ({self.inputs}){told}"


def read(run: Path, evaluation: Path, origin: dict[str, Any]) -> Rival:
    """The evaluation of another run. UserError when there is none, or one of other samples."""
    if not (evaluation / "metrics.json").is_file():
        raise UserError(f"compare = {run}: {evaluation} is not there; evaluate that run with the same settings first")
    tree = json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))
    if differ := [key for key in SAME if tree.get(key) != origin[key]]:
        raise UserError(f"compare = {run}: {evaluation} is of other samples ({', '.join(differ)}); evaluate it again")
    inputs = config.load(config.Train, run / "config.yaml").model.inputs
    return Rival(run, inputs, tree, evaluation / "predictions.parquet")
