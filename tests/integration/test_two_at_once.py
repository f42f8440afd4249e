"""Two commands that write the same at once: one does the work, the other says so."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from lens_hpc import verbs
from tests.integration.commands import Job
from tests.integration.forked import Forked, forks
from tests.integration.test_failing_disk import ON_CPU, VERBS, write_inputs

pytestmark = pytest.mark.slow
ROUNDS = 20 if "LENS_HPC_LONG" in os.environ else 2
WRITE_NO_OUTPUT = {"audit", "bench", "check", "info", "verify", "weights"}
"""Their only files, audit.json, a figure and timm's weights, are replaced by one rename."""

WORK_TOGETHER = {"sweep"}
"""Two of them share the work (tests/integration/test_sweep.py)."""


def test_every_verb_that_writes_is_tried() -> None:
    assert set(VERBS) | WRITE_NO_OUTPUT == set(verbs.names())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    write_inputs(folder)
    return folder


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in WORK_TOGETHER])
def test_one_does_the_work_and_the_other_says_so(folder: Path, verb: str) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    line, written, result = VERBS[verb]
    words = line.format(folder=folder).split()
    if verb == "evaluate":
        train = VERBS["train"][0].format(folder=folder).split()
        assert start(folder, [*train, f"run={folder}/evaluated"]).wait() == 0

    # The first time takes longer, as nothing is in the caches yet.
    for _ in range(2):
        remove(folder, written)
        began = time.monotonic()
        assert start(folder, words).wait() == 0
        seconds = time.monotonic() - began
    expected = result(folder)

    for _ in range(ROUNDS):
        remove(folder, written)
        statuses, said = run_both(folder, words, rng.uniform(0, seconds / 4))
        assert sorted(statuses) == [0, 2], said
        assert "is being written by process" in said[statuses.index(2)]
        assert result(folder) == expected
        left = [path.name for path in folder.rglob("*") if ".lock" in path.name]
        assert not left


def remove(folder: Path, written: str) -> None:
    """Remove what a verb has written, unless it keeps what is there."""
    if written and (folder / written).exists():
        shutil.rmtree(folder / written)


def start(folder: Path, words: list[str], number: int = 0) -> Forked:
    return forks().start(*words, output=folder / f"output-{number}", environment=ON_CPU)


def run_both(folder: Path, words: list[str], seconds_between: float) -> tuple[list[int], list[str]]:
    """Return exit status and output of the same command, run twice at nearly the same time."""
    one = start(folder, words, 0)
    time.sleep(seconds_between)
    other = start(folder, words, 1)
    statuses = [one.wait(), other.wait()]
    return statuses, [(folder / f"output-{number}").read_text() for number in (0, 1)]


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
