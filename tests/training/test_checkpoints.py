import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lens_hpc.errors import UserError
from lens_hpc.training.checkpoints import Checkpoints, random_states, set_random_states


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
    (checkpoints.folder / "step-00000015.partial").mkdir()
    assert checkpoints.newest() == checkpoints.folder / "step-00000012"
    assert steps(checkpoints.folder) == [9, 12]


def test_a_disk_that_refuses_is_told_and_the_old_ones_stay(checkpoints: Checkpoints) -> None:
    (checkpoints.folder / "step-00000015.partial").write_text("in the way of the folder")
    checkpoints.write(15, state(15))
    with pytest.raises(UserError, match=r"step-00000015\.partial: cannot be made"):
        checkpoints.wait()
    assert {9, 12} <= {
        int(path.name[5:13]) for path in checkpoints.folder.iterdir() if path.is_dir()
    }


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
