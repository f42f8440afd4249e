"""Two commands that write the same at once: one does the work, the other says so."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lens_hpc import verbs
from tests.integration.commands import Job
from tests.integration.forked import Forks
from tests.integration.test_failing_disk import VERBS, write_inputs

pytestmark = pytest.mark.slow
ROUNDS = 20 if "LENS_HPC_LONG" in os.environ else 2
WRITE_NO_OUTPUT = {"audit", "bench", "check", "info", "verify", "weights"}
"""Their only files, audit.json, a figure and timm's weights, are replaced by one rename."""


def test_every_verb_that_writes_is_tried() -> None:
    assert set(VERBS) | WRITE_NO_OUTPUT == set(verbs.names())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    write_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def forks(folder: Path) -> Iterator[tuple[Forks, Forks]]:
    with Forks({}) as one, Forks({}) as other:
        for each in (one, other):
            assert each.run(folder / "output-0", "--version") == 0  # now it is ready
        yield one, other


@pytest.mark.parametrize("verb", VERBS)
def test_one_does_the_work_and_the_other_says_so(
    folder: Path, forks: tuple[Forks, Forks], verb: str
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    line, written, result = VERBS[verb]
    words = line.format(folder=folder).split()
    if verb == "evaluate":
        train = VERBS["train"][0].format(folder=folder).split()
        assert forks[0].run(folder / "output-0", *train, f"run={folder}/evaluated") == 0

    began = time.monotonic()
    assert forks[0].run(folder / "output-0", *words) == 0
    seconds = time.monotonic() - began
    expected = result(folder)

    for _ in range(ROUNDS):
        if written:
            shutil.rmtree(folder / written)
        statuses, said = run_both(folder, forks, words, rng.uniform(0, seconds / 3))
        assert sorted(statuses) == [0, 2], said
        assert "is being written by process" in said[statuses.index(2)]
        assert result(folder) == expected
        left = [path.name for path in folder.rglob("*") if ".lock" in path.name]
        assert not left


def run_both(
    folder: Path, forks: tuple[Forks, Forks], words: list[str], seconds_between: float
) -> tuple[list[int], list[str]]:
    """Return exit status and output of the same command, run twice at nearly the same time."""
    outputs = [folder / "output-0", folder / "output-1"]

    def run_second() -> int:
        time.sleep(seconds_between)
        return forks[1].run(outputs[1], *words)

    calls: list[Callable[[], int]] = [lambda: forks[0].run(outputs[0], *words), run_second]
    with ThreadPoolExecutor(2) as pool:
        statuses = list(pool.map(lambda call: call(), calls))
    return statuses, [output.read_text() for output in outputs]


def test_a_requeued_training_waits_for_its_dying_predecessor(folder: Path) -> None:
    """Slurm may start a job again while the old processes still save."""
    run = folder / "requeued"
    words = ("train", str(folder / "config.yaml"), f"run={run}", "train.epochs=400")
    job = {"ACCELERATE_USE_CPU": "true", "SLURM_JOB_ID": "17"}
    old = Job(folder / "old", *words, environment=job)
    old.wait_for(old.is_training)

    new = Job(folder / "new", *words, environment=job)
    new.wait_for(lambda: "waiting for process" in new.output())
    assert f"process {old.ranks[0].pid} of job 17" in new.output()

    old.ranks[0].send_signal(signal.SIGTERM)
    assert old.wait() == [85]
    new.wait_for(lambda: "going on from step" in new.output())
    new.ranks[0].send_signal(signal.SIGTERM)
    assert new.wait() == [85]
