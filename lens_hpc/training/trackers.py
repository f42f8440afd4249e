"""Trackers: TensorBoard, W&B and MLflow get the numbers of a run while it trains, and its pictures.

They only show what lies in the run's folder, so none of them holds a training up or ends it. A
thread tells them. One that fails, as its disk is full or its server away, is warned of once, and
gets nothing more. A run that goes on from a checkpoint does some steps again; what was told of
them is not told a second time.
"""

import importlib.util
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from lens_hpc import config, layout
from lens_hpc.errors import UserError
from lens_hpc.logs import Output, logger
from lens_hpc.training.best import LOSS, RECORDED
from lens_hpc.training.tracker_kinds import KINDS, Tracker, TrackerOfAccelerate

SECONDS_TO_FINISH = 60.0
TOLD = re.compile(r"(\w+) (\d+)\n")
LOSSES, EPOCHS = "losses", "epochs"
GROUPS = {"loss": "loss/train", RECORDED + LOSS: "loss/validation", "epoch": "epoch"}
NOT_TRACKED = {"step", "lr"}
"""Of an epoch: all numbers have its step, and the learning rate of its steps was told."""


def check_trackers(wanted: Sequence[str]) -> None:
    """Raise UserError unless all trackers are known and installed."""
    from accelerate.tracking import get_available_trackers

    installed = {name for name in KINDS if importlib.util.find_spec(name)}
    installed |= {str(name) for name in get_available_trackers()} - KINDS.keys()
    missing = [name for name in wanted if name not in installed]
    if not missing:
        return
    remedy = ""
    if KINDS.keys() & set(missing):
        remedy = "; pip install 'lens_hpc[track]' brings wandb and mlflow"
    raise UserError(
        f"train.trackers = {missing}: unknown or not installed; here are: "
        f"{', '.join(sorted(installed))}{remedy}"
    )


# ---- while a run trains ----


class Trackers:
    """The trackers of a training; without any, they are told in vain."""

    def __init__(self, trackers: Mapping[str, Tracker] | None = None, told: "Told | None" = None):
        self._trackers = dict(trackers or {})
        self._told = told
        self._tasks: SimpleQueue[Callable[[Tracker], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="trackers", daemon=True)
        if self._trackers:
            self._thread.start()

    def tell_step(self, step: int, loss: float, rate: float, gpu_bytes: int | None) -> None:
        """Tell of a step: its mean loss, its learning rate, and the most that its GPU has held."""
        numbers = {"loss/step": loss, "lr/learning_rate": rate}
        if gpu_bytes is not None:
            numbers["memory/gpu_gb"] = gpu_bytes / 1e9
        self._tell(LOSSES, step, numbers)

    def tell_epoch(self, facts: Mapping[str, float]) -> None:
        """Tell what is recorded of an epoch, by groups."""
        numbers = {grouped(name): facts[name] for name in facts.keys() - NOT_TRACKED}
        self._tell(EPOCHS, int(facts["step"]), numbers)

    def show_pictures(self, title: str, pictures: dict[str, Path], step: int) -> None:
        """Show PNG files, by their names."""
        self._tasks.put(lambda tracker: tracker.show_pictures(title, pictures, step))

    def finish(self) -> None:
        """Wait until all is told, or for a minute."""
        if not self._thread.is_alive():
            return
        self._tasks.put(None)
        self._thread.join(SECONDS_TO_FINISH)
        if self._thread.is_alive():
            logger.warning("train.trackers: %s: not all is told yet", ", ".join(self._trackers))

    def _tell(self, kind: str, step: int, numbers: dict[str, float]) -> None:
        if self._told and self._told.is_new(kind, step):
            self._tasks.put(lambda tracker: tracker.log(numbers, step))

    def _work(self) -> None:
        while task := self._tasks.get():
            self._do(task)
        self._do(lambda tracker: tracker.finish())

    def _do(self, task: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                task(tracker)
            except Exception as error:  # each fails in ways of its own
                _warn(name, error)
                del self._trackers[name]


def grouped(name: str) -> str:
    """Return the name that trackers have for a number of metrics.jsonl, its group first."""
    if name in GROUPS:
        return GROUPS[name]
    if name.startswith(RECORDED):
        return "metrics/" + name.removeprefix(RECORDED)
    return f"throughput/{name}"


class Told:
    """RUN/tracked.txt: up to which step each kind of numbers was told.

    It is written before they are told: a kill in between loses one point, and doubles none.
    """

    def __init__(self, run: Path) -> None:
        file = run / layout.TRACKED
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        self._last = {kind: int(step) for kind, step in TOLD.findall(text)}
        self._file = Output(str(file))
        if text and not text.endswith("\n"):
            self._file.write("\n")  # after what a full disk has cut off

    def is_new(self, kind: str, step: int) -> bool:
        """Whether a step was not told before; it then counts as told."""
        if step <= self._last.get(kind, -1):
            return False
        self._last[kind] = step
        self._file.write(f"{kind} {step}\n")
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextmanager
def started_trackers(settings: config.Train) -> Iterator[Trackers]:
    """Start or go on with the trackers of a run, on the process that tells them."""
    told = Told(settings.run)
    trackers = Trackers(start_all(settings), told)
    try:
        yield trackers
    finally:
        trackers.finish()
        told.close()


def start_all(settings: config.Train) -> dict[str, Tracker]:
    """Start the trackers of a run; those that cannot are warned of."""
    trackers: dict[str, Tracker] = {}
    for name in dict.fromkeys(settings.train.trackers):
        make = KINDS.get(name) or partial(TrackerOfAccelerate, name)
        try:
            trackers[name] = make(settings)
        except Exception as error:
            _warn(name, error)
    return trackers


def _warn(name: str, error: Exception) -> None:
    logger.warning("train.trackers: %s gets nothing more of this run: %s", name, error)


# ---- of a run that has trained ----


def show_pictures(settings: config.Train, title: str, pictures: dict[str, Path], step: int) -> None:
    """Show PNG files, by their names, in the trackers of a run: they are of `step`."""
    trackers = Trackers(start_all(settings))
    trackers.show_pictures(title, pictures, step)
    trackers.finish()
