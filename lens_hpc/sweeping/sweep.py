"""A sweep: settings drawn from ranges, each trained by `lens-hpc train`, until there are enough.

Any number of tasks work on one sweep; each takes the next run (`taking`), and the last one that
ends sees all results. What is killed goes on when the same line is run again.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from lens_hpc import config, files, layout
from lens_hpc import settings as reading
from lens_hpc.children import signals_noted
from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.errors import STOPPED_STATUS, UserError
from lens_hpc.holding import held
from lens_hpc.logs import logger
from lens_hpc.sweeping.folds import write_folds
from lens_hpc.sweeping.plan import RunPlan
from lens_hpc.sweeping.results import Sweep, write_results
from lens_hpc.sweeping.space import Space, read_space
from lens_hpc.sweeping.sweep_settings import SweepSettings
from lens_hpc.sweeping.taking import Sweeping
from lens_hpc.sweeping.trial_process import (
    Train,
    is_for_the_user,
    log_file,
    reason_of,
)

FAILURES_IN_A_ROW = 3
"""So many, and a task ends: it is not the settings alone, but the data or the machine."""
MAY_DIFFER = ("config", "output", "trials", "processes")
"""Of the settings of a sweep that goes on."""


def sweep(settings: SweepSettings, train: Train) -> Sweep:
    """Train what is left of a sweep, and write its table, picture and best settings.

    `train` trains a run. Raises UserError for settings that do not fit, for a training that refuses
    its settings or data, and where three in a row fail.
    """
    if "RANK" in os.environ:
        raise UserError("a sweep starts its trainings itself: leave out the launcher")
    space = read_space(settings)
    read_manifest(space.base.data.dataset)
    _begin(settings, space)

    sweeping = _open(settings, space)
    with signals_noted() as signals:
        stopped = _train_all(sweeping, train, signals)
    return write_results(sweeping, stopped)


def _begin(settings: SweepSettings, space: Space) -> None:
    """Note what is swept in a new folder. Raises UserError where it holds something else."""
    folder = settings.output
    record, base = folder / layout.SWEEP, folder / layout.BASE
    with held(folder / layout.STUDY, patient=True):
        if record.is_file():
            begun = reading.load(SweepSettings, record), reading.load(config.Train, base)
            changed = reading.differences(begun[0], settings, MAY_DIFFER)
            changed += reading.differences(begun[1], space.base, {"run"})
            if changed:
                lines = "\n  ".join(changed)
                raise UserError(
                    f"{folder}: this sweep was begun with other settings; name another output\n"
                    f"  {lines}"
                )
            return

        names = {name for name in files.names_in(folder) if not name.startswith(".")}
        if names - {layout.BASE, layout.SWEEP}:
            raise UserError(f"{folder}: holds something else than a sweep; name another output")
        files.remove_partials(folder)
        files.write_text(base, reading.dump(space.base))
        files.write_text(record, reading.dump(settings))


def _open(settings: SweepSettings, space: Space) -> Sweeping:
    folder = settings.output
    folds: Sequence[Path] = ()
    if settings.folds:
        dataset = space.base.data.dataset
        folds = write_folds(dataset, folder / layout.FOLDS, settings.folds, settings.seed)

    combinations = space.combinations
    most = settings.trials if combinations is None else min(settings.trials, combinations)
    plan = RunPlan(space, folder / layout.RUNS, settings.seeds, folds)
    return Sweeping(folder, plan, most, settings.seed)


def _train_all(sweeping: Sweeping, train: Train, signals: list[int]) -> bool:
    """Train runs until none is left for this task; return whether it was asked to stop before."""
    failures = 0
    while not signals:
        with sweeping.run_taken() as run:
            if run is None:
                return False
            logger.info("%s: trains, and says so in %s", run.name, log_file(run))
            status = train(run, signals)
            if status == 0:
                failures = 0
                continue
            if signals or status == STOPPED_STATUS:
                return True

            reason = reason_of(run)
            if is_for_the_user(status, reason):
                raise UserError(f"{run.folder}: {reason}")
            with sweeping.study_held() as study:
                study.end(run.trial, None)
            logger.warning("%s: failed: %s", run.name, reason)
            failures += 1
            if failures == FAILURES_IN_A_ROW:
                raise UserError(
                    f"{failures} trainings in a row have failed, the last: {reason}; see "
                    f"{log_file(run)}. The same line goes on with other settings"
                )
    return True
