"""A training under way: how far it has come, when it is saved, when it stops."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from lens_hpc.loading.loader import Loader
from lens_hpc.training.checkpoints import Checkpoints, TrainingState, capture_state
from lens_hpc.training.losses import SentLosses
from lens_hpc.training.signals import Agreement, StopRequest
from lens_hpc.training.trackers import Trackers
from lens_hpc.training.trainer import StepResult, Trainer


class StopAgreed(Exception):  # noqa: N818 - it is no error
    """All processes agreed to stop at this step."""


class Decision(NamedTuple):
    """What all processes do after a step."""

    stop: bool
    save: bool


@dataclass
class TrainingSession:
    """A training under way, in this process."""

    trainer: Trainer
    state: TrainingState
    checkpoints: Checkpoints
    agreement: Agreement
    request: StopRequest
    deadline: float
    """Time (of time.time) at which to stop."""
    trackers: Trackers = field(default_factory=Trackers)
    saved_at: float = field(default_factory=time.monotonic)
    recent: list[StepResult] = field(default_factory=list)
    """Steps whose losses are still on the device."""
    sent: SentLosses | None = None
    """Losses that are on their way to the host."""

    @property
    def steps_into_epoch(self) -> int:
        """Steps done of the present epoch."""
        return self.state.step - self.state.epochs_done * self.trainer.order.steps

    # ---- what all processes decide together ----

    def submit_wishes(self) -> None:
        """Tell the other processes, as a step begins, what this one wants after it."""
        stop = self.request.requested or time.time() > self.deadline
        if stop and self.agreement.is_of_one:
            self.request.obeyed()
        self.agreement.submit(f"step {self.state.step}", stop, self._is_save_due())

    def decision(self) -> Decision:
        """Return what all processes do after the step: what any of them wanted."""
        stop, save = self.agreement.result()
        if stop:
            self.request.obeyed()
        return Decision(bool(stop), bool(save))

    def stop_if_requested(self) -> None:
        """Raise StopAgreed, on all processes, when one was asked to stop while they validate."""
        where = f"validation after step {self.state.step}"
        self.agreement.submit(where, self.request.requested)
        (stop,) = self.agreement.result()
        if stop:
            self.request.obeyed()
            raise StopAgreed

    # ---- saving ----

    def _is_save_due(self) -> bool:
        """Whether a checkpoint shall follow the step that begins now."""
        settings = self.trainer.settings.checkpoint
        every = settings.every_steps
        if every is not None and (self.state.step + 1) % every == 0:
            return True
        return time.monotonic() - self.saved_at > 60 * settings.every_minutes

    def save(self) -> None:
        """Begin to write a checkpoint of this step. All processes must call it."""
        captured = capture_state(self.trainer, self.state)
        if captured:
            self.checkpoints.write(self.state.step, captured)
        self.saved_at = time.monotonic()


class EpochClock:
    """Where the time of an epoch goes."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._waited_before = loader.waited
        self._began = time.monotonic()
        self._spent = {"saving": 0.0, "logging": 0.0}

    def seconds(self) -> float:
        """Return the time since the epoch began."""
        return time.monotonic() - self._began

    def seconds_waited(self) -> float:
        """Return the time for which data were waited for."""
        return self._loader.waited - self._waited_before

    @contextmanager
    def spending_on(self, purpose: str) -> Iterator[None]:
        """Count the time meanwhile as spent on a purpose that is not training."""
        began = time.monotonic()
        yield
        self._spent[purpose] += time.monotonic() - began

    def spent(self) -> dict[str, float]:
        """Return the seconds that were spent on each purpose."""
        return dict(self._spent)
