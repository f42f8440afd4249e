"""Training by the real command, on one CPU process or two: the same result, and no step lost."""

import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import pack_survey, write_survey
from tests.integration.commands import Job, forked, lens_hpc

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("LENS_HPC_KILLS", "2"))
CONFIG = """
run: {folder}/run
data: {{dataset: {folder}/d, workers: 0}}
augment: {{engine: torch}}
model:
  {{backbone: test_vit, weights: none, norm: layer, conv_channels: [16, 8], attention_channels: 4}}
optim: {{lr: 1.0e-3}}
train: {{epochs: 15, global_batch_size: 24}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    survey = write_survey(folder / "s", rows=75, size=16)
    pack_survey(survey, folder / "d")
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder))
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Path:
    return train(folder, "undisturbed")


def start(folder: Path, name: str, *overrides: str, processes: int = 1) -> Job:
    arguments = ("train", str(folder / "config.yaml"), f"run={folder / name}", *overrides)
    return Job(folder / f"{name}-output", *arguments, processes=processes)


def train(folder: Path, name: str, *overrides: str, processes: int = 1) -> Path:
    job = start(folder, name, *overrides, processes=processes)
    assert job.wait() == [0] * processes, job.output()
    return folder / name


def records(run: Path) -> list[dict[str, float]]:
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def losses(run: Path) -> list[float]:
    assert [record["epoch"] for record in records(run)] == list(range(1, 16))
    return [record["loss"] for record in records(run)]


def validated(run: Path) -> list[tuple[float, float]]:
    return [(record["val_loss"], record["val_auc"]) for record in records(run)]


def assert_same_weights(
    run: Path, other: Path, tolerance: float = 0.0, folder: str = "final"
) -> None:
    ours, theirs = (load_file(each / folder / "model.safetensors") for each in (run, other))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=0, atol=tolerance, err_msg=name)


def test_processes_and_accumulation_change_nothing(folder: Path, undisturbed: Path) -> None:
    """30 steps, a model without BatchNorm."""
    alone = losses(undisturbed)
    assert alone[-1] < alone[0]
    two = train(folder, "two", processes=2)
    np.testing.assert_allclose(losses(two), alone, atol=1e-5)
    np.testing.assert_allclose(validated(two), validated(undisturbed), atol=1e-5)
    np.testing.assert_allclose(
        losses(train(folder, "parts", "train.micro_batch_size=12")), alone, atol=1e-5
    )
    both = train(folder, "both", "train.micro_batch_size=3", processes=2)
    np.testing.assert_allclose(losses(both), alone, atol=1e-5)


def test_kills_at_any_instant_change_not_a_bit(folder: Path) -> None:
    """A checkpoint a step, so that many kills come while one is written.

    The weights that are the best by their loss are the same, too. LENS_HPC_KILLS=20 makes more
    kills.
    """
    processes = 2
    options = (
        "checkpoint.every_steps=1",
        "optim.ema_decay=0.9",
        "model.backbone=test_resnet",
        "model.norm=batch",
        "train.best=loss",
    )
    undisturbed = train(folder, "whole", *options, processes=processes)
    rng, name, kills = random.Random(1), "killed", 0
    while kills < KILLS:
        job = start(folder, name, *options, processes=processes)
        job.wait_for(job.is_training)
        time.sleep(rng.uniform(0, 4))
        kills += any(rank.poll() is None for rank in job.ranks)
        job.kill()
        if (folder / name / "final").is_dir() and kills < KILLS:
            shutil.rmtree(folder / name)
    run = train(folder, name, *options, processes=processes)
    assert_same_weights(run, undisturbed)
    assert_same_weights(run, undisturbed, folder="best")
    assert losses(run) == losses(undisturbed)
    assert validated(run) == validated(undisturbed)
    assert len(list((run / "checkpoints").iterdir())) <= 2


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_trains_the_same(folder: Path) -> None:
    options = (
        "model.inputs=features",
        "train.epochs=3",
    )  # to compile the network takes more than a minute
    plain = train(folder, "plain", *options)
    compiled = train(folder, "compiled", *options, "train.compile=true")
    assert [line["loss"] for line in records(compiled)] == pytest.approx(
        [line["loss"] for line in records(plain)], 1e-4
    )
    assert_same_weights(compiled, plain, 1e-2)  # and with the same names


def test_images_with_their_bands_last_train_the_same(folder: Path) -> None:
    options = ("model.backbone=test_resnet", "train.epochs=1")
    plain, last = (
        train(folder, "first", *options),
        train(folder, "last", *options, "train.channels_last=true"),
    )
    assert records(last)[0]["loss"] == pytest.approx(records(plain)[0]["loss"], 1e-3)


def test_begun_on_two_processes_and_ended_on_one(folder: Path, undisturbed: Path) -> None:
    job = start(folder, "fewer", "checkpoint.every_steps=1", processes=2)
    job.wait_for(lambda: len(records(folder / "fewer")) > 3)
    job.ranks[1].send_signal(signal.SIGUSR2)
    assert job.wait() == [85, 85]
    np.testing.assert_allclose(losses(train(folder, "fewer")), losses(undisturbed), atol=1e-5)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_one_rank_stops_all_at_the_same_step(
    folder: Path, undisturbed: Path, number: int
) -> None:
    name = f"stopped-{number}"
    job = start(folder, name, processes=2)
    job.wait_for(lambda: len(records(folder / name)) > 1)
    job.ranks[number % 2].send_signal(number)
    assert job.wait() == [85, 85]
    (saved,) = (folder / name / "checkpoints").iterdir()
    step = int(saved.name[5:])
    assert f"saved at step {step}; the same line goes on" in job.output(0)
    again = start(folder, name, processes=2)
    assert again.wait() == [0, 0]
    assert f"going on from step {step}, in epoch" in again.output(0)
    np.testing.assert_allclose(losses(folder / name), losses(undisturbed), atol=1e-5)


def test_time_runs_out_in_time(folder: Path) -> None:
    job = start(folder, "short", "train.max_minutes=0.01", processes=2)
    assert job.wait() == [85, 85]
    assert "time limit" in job.output(0)


def test_a_damaged_checkpoint_is_passed_over(folder: Path, undisturbed: Path) -> None:
    name, options = "damaged", ("checkpoint.every_steps=4",)
    job = start(folder, name, *options)
    job.wait_for(lambda: len(list((folder / name / "checkpoints").glob("step-????????"))) == 2)
    job.kill()
    newest = max((folder / name / "checkpoints").glob("step-????????"))
    state = newest / "state.pt"
    state.write_bytes(state.read_bytes()[:-9] + b"\x00" * 9)
    again = start(folder, name, *options)
    assert again.wait() == [0]
    assert f"{newest}: state.pt is damaged; the one before is taken" in again.output()
    assert losses(folder / name) == losses(undisturbed)
    assert_same_weights(folder / name, undisturbed)


def test_a_run_that_was_begun_differently_is_refused(folder: Path, undisturbed: Path) -> None:
    command = (
        "train",
        str(folder / "config.yaml"),
        f"run={undisturbed}",
        "optim.lr=0.5",
        "augment.hflip=0.1",
    )
    refused = forked(*command)
    assert refused.returncode == 2
    for said in (
        "optim.lr: 0.001 there, 0.5 here",
        "augment.hflip: 0.3 there, 0.1 here",
        f"run = {undisturbed}: has finished with other settings; to train on from its weights, "
        f"begin another run: model.weights={undisturbed} run=NEW",
    ):
        assert said in refused.stderr
    allowed = forked(*command, "resume.allow=[optim.lr,augment.hflip]")
    assert (allowed.returncode, allowed.stderr) == (2, refused.stderr)


def test_a_loss_that_is_no_number_is_told_with_its_samples(folder: Path) -> None:
    job = start(folder, "nan", "optim.lr=1e20", "optim.weight_decay=0", processes=2)
    assert job.wait() == [2, 2]
    assert "lower optim.lr" in job.output(0)
    told = json.loads((folder / "nan" / "nonfinite.json").read_text())
    assert f"in step {told['step']} at learning rate" in job.output(0)
    assert len(set(told["ids"])) == 24
    assert not list((folder / "nan" / "checkpoints").glob("*"))


def test_a_rank_that_fails_takes_the_job_down_with_its_traceback(folder: Path) -> None:
    arguments = (
        "train",
        str(folder / "config.yaml"),
        f"run={folder / 'failing'}",
        "train.epochs=100000",
    )
    script = folder / "failing.py"
    script.write_text(FAILING)
    began = time.monotonic()
    ended = lens_hpc(*arguments, processes=2, program=(str(script),))
    assert time.monotonic() - began < 300  # and not the time-out of ten minutes
    assert ended.returncode != 0
    assert "ZeroDivisionError: on purpose, on rank 1" in ended.stderr


FAILING = """
import os, sys
from lens_hpc import cli
from lens_hpc.training import loop, trainer
step = trainer.train_step
def failing(made, number, batches):
    if number == 20 and os.environ["RANK"] == "1":
        raise ZeroDivisionError("on purpose, on rank 1")
    return step(made, number, batches)
