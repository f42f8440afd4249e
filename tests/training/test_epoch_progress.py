from types import SimpleNamespace
from typing import Any

import pytest

from lens_hpc.training import epoch_progress as room
from lens_hpc.training.checkpoints import TrainingState
from lens_hpc.training.epoch_progress import EpochProgress, Pace

EPOCHS, STEPS, BATCH, VALIDATED = 4, 10, 30, 90
SECONDS_A_CUTOUT = 0.5


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A time that the test sets."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(room.time, "monotonic", lambda: clock.now)
    return clock


def make_trainer() -> Any:
    loop = SimpleNamespace(epochs=EPOCHS, best="tpr10")
    return SimpleNamespace(
        settings=SimpleNamespace(train=loop),
        order=SimpleNamespace(samples=STEPS * BATCH, steps=STEPS),
        validation_loader=SimpleNamespace(samples=SimpleNamespace(split=range(VALIDATED))),
        accelerator=SimpleNamespace(is_main_process=False),
    )


@pytest.mark.parametrize(("epochs_done", "steps_done"), [(0, 0), (0, 7), (2, 0), (3, 9)])
def test_the_time_left_is_that_of_the_run(clock: Any, epochs_done: int, steps_done: int) -> None:
    """Whichever epoch and step the call begins with, where validation costs a third."""
    state = TrainingState(step=epochs_done * STEPS + steps_done, epochs_done=epochs_done)
    trainer = make_trainer()
    pace = Pace(trainer, state)

    work = epochs_done * (STEPS * BATCH + VALIDATED / 3) + steps_done * BATCH
    whole = EPOCHS * (STEPS * BATCH + VALIDATED / 3)
    for epoch in range(epochs_done, EPOCHS):
        left = STEPS - (steps_done if epoch == epochs_done else 0)
        progress = EpochProgress(trainer, pace, epoch, left * BATCH, {})
        if epoch == epochs_done:
            assert progress.time_left() == ""
        for _ in range(left):
            clock.now += SECONDS_A_CUTOUT * BATCH
            work += BATCH
            progress.update(BATCH)
            seconds = pace.seconds_left(progress.work_before + progress.done)
            assert seconds == pytest.approx(SECONDS_A_CUTOUT * (whole - work))
        assert progress.time_left().endswith(" of the run left")
        clock.now += SECONDS_A_CUTOUT * VALIDATED / 3
        work += VALIDATED / 3


@pytest.mark.usefixtures("clock")
def test_the_epoch_before_is_shown_by_its_validation() -> None:
    trainer = make_trainer()
    pace = Pace(trainer, TrainingState())
    last = {"val_loss": 0.3, "val_auc": 0.9, "val_tpr10": 0.5, "loss": 0.2}
    progress = EpochProgress(trainer, pace, 1, 300, last)
    assert progress.facts == {"val loss": "0.3000", "val AUC": "0.9000", "val TPR10": "0.5000"}
    assert progress.title == "epoch 2/4"
