import errno
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lens_hpc import config
from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.errors import UserError
from lens_hpc.training import trainer as trainer_room
from lens_hpc.training.accelerator import accelerator_session
from lens_hpc.training.checkpoints import (
    Checkpoints,
    TrainingState,
    capture_state,
    random_states,
    restore_place,
    set_random_states,
)
from lens_hpc.training.loop import train_run
from lens_hpc.training.trainer import Trainer, make_trainer, train_step


def state(step: int) -> dict:
    return {"weights": torch.full((1000,), float(step)), "place": {"step": step}}


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in folder.iterdir())


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[Checkpoints]:
    with Checkpoints(tmp_path / "checkpoints", keep=2) as made:
        for step in (3, 6, 9, 12):
            made.write(step, state(step))
        made.wait()
        yield made


def test_the_newest_stay(checkpoints: Checkpoints) -> None:
    assert steps(checkpoints.folder) == [9, 12]
    newest = checkpoints.newest()
    assert newest == checkpoints.folder / "step-00000012"
    assert torch.load(newest / "state.pt", weights_only=True)["place"] == {"step": 12}


@pytest.mark.parametrize("damage", ["chop", "flip", "no record", "no state", "foreign record"])
def test_a_damaged_one_is_passed_over(
    checkpoints: Checkpoints, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoints.folder / "step-00000012"
    data = bytearray((folder / "state.pt").read_bytes())
    if damage == "chop":
        (folder / "state.pt").write_bytes(data[:-100])
    elif damage == "flip":
        data[1500] ^= 1
        (folder / "state.pt").write_bytes(data)
    elif damage == "no record":
        (folder / "complete.json").unlink()
    elif damage == "no state":
        (folder / "state.pt").unlink()
    else:
        (folder / "complete.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        assert checkpoints.newest() == checkpoints.folder / "step-00000009"
    assert "step-00000012" in caplog.text
    assert "the one before is taken" in caplog.text


def test_what_a_kill_left_half_written_is_cleared(checkpoints: Checkpoints) -> None:
    for name in ("step-00000015.partial", "step-00000015.partial-node-17"):
        (checkpoints.folder / name).mkdir()
    assert checkpoints.newest() == checkpoints.folder / "step-00000012"
    assert steps(checkpoints.folder) == [9, 12]


def test_one_that_lost_its_name_to_a_kill_is_taken_back(checkpoints: Checkpoints) -> None:
    """It was to be written again, where folders cannot exchange their names in one step."""
    newest = checkpoints.folder / "step-00000012"
    newest.rename(newest.with_name(".step-00000012.replaced"))
    assert checkpoints.newest() == newest
    assert steps(checkpoints.folder) == [9, 12]


def test_a_full_disk_is_told_and_the_old_ones_stay(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    checkpoints.write(15, state(15))
    told = (
        r"step-00000015: cannot be written: No space left on device .*; checkpoints before it are"
    )
    with pytest.raises(UserError, match=rf"{told} kept, and each needs \d+ MB; make room"):
        checkpoints.wait()
    assert steps(checkpoints.folder) == [9, 12]


def test_leaving_waits_for_the_last_one_and_ends_the_thread(tmp_path: Path) -> None:
    with Checkpoints(tmp_path / "checkpoints", keep=2) as checkpoints:
        checkpoints.write(3, state(3))
    assert steps(checkpoints.folder) == [3]
    assert not [each for each in threading.enumerate() if each.name.startswith("checkpoint")]


def test_random_states_come_back() -> None:
    cpu = torch.device("cpu")
    before = random_states(cpu)
    drawn = torch.rand(3)
    set_random_states(before, cpu)
    assert torch.equal(torch.rand(3), drawn)


LOSS = config.Loss().model_dump()


@pytest.mark.parametrize(
    ("kept", "loss", "expected"),
    [
        ({"best": {"auc": 0.9, "loss": 0.2}}, LOSS, {"auc": 0.9, "loss": 0.2}),
        # A loss of another kind is not to be compared with.
        ({"best": {"auc": 0.9, "loss": 0.2}}, LOSS | {"kind": "focal"}, {"auc": 0.9}),
        # Earlier versions.
        ({"best_auc": 0.9}, None, {"auc": 0.9}),
        ({"best_auc": 0.0}, None, {"auc": 0.0}),
        ({"best_auc": -1.0}, None, {}),
    ],
)
def test_what_the_best_weights_were_is_known_again(
    kept: dict[str, Any], loss: dict[str, Any] | None, expected: dict[str, float]
) -> None:
    place = {"step": 7, "epochs_done": 2, "loss_sum": 0.5, **kept}
    captured = {"place": place} | ({"loss": loss} if loss else {})
    state = restore_place(captured, config.Loss())
    assert state == TrainingState(step=7, epochs_done=2, loss_sum=0.5, best=expected)


# ---- numbers that are not finite ----


def poison_weight(trainer: Trainer) -> None:
    next(trainer.model.parameters()).data[0] = torch.inf


def poison_average(trainer: Trainer) -> None:
    assert trainer.ema is not None
    next(trainer.ema.module.parameters()).data[0] = -torch.inf


def poison_moment(trainer: Trainer) -> None:
    state = next(iter(trainer.optimizer.state.values()))
    state["exp_avg_sq"][0] = torch.nan


def poison_statistics(trainer: Trainer) -> None:
    norm = next(one for one in trainer.model.modules() if isinstance(one, torch.nn.BatchNorm1d))
    norm.running_var[0] = torch.nan


@pytest.mark.parametrize(
    "poison", [poison_weight, poison_average, poison_moment, poison_statistics]
)
def test_no_checkpoint_is_made_of_what_is_not_finite(
    training: config.Train, poison: Callable[[Trainer], None]
) -> None:
    optim = training.optim.model_copy(update={"ema_decay": 0.9})
    settings = training.model_copy(update={"optim": optim})
    manifest = read_manifest(settings.data.dataset)
    with (
        accelerator_session(settings) as accelerator,
        make_trainer(settings, accelerator, manifest) as trainer,
    ):
        train_step(trainer, 0, trainer.train_loader(0, trainer.shares(0)))
        assert capture_state(trainer, TrainingState(step=1))
        poison(trainer)
        with pytest.raises(UserError, match="became NaN or infinite; no checkpoint"):
            capture_state(trainer, TrainingState(step=1))


def test_a_buffer_may_be_infinite_by_design(training: config.Train) -> None:
    """As a causal mask is, or a limit that clamps nothing."""
    manifest = read_manifest(training.data.dataset)
    with (
        accelerator_session(training) as accelerator,
        make_trainer(training, accelerator, manifest) as trainer,
    ):
        trainer.model.register_buffer("mask", torch.full((3, 3), -torch.inf))
        trainer.model.register_buffer("limit", torch.tensor(torch.inf), persistent=False)
        assert capture_state(trainer, TrainingState())


def test_the_newest_checkpoint_stays_the_last_finite_one(
    training: config.Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of a step may be finite, and the weights after it not."""
    update_weights = trainer_room.update_weights
    updates = 0

    def update(trainer: Trainer) -> None:
        nonlocal updates
        update_weights(trainer)
        updates += 1
        if updates == 2:
            poison_weight(trainer)

    monkeypatch.setattr(trainer_room, "update_weights", update)
    every_step = training.checkpoint.model_copy(update={"every_steps": 1})
    settings = training.model_copy(update={"checkpoint": every_step})
    with pytest.raises(UserError, match="became NaN or infinite"):
        train_run(settings)
    assert steps(settings.run / "checkpoints") == [1]