loop.train_step = failing
sys.exit(cli.main())
"""


def test_a_rank_that_stops_answering_is_named(folder: Path) -> None:
    job = start(folder, "silent", "train.timeout_minutes=0.1", "train.epochs=100000", processes=2)
    job.wait_for(lambda: len(records(folder / "silent")) > 1)
    job.ranks[1].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert job.ranks[0].wait(60) == 1
    assert time.monotonic() - began < 0.1 * 60 + 30
    job.kill()
    # gloo has other words where it was the gradients that were waited for.
    assert re.search("timed out|timeout", job.output(0), re.IGNORECASE)
    assert re.search(r"rank 1 on \S+ was last seen \d+ s ago, at .*; rank 0 on", job.output(0))


def test_a_shard_that_is_chopped_while_training_ends_the_job_with_its_name(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder / "d", tmp_path / "d")
    file = tmp_path / "d" / "train" / "shard-00000.h5"
    job = start(
        folder, "chopped", f"data.dataset={tmp_path / 'd'}", "train.epochs=100000", processes=2
    )
    job.wait_for(lambda: len(records(folder / "chopped")) > 1)
    os.truncate(file, 4096)
    statuses = job.wait()
    assert 2 in statuses
    assert 0 not in statuses
    assert f"shrank while it was read: {file}" in job.output(0) + job.output(1)


@pytest.mark.parametrize("damage", ["chop", "delete", "swap", "flip"])
def test_a_damaged_dataset_is_refused_by_every_rank(
    folder: Path, tmp_path: Path, damage: str
) -> None:
    shutil.copytree(folder / "d", tmp_path / "d")
    file = tmp_path / "d" / "train" / "shard-00000.h5"
    data = bytearray(file.read_bytes())
    if damage == "chop":
        file.write_bytes(data[:-10])
    elif damage == "flip":
        data[-8000] ^= 1
        file.write_bytes(data)
    else:
        file.unlink()
    if damage == "swap":
        shutil.copy(tmp_path / "d" / "val" / "shard-00000.h5", file)
    verify = "full" if damage == "flip" else "header"
    job = start(
        folder,
        f"bad-{damage}",
        f"data.dataset={tmp_path / 'd'}",
        f"data.verify={verify}",
        processes=2,
    )
    assert job.wait() == [2, 2]
    for rank in (0, 1):
        assert str(file) in job.output(rank)
    assert not (folder / f"bad-{damage}").exists()


def test_staged_shards_give_the_same_training(
    folder: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run = train(folder, "staged", f"data.stage_to={tmp_path / 'near'}")
    assert len(list((tmp_path / "near").rglob("*.h5"))) == 2
    assert losses(run) == losses(undisturbed)


def test_a_killed_loader_process_ends_the_job(folder: Path) -> None:
    options = ("augment.engine=albumentations", "data.workers=1", "train.epochs=100000")
    job = start(folder, "orphan", *options, processes=2)
    job.wait_for(lambda: len(records(folder / "orphan")) > 1)
    children = (
        Path(f"/proc/{job.ranks[0].pid}/task/{job.ranks[0].pid}/children").read_text().split()
    )
    workers = [
        int(pid) for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
    ]
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    # It ends by itself: left alone, the other rank would wait for the time-out of ten minutes.
    assert job.wait(300) == [1, 1]
    assert "a loader process was killed while loading rows" in job.output()
    assert "shard-00000.h5" in job.output()
