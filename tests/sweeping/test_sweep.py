"""A sweep with trainings that take no time: how many there are, what fails, stops and is killed."""

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lens_hpc import config
from lens_hpc import settings as reading
from lens_hpc.errors import UserError
from lens_hpc.logs import logger
from lens_hpc.sweeping import results
from lens_hpc.sweeping.plan import PlannedRun
from lens_hpc.sweeping.sweep import sweep
from lens_hpc.sweeping.sweep_settings import SweepSettings
from lens_hpc.sweeping.trial_process import log_file, run_settings_file
from tests.sweeping.pretended import sweep_settings, train

KILLS = int(os.environ.get("LENS_HPC_KILLS", "4"))


class Recorder:
    """A training that notes what it is asked for, and may end otherwise."""

    def __init__(self, status_of: Callable[[PlannedRun], int] = lambda run: 0) -> None:
        self.names: list[str] = []
        self.status_of = status_of

    def __call__(self, run: PlannedRun, signals: list[int]) -> int:
        self.names.append(run.name)
        status = self.status_of(run)
        if status:
            return status
        return train(run, signals)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no pictures, which take longer than all else (tests/sweeping/test_figures.py has)."""
    monkeypatch.setattr(results, "draw_sweep", lambda drawn: b"a picture")


@pytest.fixture
def asked(tmp_path: Path, packed_once: Path) -> SweepSettings:
    return sweep_settings(tmp_path, packed_once)


def say(run: PlannedRun, *lines: str) -> None:
    log_file(run).write_text("".join(f"{line}\n" for line in lines))


def test_as_many_trials_as_asked_and_the_best_of_them(asked: SweepSettings) -> None:
    recorder = Recorder()
    found = sweep(asked, recorder)
    assert recorder.names == [f"{number:04d}" for number in range(6)]
    assert found.table["val_auc"].max() == found.table["trial_value"].max()
    assert found.table["status"].tolist() == ["done"] * 6

    best = found.table.sort_values("val_auc").iloc[-1]
    assert found.best == {"optim.lr": best["optim.lr"]}
    settings = reading.load(config.Train, asked.output / "best.yaml")
    assert settings.optim.lr == best["optim.lr"]
    assert settings.run == asked.output / "best"
    pd.testing.assert_frame_equal(pd.read_parquet(asked.output / "trials.parquet"), found.table)
    assert (asked.output / "sweep.png").read_bytes() == b"a picture"
    assert f"lens-hpc evaluate {asked.output}/trials/{best['run']}" in found.text


def test_the_same_line_does_nothing_again_and_more_trials_go_on(asked: SweepSettings) -> None:
    sweep(asked, train)
    again = Recorder()
    sweep(asked, again)
    assert again.names == []
    sweep(asked.model_copy(update={"trials": 8}), again)
    assert again.names == ["0006", "0007"]


def test_other_ranges_or_settings_are_another_sweep(
    asked: SweepSettings, tmp_path: Path, packed_once: Path
) -> None:
    sweep(asked, train)
    others = [
        {"ranges": {"optim.lr": {"log": [1e-5, 1e-1]}}},
        {"fixed": {"train.epochs": 3}},
        {"seeds": 2},
    ]
    for other in others:
        with pytest.raises(UserError, match="begun with other settings; name another output"):
            sweep(sweep_settings(tmp_path, packed_once, **other), train)


def test_a_folder_of_something_else_is_left_alone(asked: SweepSettings) -> None:
    asked.output.mkdir()
    (asked.output / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds something else than a sweep"):
        sweep(asked, train)
    assert [path.name for path in asked.output.iterdir()] == ["thesis.tex"]


def test_a_dataset_that_is_not_there_is_told_before_anything_is_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match="is not a packed dataset"):
        sweep(sweep_settings(tmp_path, tmp_path / "none"), train)
    assert not (tmp_path / "sweep").exists()


# ---- choices, seeds and folds ----


def test_each_combination_of_choices_is_tried_once(tmp_path: Path, packed_once: Path) -> None:
    ranges = {
        "optim.lr": {"choices": [1e-3, 1e-2]},
        "model.conv_channels": {"choices": [[8, 8], [16, 8], [16, 16]]},
    }
    found = sweep(sweep_settings(tmp_path, packed_once, ranges=ranges, trials=50), train)
    tried = found.table[["optim.lr", "model.conv_channels"]].value_counts()
    assert len(tried) == 6
    assert set(tried) == {1}


def test_fewer_trials_than_combinations_vary_each_setting(
    tmp_path: Path, packed_once: Path
) -> None:
    ranges = {
        "optim.lr": {"choices": [1e-4, 1e-3, 1e-2]},
        "optim.weight_decay": {"choices": [0, 1e-4, 1e-2]},
        "loss.label_smoothing": {"choices": [0, 0.05, 0.1]},
    }
    asked = sweep_settings(tmp_path, packed_once, ranges=ranges, trials=8)
    found = sweep(asked, train).table
    assert len(set(found["optim.lr"])) > 1
    assert len(set(found["optim.weight_decay"])) > 1
    assert not found[list(ranges)].duplicated().any()


def test_more_trials_later_try_the_combinations_that_are_left(
    tmp_path: Path, packed_once: Path
) -> None:
    ranges = {"optim.lr": {"choices": [1e-4, 1e-3, 1e-2]}, "train.epochs": {"choices": [5, 6, 7]}}
    for trials in (4, 50):
        found = sweep(sweep_settings(tmp_path, packed_once, ranges=ranges, trials=trials), train)
        assert len(found.table) == min(trials, 9)
        assert not found.table[list(ranges)].duplicated().any()


def test_seeds_and_folds_without_ranges_are_one_trial(tmp_path: Path, packed_once: Path) -> None:
    recorder = Recorder()
    fixed = {"train.seed": 7}
    asked = sweep_settings(tmp_path, packed_once, ranges={}, seeds=2, folds=2, fixed=fixed)
    found = sweep(asked, recorder)
    assert recorder.names == [f"0000-seed-{seed}-fold-{fold}" for seed in (0, 1) for fold in (0, 1)]
    assert found.table["train.seed"].tolist() == [7, 7, 8, 8]
    assert found.table["data.dataset"].nunique() == 2
    assert found.table["trial_value"].tolist() == pytest.approx([found.table["val_auc"].mean()] * 4)
    assert "on average of 4 runs, standard deviation" in found.text
    assert f"lens-hpc train {asked.output}/best.yaml" in found.text
    assert reading.load(config.Train, asked.output / "best.yaml").data.dataset == packed_once


def test_the_loss_is_made_smaller(tmp_path: Path, packed_once: Path) -> None:
    found = sweep(sweep_settings(tmp_path, packed_once, fixed={"train.best": "loss"}), train)
    best = found.table.sort_values("val_loss").iloc[0]
    assert found.best == {"optim.lr": best["optim.lr"]}
    assert f"validation loss {best['val_loss']:.4f}" in found.text


# ---- failures and signals ----


def test_a_trial_that_fails_is_recorded_with_its_reason(asked: SweepSettings) -> None:
    def status_of(run: PlannedRun) -> int:
        if run.trial == 2:
            say(run, "lens-hpc: train: the loss became nan in step 3 at learning rate 1e+00; ...")
            return 2
        if run.trial == 3:
            say(run, "Traceback (most recent call last):", "RuntimeError: no such kernel")
            return 1
        return 0

    found = sweep(asked, Recorder(status_of))
    assert Counter(found.table["status"]) == {"done": 4, "failed": 2}
    reasons = found.table.set_index("run")["reason"]
    assert reasons["0002"].startswith("train: the loss became nan in step 3")
    assert reasons["0003"] == "RuntimeError: no such kernel"
    assert "4 of 6 trials done, 2 failed" in found.text


def test_three_failures_in_a_row_end_a_task(asked: SweepSettings) -> None:
    def status_of(run: PlannedRun) -> int:
        say(run, "RuntimeError: the GPU is broken")
        return 1

    recorder = Recorder(status_of)
    with pytest.raises(UserError, match="3 trainings in a row have failed, the last: RuntimeError"):
        sweep(asked, recorder)
    assert len(recorder.names) == 3


def test_failures_that_are_not_in_a_row_end_nothing(asked: SweepSettings) -> None:
    found = sweep(asked, Recorder(lambda run: 0 if run.trial == 2 else int(run.trial < 5)))
    assert found.table["status"].tolist() == [*["failed"] * 2, "done", *["failed"] * 2, "done"]


def test_a_mistake_of_the_user_ends_the_sweep_and_loses_no_trial(asked: SweepSettings) -> None:
    def status_of(run: PlannedRun) -> int:
        say(run, "starts", "lens-hpc: train: weights: is no file;", "  name another")
        return 2

    with pytest.raises(UserError, match=r"0000: train: weights: is no file;\n  name another"):
        sweep(asked, Recorder(status_of))
    recorder = Recorder()
    sweep(asked, recorder)
    assert recorder.names == [f"{number:04d}" for number in range(6)]


@pytest.mark.parametrize("status", [85, 0, -15, 1])
def test_a_signal_stops_the_sweep_and_the_same_line_goes_on(
    asked: SweepSettings, status: int
) -> None:
    def stopped_in_the_third(run: PlannedRun, signals: list[int]) -> int:
        if run.trial < 2:
            return train(run, signals)
        signal.raise_signal(signal.SIGTERM)
        return status or train(run, signals)

    before = signal.getsignal(signal.SIGTERM)
    found = sweep(asked, stopped_in_the_third)
    assert found.stopped
    assert signal.getsignal(signal.SIGTERM) == before
    recorder = Recorder()
    found = sweep(asked, recorder)
    assert not found.stopped
    assert recorder.names == [f"{number:04d}" for number in range(2 if status else 3, 6)]
    assert found.table["status"].tolist() == ["done"] * 6


def test_a_training_near_its_time_limit_stops_the_sweep(asked: SweepSettings) -> None:
    found = sweep(asked, Recorder(lambda run: 85))
    assert found.stopped
    assert "0 of 6 trials done" in found.text


# ---- what was lost, or has moved ----


def test_a_lost_journal_is_drawn_again_and_finished_runs_count(asked: SweepSettings) -> None:
    before = sweep(asked, train).table
    (asked.output / "study.journal").unlink()
    again = Recorder()
    found = sweep(asked, again)
    assert again.names == []
    pd.testing.assert_frame_equal(found.table, before)


def test_a_run_of_other_settings_than_the_journal_has_is_not_counted(asked: SweepSettings) -> None:
    sweep(asked, train)
    (asked.output / "study.journal").unlink()
    settings = asked.output / "trials" / "0002.yaml"
    run = reading.load(config.Train, settings, ["optim.lr=0.5"])
    settings.write_text(reading.dump(run))
    with pytest.raises(UserError, match=r"0002\.yaml: was begun with other settings") as error:
        sweep(asked, train)
    assert "optim.lr: 0.5 there" in str(error.value)


def test_a_sweep_that_was_moved_goes_on_in_its_new_folder(asked: SweepSettings) -> None:
    sweep(asked, Recorder(lambda run: 85 if run.trial == 2 else 0))
    moved = asked.model_copy(update={"output": asked.output.with_name("moved")})
    asked.output.rename(moved.output)
    folders = []

    def train_as_the_file_says(run: PlannedRun, signals: list[int]) -> int:
        folders.append(reading.load(config.Train, run_settings_file(run)).run)
        return train(run, signals)

    sweep(moved, train_as_the_file_says)
    assert folders == [moved.output / "trials" / f"{number:04d}" for number in range(2, 6)]


# ---- several tasks, and kills ----


def _task(asked: SweepSettings, log: Path, seconds: float) -> None:
    """Take part in a sweep, and note each training at its start and end."""

    def slow(run: PlannedRun, signals: list[int]) -> int:
        with log.open("a") as file:
            file.write(f"{run.name}\n")
        time.sleep(seconds)
        return train(run, signals)

    logger.setLevel("ERROR")
    sweep(asked, slow)


def start(asked: SweepSettings, log: Path, seconds: float) -> Any:
    task = multiprocessing.get_context("fork").Process(target=_task, args=(asked, log, seconds))
    task.start()
    return task


def test_tasks_at_once_share_the_trials(asked: SweepSettings, tmp_path: Path) -> None:
    logs = [tmp_path / str(number) for number in range(3)]
    tasks = [start(asked, log, 0.1) for log in logs]
    for task in tasks:
        task.join()
        assert task.exitcode == 0
    trained = [name for log in logs if log.exists() for name in log.read_text().split()]
    assert sorted(trained) == [f"{number:04d}" for number in range(6)]
    table = pd.read_parquet(asked.output / "trials.parquet")
    assert table["status"].tolist() == ["done"] * 6


def test_kills_lose_no_trial_and_add_none(asked: SweepSettings, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    alone = asked.model_copy(update={"output": tmp_path / "alone"})
    began = time.monotonic()
    expected = sweep(alone, train).table
    seconds = time.monotonic() - began

    for _ in range(KILLS):
        task = start(asked, tmp_path / "log", 0.02)
        task.join(rng.uniform(0, 0.7) * seconds)
        task.kill()
        task.join()
    found = sweep(asked, train)
    same = ["trial", "run", "status", "optim.lr", "trial_value", "val_auc"]
    pd.testing.assert_frame_equal(found.table[same], expected[same])
    left = [path.name for path in asked.output.rglob("*") if ".partial" in path.name]
    assert left == []
