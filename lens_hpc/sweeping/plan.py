"""The runs of a trial: one, or one for each seed and fold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lens_hpc import config
from lens_hpc.sweeping.space import Space


class PlannedRun(NamedTuple):
    """One run of a trial."""

    trial: int
    settings: config.Train

    @property
    def name(self) -> str:
        """Return its name, such as 0007, or 0007-seed-1-fold-0."""
        return self.settings.run.name

    @property
    def folder(self) -> Path:
        """Return the run's folder."""
        return self.settings.run


@dataclass(frozen=True)
class RunPlan:
    """How each trial is trained: once, or with several seeds and on several folds."""

    space: Space
    trials: Path
    """Folder of the runs."""
    seeds: int
    folds: Sequence[Path]
    """Datasets; none: that of the settings."""

    def runs(self, trial: int, values: Mapping[str, Any]) -> list[PlannedRun]:
        """Return the runs of a trial, whose settings are `values`, by dotted key."""
        runs = []
        for seed in range(self.seeds):
            for fold in range(len(self.folds) or 1):
                name = f"{trial:04d}"
                own: dict[str, Any] = {}
                if self.seeds > 1:
                    name += f"-seed-{seed}"
                    own["train.seed"] = self.space.base.train.seed + seed
                if self.folds:
                    name += f"-fold-{fold}"
                    own["data.dataset"] = self.folds[fold]
                own["run"] = self.trials / name
                runs.append(PlannedRun(trial, self.space.settings({**values, **own})))
        return runs
