"""DeepSpeed ZeRO on two CPU ranks.

It follows DDP, and goes on from its checkpoints, also at another stage or width.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import pack_survey, write_survey
from tests.integration.commands import Job
from tests.integration.test_train import CONFIG, losses, records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zero")
    pack_survey(write_survey(folder / "s", rows=75, size=16), folder / "d")
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder))
    return folder


def start(folder: Path, name: str, stage: int, *overrides: str, processes: int = 2) -> Job:
    command = (
        "train",
        str(folder / "config.yaml"),
        f"run={folder / name}",
        "train.micro_batch_size=6",
        *overrides,
    )
    zero = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage)}
    return Job(
        folder / f"{name}-output", *command, processes=processes, environment=zero if stage else {}
    )


def train(folder: Path, name: str, stage: int, *overrides: str, processes: int = 2) -> Path:
    job = start(folder, name, stage, *overrides, processes=processes)
    assert job.wait() == [0] * processes, job.output()
    return folder / name


@pytest.mark.parametrize(("precision", "tolerance"), [("no", 1e-4), ("bf16", 1e-2)])
def test_zero_follows_ddp(folder: Path, precision: str, tolerance: float) -> None:
    """30 steps of two micro-batches each, gradients clipped."""
    options = (f"train.precision={precision}", "optim.gradient_clip=0.5")
    ddp = losses(train(folder, f"ddp-{precision}", 0, *options))
    for stage in (1, 2, 3) if precision == "no" else (2, 3):
        zero = train(folder, f"zero{stage}-{precision}", stage, *options)
        np.testing.assert_allclose(losses(zero), ddp, atol=tolerance, err_msg=f"ZeRO {stage}")


def test_a_run_goes_on_at_its_stage_at_another_and_on_one_process(folder: Path) -> None:
    whole = losses(train(folder, "whole", 2))
    job = start(folder, "parts", 2, "checkpoint.every_steps=1")
    job.wait_for(lambda: len(records(folder / "parts")) > 3)
    job.kill()
    again = start(folder, "parts", 3)
    again.wait_for(lambda: len(records(folder / "parts")) > 7)
    again.ranks[1].send_signal(10)
    assert again.wait() == [85, 85], again.output()
    np.testing.assert_allclose(losses(train(folder, "parts", 3, processes=1)), whole, atol=1e-5)
