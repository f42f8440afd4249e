"""The trials of a sweep in Optuna's journal, which all tasks share.

Each reads and writes it while it holds the study, for a moment at a time. A trial is one line when
it is drawn, with all its values, and one when it ends; so a kill at any instant leaves it drawn or
not, and ended or not. A last line that was cut off is taken away before the next is written, as
Optuna would join the two.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from lens_hpc import layout, logs
from lens_hpc.errors import UserError
from lens_hpc.holding import held
from lens_hpc.refusals import refusals_named
from lens_hpc.sweeping.space import Knob, Space

NAME = "sweep"
OPTUNAS_LOCK = ".lock"

OPEN, DONE, FAILED = "open", "done", "failed"
STATES = {TrialState.RUNNING: OPEN, TrialState.COMPLETE: DONE, TrialState.FAIL: FAILED}


class SweepTrial(NamedTuple):
    """One setting that is tried, or was."""

    number: int
    state: str
    """open: drawn, and not yet trained to the end | done | failed."""
    value: float | None
    """The number that is made better; None unless done."""
    settings: dict[str, Any]
    """The values of those that vary, by dotted key."""


class Study:
    """The trials, as long as this process holds them (`study_held`)."""

    def __init__(self, study: optuna.Study, space: Space, seed: int) -> None:
        self._study = study
        self._space = space
        self._seed = seed

    def trials(self) -> list[SweepTrial]:
        """Return all trials, the first one first."""
        return [self._read(trial) for trial in self._study.get_trials(deepcopy=False)]

    def draw(self) -> SweepTrial:
        """Begin another trial, whose values are a function of the seed and the trials so far.

        Of choices alone, no combination is drawn twice as long as one is left.
        """
        before = self._study.get_trials(deepcopy=False)
        drawn = self._draw_after(before)
        distributions = _distributions(self._space)
        state = TrialState.RUNNING
        self._study.add_trial(create_trial(state=state, params=drawn, distributions=distributions))
        return self.trials()[-1]

    def end(self, number: int, value: float | None) -> None:
        """Note a trial's number; None: it has failed."""
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        self._study.tell(number, value, state, skip_if_finished=True)

    def importance(self) -> dict[str, float]:
        """Return how much of the number's variance each setting explains, the largest first.

        None where all trials have the same number.
        """
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        evaluator = FanovaImportanceEvaluator(seed=self._seed % (1 << 32))
        try:
            return get_param_importances(self._study, evaluator=evaluator)
        except RuntimeError:  # no variance to be explained
            return {}

    def _draw_after(self, before: list[FrozenTrial]) -> dict[str, Any]:
        # A sampler of its own for each trial: a process that goes on draws what is new.
        words = np.random.SeedSequence([self._seed, len(before)]).generate_state(1)
        sampler = TPESampler(seed=int(words[0]), multivariate=True, constant_liar=True)
        copy = optuna.create_study(sampler=sampler, direction=self._study.direction)
        copy.add_trials(before)
        drawn = copy.ask(_distributions(self._space)).params

        # The same choices again would train the same run again.
        tried = [trial.params for trial in before]
        rng = random.Random(int(words[0]))
        while drawn in tried and len(tried) < (self._space.combinations or 0):
            drawn = {knob.key: rng.choice(knob.choices) for knob in self._space.knobs}
        return drawn

    def _read(self, trial: FrozenTrial) -> SweepTrial:
        values = {knob.key: knob.value_of(trial.params[knob.key]) for knob in self._space.knobs}
        return SweepTrial(trial.number, STATES[trial.state], trial.value, values)


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    return {knob.key: _distribution(knob) for knob in space.knobs}


def _distribution(knob: Knob) -> BaseDistribution:
    if knob.choices:
        return CategoricalDistribution(knob.choices)
    low, high = knob.range.ends
    is_log = knob.range.log is not None
    if knob.is_whole:
        return IntDistribution(int(low), int(high), log=is_log)
    return FloatDistribution(low, high, log=is_log)


# ---- the journal ----


@contextmanager
def study_held(folder: Path, space: Space, seed: int) -> Iterator[Study]:
    """Hold the study of a sweep, which is begun where there is none."""
    journal = folder / layout.STUDY
    direction = StudyDirection.MINIMIZE if is_minimised(space) else StudyDirection.MAXIMIZE
    with held(journal, patient=True), refusals_named(journal), logs.quieted("optuna"):
        _clear_up(journal)
        with _damage_named(journal):
            storage = JournalStorage(JournalFileBackend(str(journal)))
            if NAME in optuna.get_all_study_names(storage):
                study = optuna.load_study(study_name=NAME, storage=storage)
            else:
                study = optuna.create_study(storage=storage, study_name=NAME, direction=direction)
            known = Study(study, space, seed)
            known.trials()
        yield known


@contextmanager
def _damage_named(journal: Path) -> Iterator[None]:
    """Raise UserError for a journal that Optuna cannot read."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # Optuna fails in ways of its own
        raise UserError(
            f"{journal}: is damaged ({type(error).__name__}: {error}); restore it, or move it "
            "away: the same line then draws its trials again, and counts finished runs"
        ) from error


def is_minimised(space: Space) -> bool:
    """Whether a lower number is the better one: the loss alone."""
    return space.base.train.best == "loss"


def _clear_up(journal: Path) -> None:
    """Take away what a killed task left: a line without its end, and Optuna's own lock."""
    for lock in journal.parent.glob(f"{journal.name}{OPTUNAS_LOCK}*"):
        lock.unlink(missing_ok=True)
    if not journal.is_file():
        return
    with journal.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
