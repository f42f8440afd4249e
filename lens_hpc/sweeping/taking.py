"""Which run a task trains next: one of a trial that has begun, or the first of a new one.

What a task trains it holds, so that no two train the same. What is not held, and not finished, has
lost its task: another one goes on with it.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lens_hpc import config, files, layout
from lens_hpc import settings as reading
from lens_hpc.errors import UserError
from lens_hpc.holding import HeldByAnotherError, held
from lens_hpc.logs import logger
from lens_hpc.sweeping.plan import PlannedRun, RunPlan
from lens_hpc.sweeping.space import settings_line
from lens_hpc.sweeping.study import OPEN, Study, SweepTrial, study_held
from lens_hpc.sweeping.trial_process import run_settings_file
from lens_hpc.training.best import TITLES, ValidationNumbers, best_of_records
from lens_hpc.training.metrics_log import read_metrics_log
from lens_hpc.training.run_folder import is_finished

PLACES = ("run", "data.dataset")
"""Settings of a run that differ where the sweep's folder has moved."""


@dataclass(frozen=True)
class Sweeping:
    """A sweep that this task takes part in."""

    folder: Path
    plan: RunPlan
    most_trials: int
    seed: int

    @contextmanager
    def study_held(self) -> Iterator[Study]:
        """Hold the study, for a moment."""
        with study_held(self.folder, self.plan.space, self.seed) as study:
            yield study

    @contextmanager
    def run_taken(self) -> Iterator[PlannedRun | None]:
        """Take the next run, and hold it; None where nothing is left for this task."""
        with ExitStack() as stack:
            with self.study_held() as study:
                run = self._take(study, stack)
            if run and run.folder.is_dir():
                # Where its task was killed, the training ends a moment later.
                with held(run.folder, run.folder / layout.LOCK, patient=True):
                    pass
            yield run

    def _take(self, study: Study, stack: ExitStack) -> PlannedRun | None:
        trials = study.trials()
        for trial in trials:
            run = self._take_of(trial, study, stack) if trial.state == OPEN else None
            if run:
                return run
        for _ in range(len(trials), self.most_trials):
            # Where the journal was lost, its runs may be finished already.
            run = self._take_of(study.draw(), study, stack)
            if run:
                return run
        return None

    def _take_of(self, trial: SweepTrial, study: Study, stack: ExitStack) -> PlannedRun | None:
        """Take a run of an open trial; None where all are held or finished, which ends it."""
        runs = self.plan.runs(trial.number, trial.settings)
        for run in runs:
            _check_same_settings(run)
        for run in runs:
            if not is_finished(run.settings) and _hold(run, stack):
                return run
        if all(is_finished(run.settings) for run in runs):
            self._end(trial, runs, study)
        return None

    def _end(self, trial: SweepTrial, runs: list[PlannedRun], study: Study) -> None:
        by = self.plan.space.base.train.best
        value = float(np.mean([validation_of(run)[by] for run in runs]))
        study.end(trial.number, value)
        done = sum(other.state != OPEN for other in study.trials())
        logger.info(
            "trial %d of %d: validation %s %.4f  %s",
            done,
            self.most_trials,
            TITLES[by],
            value,
            settings_line(trial.settings),
        )


def _hold(run: PlannedRun, stack: ExitStack) -> bool:
    """Hold a run until the stack is closed, unless another task does, or has just finished it."""
    with suppress(HeldByAnotherError), ExitStack() as own:
        own.enter_context(held(run.folder, wait_minutes=0))
        if is_finished(run.settings):
            return False
        # Also where one is: a sweep that has moved has other folders.
        files.write_text(run_settings_file(run), reading.dump(run.settings))
        stack.enter_context(own.pop_all())
        return True
    return False


def _check_same_settings(run: PlannedRun) -> None:
    """Raise UserError where a run was begun with other settings than its trial has."""
    file = run_settings_file(run)
    if not file.is_file():
        return
    changed = reading.differences(reading.load(config.Train, file), run.settings, PLACES)
    if changed:
        lines = "\n  ".join(changed)
        raise UserError(
            f"{file}: was begun with other settings than the journal has; name another output\n"
            f"  {lines}"
        )


def validation_of(run: PlannedRun) -> ValidationNumbers:
    """Return the numbers of a run's best epoch on the validation split; none before the first."""
    return best_of_records(read_metrics_log(run.folder), run.settings.train.best)
