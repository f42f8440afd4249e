"""The journal: what a kill leaves of it, and what is drawn from it."""

from pathlib import Path

import pytest

from lens_hpc.errors import UserError
from lens_hpc.sweeping.space import Space, read_space
from lens_hpc.sweeping.study import DONE, FAILED, OPEN, SweepTrial, study_held
from tests.sweeping.pretended import sweep_settings


@pytest.fixture
def space(tmp_path: Path, packed_once: Path) -> Space:
    return read_space(sweep_settings(tmp_path, packed_once))


def trials_after(folder: Path, space: Space, count: int = 0) -> list[SweepTrial]:
    """Draw and end some trials, the second of which fails, and return all."""
    with study_held(folder, space, seed=3) as study:
        for _ in range(count):
            trial = study.draw()
            failed = trial.number == 1
            study.end(trial.number, None if failed else trial.settings["optim.lr"])
        return study.trials()


def test_a_journal_cut_at_any_byte_goes_on(tmp_path: Path, space: Space) -> None:
    trials = trials_after(tmp_path / "whole", space, 3)
    assert [trial.state for trial in trials] == [DONE, FAILED, DONE]
    whole = (tmp_path / "whole" / "study.journal").read_bytes()
    last_line = whole.rstrip(b"\n").rfind(b"\n") + 1

    cut = tmp_path / "cut"
    cut.mkdir()
    for size in [*range(0, last_line, 211), *range(last_line, len(whole), 37)]:
        (cut / "study.journal").write_bytes(whole[:size])
        known = trials_after(cut, space)
        ended = [trial for trial in known if trial.state != OPEN]
        assert ended == trials[: len(ended)]
        assert [trial.settings for trial in known] == [
            trial.settings for trial in trials[: len(known)]
        ]

        # What is written next is read by all.
        with study_held(cut, space, seed=3) as study:
            for trial in known[len(ended) :]:
                study.end(trial.number, trial.settings["optim.lr"])
            drawn = study.draw()
        assert trials_after(cut, space)[-1] == drawn
        assert drawn.number == len(known)


@pytest.mark.parametrize("garbage", [b"\xff\xfe\n", b"\0\0\n", b"hello\n", b"[1]\n", b"{}\n"])
def test_a_damaged_journal_is_told(tmp_path: Path, space: Space, garbage: bytes) -> None:
    trials_after(tmp_path / "s", space, 2)
    journal = tmp_path / "s" / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], garbage, *lines[3:]]))
    with pytest.raises(UserError, match=r"study\.journal: is damaged .*; restore it, or move it"):
        trials_after(tmp_path / "s", space)


def test_a_trial_is_a_function_of_the_seed_and_those_before(tmp_path: Path, space: Space) -> None:
    at_once = trials_after(tmp_path / "one", space, 14)
    for _ in range(14):
        one_by_one = trials_after(tmp_path / "other", space, 1)
    assert one_by_one == at_once
    assert len({trial.settings["optim.lr"] for trial in at_once}) == 14


def test_optunas_lock_of_a_killed_task_is_not_waited_for(tmp_path: Path, space: Space) -> None:
    trials_after(tmp_path / "s", space, 1)
    (tmp_path / "s" / "study.journal.lock").symlink_to("study.journal")
    assert len(trials_after(tmp_path / "s", space, 1)) == 2
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["study.journal"]


def test_trials_of_the_same_number_tell_no_importance(tmp_path: Path, space: Space) -> None:
    with study_held(tmp_path, space, seed=3) as study:
        for _ in range(10):
            study.end(study.draw().number, 0.5)
        assert study.importance() == {}
        for number in range(10):
            study.end(study.draw().number, number / 10)
        assert study.importance() == {"optim.lr": 1.0}
