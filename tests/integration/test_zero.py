"""DeepSpeed ZeRO on two CPU ranks.

It follows DDP, and goes on from its checkpoints, also at another stage or width. LENS_HPC_LONG=1
tries every family of timm instead of some.
"""

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from safetensors.numpy import load_file

from tests.conftest import pack_survey, write_survey
from tests.integration.commands import PROGRAM, TOO_LONG_SECONDS, Job, forked
from tests.integration.test_train import CONFIG, records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"
    ),
]

SHIPPED = Path(__file__).parents[2] / "configs" / "accelerate"
IN_A_ROW = Path(__file__).with_name("train_in_a_row.py")
STAGES = (1, 2, 3)
IS_LONG = "LENS_HPC_LONG" in os.environ
FAMILIES_AT_ONCE = 3
LEARNING_RATE = 1e-3  # CONFIG's

# A ConvNeXt leaves a part of timm's head unused. Two micro-batches a step.
CONVNEXT = {
    "model.backbone": "test_convnext",
    "train.channels_last": True,
    "train.micro_batch_size": 6,
    "optim.gradient_clip": 0.5,
    "train.epochs": 10,
    "train.best": "loss",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zero")
    pack_survey(write_survey(folder / "s", rows=75, size=32), folder / "d")
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder))
    return folder


@pytest.fixture(autouse=True)
def nothing_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """DeepSpeed would compile an operator that training never uses, for minutes, and would wait
    for the lock of a killed build."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    yield
    assert not (tmp_path / "extensions").exists()


@pytest.fixture(scope="module")
def ddp(folder: Path) -> Path:
    train_in_a_row(folder, [(0, "ddp", CONVNEXT)])
    return folder / "ddp"


def train_in_a_row(folder: Path, trainings: list[tuple[int, str, dict[str, Any]]]) -> None:
    """Train (stage, run, settings) one after another in one pair of processes."""
    listed = [(stage, settings | {"run": str(folder / run)}) for stage, run, settings in trainings]
    file = folder / "trainings.json"
    file.write_text(json.dumps(listed))
    command = (str(folder / "config.yaml"), str(file))
    result = forked(*command, processes=2, program=(str(IN_A_ROW),))
    assert result.returncode == 0, result.stderr[-3000:]


def assert_follows(run: Path, other: Path, tolerance: float = 1e-4) -> None:
    """Both have the same losses, and weights and statistics that differ by rounding alone."""
    ours, theirs = ([record["loss"] for record in records(each)] for each in (run, other))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance, err_msg=run.name)

    # AdamW moves a weight whose gradient is but a rounding error by the learning rate a step.
    drift = 2 * LEARNING_RATE * records(run)[-1]["step"]
    weights, expected = (load_file(each / "final" / "model.safetensors") for each in (run, other))
    assert weights.keys() == expected.keys()
    for name, value in weights.items():
        share, least = (0.1, 0.1) if "running" in name else (0, drift)
        np.testing.assert_allclose(value, expected[name], share, least, err_msg=name)


@pytest.mark.parametrize("stage", STAGES)
def test_a_shipped_file_trains_a_convnext_as_ddp_does(folder: Path, ddp: Path, stage: int) -> None:
    """As it is, but for the number of processes; images have their bands last."""
    run = folder / f"shipped-{stage}"
    launcher = (
        *("-m", "accelerate.commands.launch", "--num_processes", "2", "--main_process_port", "0"),
        *("--config_file", str(SHIPPED / f"deepspeed_zero{stage}.yaml")),
    )
    overrides = [f"{key}={value}" for key, value in CONVNEXT.items()]
    verb = ("train", str(folder / "config.yaml"), f"run={run}", *overrides)
    result = subprocess.run(
        [sys.executable, *launcher, *PROGRAM, *verb],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=TOO_LONG_SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert_follows(run, ddp)


def test_a_run_goes_on_at_other_stages_and_on_one_process(folder: Path, ddp: Path) -> None:
    """It is killed at stage 1, stopped by a signal at stage 3, and ends at stage 2."""
    run = folder / "parts"

    killed = start(run, stage=1)
    killed.wait_for(lambda: len(records(run)) > 1)
    killed.kill()

    stopped = start(run, stage=3)
    stopped.wait_for(lambda: len(records(run)) > 3)
    stopped.ranks[1].send_signal(signal.SIGUSR1)
    assert stopped.wait() == [85, 85], stopped.output()

    last = start(run, "train.micro_batch_size=12", stage=2, processes=1)
    assert last.wait() == [0], last.output()
    assert_follows(run, ddp)


def start(run: Path, *overrides: str, stage: int, processes: int = 2) -> Job:
    folder = run.parent
    settings = [f"{key}={value}" for key, value in CONVNEXT.items()]
    return Job(
        folder / f"{run.name}-output-{stage}",
        *("train", str(folder / "config.yaml"), f"run={run}", *settings),
        *("checkpoint.every_steps=1", *overrides),
        processes=processes,
        environment={
            "ACCELERATE_USE_DEEPSPEED": "true",
            "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage),
        },
    )


def test_bf16_follows_ddp(folder: Path) -> None:
    """And gradients are added up in float32, which train_in_a_row.py looks after."""
    settings = {
        "train.precision": "bf16",
        "train.micro_batch_size": 6,
        "optim.gradient_clip": 0.5,
        "train.epochs": 5,
    }
    train_in_a_row(folder, [(stage, f"bf16-{stage}", settings) for stage in (0, *STAGES)])
    for stage in STAGES:
        assert_follows(folder / f"bf16-{stage}", folder / "bf16-0")


def test_families_of_timm_begin_at_one_stage_and_end_at_another(folder: Path) -> None:
    """Each is stopped twice, and has the losses and weights of an undisturbed run under DDP."""
    random_numbers = random.Random()
    families = timm.list_models("test_*")
    random_numbers.shuffle(families)

    tried = len(families) if IS_LONG else FAMILIES_AT_ONCE
    for first in range(0, tried, FAMILIES_AT_ONCE):
        try_families(folder, families[first : first + FAMILIES_AT_ONCE], random_numbers)


def try_families(folder: Path, families: list[str], random_numbers: random.Random) -> None:
    with_ddp, with_zero = [], []
    channels_last = {family: random_numbers.random() < 0.5 for family in families}
    for family in families:
        settings = {
            "model.backbone": family,
            "train.channels_last": channels_last[family],
            "train.epochs": 3,
        }
        stages = random_numbers.sample(STAGES, len(STAGES))
        print(family, stages, settings)  # to repeat what failed

        with_ddp.append((0, f"{family}-ddp", settings))
        for stage in stages:
            minutes = None if stage == stages[-1] else 1e-6
            with_zero.append((stage, f"{family}-zero", settings | {"train.max_minutes": minutes}))

    # ZeRO 3 leaves its own linear layers in the process, whose sums are in another order.
    train_in_a_row(folder, with_ddp + with_zero)
    for family in families:
        run = folder / f"{family}-zero"
        # DDP's own losses differ so much with and without it.
        tolerance = 1e-3 if channels_last[family] else 1e-4
        assert_follows(run, folder / f"{family}-ddp", tolerance)
        log = (run / "logs" / "rank-0.log").read_text()
        assert log.count("going on from step") == 2, log
