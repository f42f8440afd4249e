"""A process that is stopped holds up no other: they leave in time and name it, and heed SIGTERM.

LENS_HPC_LONG=1 stops each rank of four at ten instants; otherwise a few are drawn. The numbers are
drawn from LENS_HPC_SEED.
"""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import pack_survey, write_survey
from tests.integration.commands import Job

pytestmark = pytest.mark.slow
IS_LONG = "LENS_HPC_LONG" in os.environ
SEED = int(os.environ.get("LENS_HPC_SEED", "1"))
RANKS = 4
INSTANTS = 10
TIMEOUT_SECONDS = 15.0
SECONDS_TO_LEAVE = 30.0
CONFIG = """
data: {{dataset: {folder}/d, workers: 0}}
augment: {{engine: torch}}
model:
  {{backbone: test_vit, weights: none, norm: layer, conv_channels: [16, 8], attention_channels: 4}}
checkpoint: {{every_steps: 1}}
train: {{epochs: 10, global_batch_size: 24}}
"""
EVALUATING = f"""
import functools, sys
import lens_hpc.reporting.evaluation
from lens_hpc import cli, config
config.Loop = functools.partial(config.Loop, timeout_minutes={TIMEOUT_SECONDS / 60})
sys.exit(cli.main())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    pack_survey(write_survey(folder / "s", rows=75, size=16), folder / "d")
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder))
    (folder / "evaluating.py").write_text(EVALUATING)
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> float:
    """Return the seconds that an undisturbed training takes."""
    job = train(folder, "undisturbed", 10.0)
    began = time.monotonic()
    assert job.wait() == [0] * RANKS, job.output()
    return time.monotonic() - began


def train(folder: Path, name: str, timeout_minutes: float) -> Job:
    options = (f"run={folder / name}", f"train.timeout_minutes={timeout_minutes}")
    output = folder / f"{name}-output"
    return Job(output, "train", str(folder / "config.yaml"), *options, processes=RANKS)


def trials(seed: int, few: int) -> list[tuple[int, float]]:
    """Which rank is stopped, and when, as a share of the time that a training takes."""
    rng = random.Random(seed)
    drawn = [(rank, rng.random()) for rank in range(RANKS) for _ in range(INSTANTS)]
    return drawn if IS_LONG else rng.sample(drawn, few)


@contextmanager
def stopped(job: Job, rank: int) -> Iterator[list[int]]:
    """Stop a rank; yields the others."""
    job.ranks[rank].send_signal(signal.SIGSTOP)
    try:
        yield [other for other in range(len(job.ranks)) if other != rank]
    finally:
        job.kill()


def assert_named(job: Job, rank: int, others: list[int], until: float) -> None:
    """All others leave in time, with an error that names the rank; or their work is done."""
    for other in others:
        left = max(until - time.monotonic(), 0.01)
        status = job.ranks[other].wait(left)
        assert status in {0, 1, 2}, job.output(other)
        assert status == 0 or f"rank {rank}" in job.output(other), job.output(other)


@pytest.mark.parametrize(("rank", "instant"), trials(SEED, 2))
def test_a_rank_that_is_stopped_is_named_by_all_others(
    folder: Path, whole: float, rank: int, instant: float
) -> None:
    job = train(folder, f"stopped-{rank}-{instant:.6f}", TIMEOUT_SECONDS / 60)
    time.sleep(instant * whole)
    with stopped(job, rank) as others:
        # Whoever still starts has not begun to wait.
        until = time.monotonic() + TIMEOUT_SECONDS + SECONDS_TO_LEAVE + 2 * whole
        assert_named(job, rank, others, until)


@pytest.mark.parametrize(("rank", "instant"), trials(SEED + 1, 1))
def test_sigterm_ends_those_who_wait_for_a_rank_that_is_stopped(
    folder: Path, whole: float, rank: int, instant: float
) -> None:
    """Long before the time-out."""
    job = train(folder, f"terminated-{rank}-{instant:.6f}", 10.0)
    time.sleep(instant * whole)
    with stopped(job, rank) as others:
        time.sleep(1.0)
        for other in others:
            job.ranks[other].send_signal(signal.SIGTERM)
        until = time.monotonic() + SECONDS_TO_LEAVE
        for other in others:
            job.ranks[other].wait(max(until - time.monotonic(), 0.01))


@pytest.mark.parametrize(
    ("rank", "instant"), [(rank, instant) for rank, instant in trials(SEED + 2, 5) if rank < 2][:20]
)
def test_a_rank_that_is_stopped_while_it_evaluates_is_named(
    folder: Path, whole: float, rank: int, instant: float
) -> None:
    run = folder / f"run-{rank}-{instant:.6f}"
    run.symlink_to(folder / "undisturbed")
    output = folder / f"evaluated-{rank}-{instant:.6f}"
    program = (str(folder / "evaluating.py"),)
    job = Job(output, "evaluate", str(run), "split=val", processes=2, program=program)
    time.sleep(instant * whole)
    with stopped(job, rank) as others:
        until = time.monotonic() + TIMEOUT_SECONDS + SECONDS_TO_LEAVE + 2 * whole
        assert_named(job, rank, others, until)
