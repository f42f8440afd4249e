import importlib.util
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lens_hpc import config, layout
from lens_hpc.errors import UserError
from lens_hpc.training import trackers as room
from lens_hpc.training.tracker_kinds import KINDS
from lens_hpc.training.trackers import Told, Trackers, grouped, show_pictures, started_trackers


class Recording:
    """A tracker that keeps what it is told."""

    def __init__(self, settings: config.Train | None = None) -> None:
        self.told: list[tuple[int, dict[str, float]]] = []
        self.finished = False

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self.told.append((step, dict(numbers)))

    def show_pictures(self, title: str, pictures: Mapping[str, Path], step: int) -> None:
        self.told.append((step, dict.fromkeys(pictures, 1.0)))

    def finish(self) -> None:
        self.finished = True


class Failing(Recording):
    """A tracker whose server is away from its second number on."""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        super().log(numbers, step)
        if len(self.told) > 1:
            raise ConnectionError("no route to host")

    def finish(self) -> None:
        raise AssertionError("it gets nothing more")


def settings_with(training: config.Train, *trackers: str) -> config.Train:
    loop = training.train.model_copy(update={"trackers": trackers})
    return training.model_copy(update={"train": loop})


@pytest.fixture
def run(training: config.Train) -> Path:
    training.run.mkdir()
    return training.run


# ---- what is told ----


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("loss", "loss/train"),
        ("val_loss", "loss/validation"),
        ("val_tpr10", "metrics/tpr10"),
        ("cutouts_per_second", "throughput/cutouts_per_second"),
    ],
)
def test_numbers_have_groups(name: str, group: str) -> None:
    assert grouped(name) == group


def test_what_was_told_of_a_step_is_not_told_again(run: Path) -> None:
    """A run goes on from step 10, though 12 were told; the epoch that ended there was not."""
    for last in (12, 20):
        kind = Recording()
        told = Told(run)
        trackers = Trackers({"a": kind}, told)
        for step in range(1 if last == 12 else 11, last + 1):
            trackers.tell_step(step, 0.5, 1e-3, gpu_bytes=None)
        if last == 20:
            trackers.tell_epoch({"step": 12, "loss": 0.5})
        trackers.finish()
        told.close()
        assert kind.finished
        if last == 12:
            assert [step for step, _ in kind.told] == list(range(1, 13))
    assert [step for step, _ in kind.told] == [*range(13, 21), 12]
    assert kind.told[-1] == (12, {"loss/train": 0.5})


def test_a_mark_that_a_full_disk_has_cut_off_spoils_none_after_it(run: Path) -> None:
    (run / layout.TRACKED).write_text("losses 5\nlosses 1")
    told = Told(run)
    assert not told.is_new("losses", 5)
    assert told.is_new("losses", 7)
    told.close()
    again = Told(run)
    assert not again.is_new("losses", 7)
    again.close()


def test_a_tracker_that_fails_is_told_once_and_the_others_go_on(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kinds = {"away": Failing(), "here": Recording()}
    told = Told(run)
    trackers = Trackers(kinds, told)
    for step in range(5):
        trackers.tell_step(step, 0.5, 1e-3, gpu_bytes=2_000_000_000)
    trackers.finish()
    told.close()
    assert caplog.messages == [
        "train.trackers: away gets nothing more of this run: no route to host"
    ]
    assert len(kinds["away"].told) == 2
    assert len(kinds["here"].told) == 5
    assert kinds["here"].told[0][1]["memory/gpu_gb"] == 2.0


def test_nobody_waits_for_a_slow_tracker(
    run: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = threading.Event()

    class Slow(Recording):
        def log(self, numbers: Mapping[str, float], step: int) -> None:
            may_go_on.wait()

    monkeypatch.setattr(room, "SECONDS_TO_FINISH", 0.05)
    told = Told(run)
    trackers = Trackers({"slow": Slow()}, told)
    began = time.monotonic()
    for step in range(100):
        trackers.tell_step(step, 0.5, 1e-3, gpu_bytes=None)
    trackers.finish()
    assert time.monotonic() - began < 10
    assert caplog.messages == ["train.trackers: slow: not all is told yet"]
    may_go_on.set()
    told.close()


def test_a_tracker_that_cannot_start_ends_no_training(
    training: config.Train,
    run: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(settings: config.Train) -> Any:
        raise ConnectionError("no server at http://localhost:1")

    monkeypatch.setitem(KINDS, "wandb", refuse)  # type: ignore[arg-type]
    with started_trackers(settings_with(training, "wandb")) as trackers:
        trackers.tell_step(1, 0.5, 1e-3, gpu_bytes=None)
    assert caplog.messages == [
        "train.trackers: wandb gets nothing more of this run: no server at http://localhost:1"
    ]


def test_a_tracker_that_is_named_twice_is_told_once(
    training: config.Train, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Recording] = []

    def start(settings: config.Train) -> Recording:
        started.append(Recording(settings))
        return started[-1]

    monkeypatch.setitem(KINDS, "wandb", start)  # type: ignore[arg-type]
    with started_trackers(settings_with(training, "wandb", "wandb")) as trackers:
        trackers.tell_step(1, 0.5, 1e-3, gpu_bytes=None)
    assert [tracker.finished for tracker in started] == [True]
    assert len(started[0].told) == 1


# ---- TensorBoard ----


def test_pictures_replace_those_of_before(training: config.Train, tmp_path: Path) -> None:
    picture = tmp_path / "roc.png"
    settings = settings_with(training, "tensorboard")
    for color in (10, 200):
        Image.fromarray(np.full((4, 6, 3), color, dtype=np.uint8)).save(picture)
        show_pictures(settings, "test", {"roc": picture}, step=7)

    events = EventAccumulator(str(training.run / layout.TENSORBOARD / "test"))
    events.Reload()
    (shown,) = events.Images("roc")
    assert (shown.step, shown.width, shown.height) == (7, 6, 4)
    picture.write_bytes(shown.encoded_image_string)
    assert np.asarray(Image.open(picture)).max() == 200


def test_a_package_that_is_missing_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else found(name)
    )
    room.check_trackers(["tensorboard", "mlflow"])
    with pytest.raises(
        UserError,
        match=r"train.trackers = \['wandb'\]: unknown or not installed; here are: "
        r".*mlflow.*tensorboard.*; pip install 'lens_hpc\[track\]' brings wandb and mlflow$",
    ):
        room.check_trackers(["tensorboard", "wandb"])
