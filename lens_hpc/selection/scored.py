"""Scores of hosts and of what was painted on them, a batch at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lens_hpc.errors import UserError
from lens_hpc.model.trained import TrainedModel
from lens_hpc.scoring.attention import attention_maps
from lens_hpc.scoring.batches import BatchScorer
from lens_hpc.selection.grid import Trials
from lens_hpc.selection.hosts import HostReader
from lens_hpc.selection.occlusion import contrast, find_control, hide
from lens_hpc.selection.painted import PaintedTrials


@dataclass(frozen=True)
class TrialScorer:
    """Scores batches: an ensemble gives the mean of its logits."""

    members: Sequence[TrainedModel]
    score: BatchScorer
    reader: HostReader
    trials: Trials
    seed: int
    occlude_every: int
    """The arc of every so-many-th trial is hidden to see what that does; 0: of none."""

    def hosts(self, numbers: np.ndarray) -> pd.DataFrame:
        """Return the logit of each of these hosts as it is, without an arc."""
        images = self.reader.read("images", numbers)
        return pd.DataFrame({"host": numbers, "logit": self._logits(images, numbers)})

    def painted(self, numbers: np.ndarray, part: PaintedTrials) -> pd.DataFrame:
        """Return a row for each of these trials: what was painted, and its scores."""
        trials, hosts = self.trials, self.reader.hosts
        of_trials = trials.host[numbers]
        placed = {
            "trial": numbers,
            "host": of_trials,
            "host_id": hosts.ids[of_trials],
            "split": hosts.splits[of_trials],
            "radius_cell": trials.radius_cell[numbers],
            "magnitude_cell": trials.magnitude_cell[numbers],
            "source_magnitude": trials.source_magnitude[numbers],
            "logit": self._logits(part.images, of_trials),
        }
        truth = pd.DataFrame(part.truth)
        # A length of the grid is exact, whatever the painter says of it.
        truth["einstein_radius"] = trials.einstein_radius[numbers]
        occluded = self._occluded(numbers, part)
        return pd.concat([pd.DataFrame(placed), truth, occluded], axis=1)

    def _occluded(self, numbers: np.ndarray, part: PaintedTrials) -> pd.DataFrame:
        """Return what hiding the arc, or as much beside it, does to scores; NaN where not tried."""
        names = ("logit_hidden", "logit_control", "attention_arc", "attention_control")
        columns = {name: np.full(len(numbers), np.nan, np.float32) for name in names}
        if self.occlude_every:
            self._occlude(numbers, part, columns)
        return pd.DataFrame(columns)

    def _occlude(
        self, numbers: np.ndarray, part: PaintedTrials, columns: dict[str, np.ndarray]
    ) -> None:
        is_tried = (numbers % self.occlude_every == 0) & part.masks.any(axis=(1, 2))
        tried = np.flatnonzero(is_tried)
        if not len(tried):
            return
        controls = [find_control(part.masks[row]) for row in tried]
        hidden, beside = [], []
        for row, control in zip(tried, controls, strict=True):
            rng = np.random.default_rng([self.seed, int(numbers[row])])
            hidden.append(hide(rng, part.images[row], part.masks[row]))
            beside.append(hide(rng, part.images[row], control.mask))

        of_hosts = self.trials.host[numbers[tried]]
        is_one = np.array([control.is_one for control in controls])
        columns["logit_hidden"][tried] = self._logits(np.stack(hidden), of_hosts)
        logits = self._logits(np.stack(beside), of_hosts)
        columns["logit_control"][tried] = np.where(is_one, logits, np.nan)

        maps = attention_maps(self.members, part.images[tried])
        if maps is not None:
            masks = [control.mask for control in controls]
            arcs = zip(maps, part.masks[tried], strict=True)
            columns["attention_arc"][tried] = [contrast(*each) for each in arcs]
            turned = [contrast(*each) for each in zip(maps, masks, strict=True)]
            columns["attention_control"][tried] = np.where(is_one, turned, np.nan)

    def _logits(self, images: np.ndarray, hosts: np.ndarray) -> np.ndarray:
        """Return the logits (B,) of images that have the features of these hosts (B,)."""
        features = self.reader.read("features", hosts)
        logits = self.score(images, features).mean(axis=0)
        wrong = hosts[~np.isfinite(logits)]
        if len(wrong):
            raise UserError(
                f"{self.reader.hosts.dataset}: the score of the host "
                f"{self.reader.hosts.ids[wrong[0]]}, or of an arc on it, is no number: its pixels "
                "are beyond what the run was trained on; leave it out by `where` in the recipe"
            )
        return logits


def batches(count: int, size: int) -> list[np.ndarray]:
    """Return the numbers 0 to count - 1 in batches, the last of which may be short."""
    return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]
