"""A survey that the tasks of an array score together, one of which loses its node on the way."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import lens_hpc
from lens_hpc.layout import SURVEY_ROWS
from lens_hpc.packing.survey_rows import SurveyRows
from lens_hpc.predicting.mosaic_survey import part_name
from lens_hpc.predicting.sharing import share_out
from tests.integration import test_predict
from tests.integration.commands import done
from tests.predicting.small_runs import make_run
from tests.slurm.conftest import SCRIPTS, TOO_LONG_SECONDS, Cluster, output

PREDICT = str(SCRIPTS / "predict.sbatch")
# A node for each task, and as many threads as one process alone has.
OPTIONS = ("--exclusive", "--gpus-per-node=0", "--cpus-per-task=1")
TILES = {f"T{number}": (150.1 + 0.008 * number, 2.2) for number in range(6)}
MERGED = "objects in 7 parts"
"""What a task says that finds all tiles scored, and the objects on none."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a user works: a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("my work") / "lens finding"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_predict, "CENTRES", TILES)
        survey = test_predict.write_survey(folder / "survey")

    packed = folder / "packed"
    lens_hpc.pack(survey / "recipe.yaml", source=survey, output=packed, on_bad="skip")
    make_run(folder / "run", packed)
    return folder


@pytest.fixture(scope="module")
def alone(home: Path) -> dict[str, bytes]:
    """What one process makes."""
    done("predict", *words(home, "alone"))
    return test_predict.outcome(home / "alone")


def words(home: Path, name: str) -> list[str]:
    """What follows the verb or the script: a model that takes its time with each object."""
    return [
        str(home / "run"),
        str(home / "survey/recipe.yaml"),
        f"source={home}/survey",
        f"output={home}/{name}",
        "batch_size=1",
        "tta=d4",
        "candidates=20",
    ]


def parts_of(home: Path, task: int, tasks: int) -> list[str]:
    """Return the files of scores that are a task's share of the survey."""
    tiles = SurveyRows(home / "alone" / SURVEY_ROWS).tiles
    shares = share_out([tile.objects for tile in tiles], tasks)
    return [f"{part_name(tiles[part])}.parquet" for part in shares[task]]


def processes_of(task: int) -> Iterator[int]:
    """Yield the numbers of the processes in which a task of an array scores."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        is_verb = command[1:4] == [b"-m", b"lens_hpc", b"predict"]
        if is_verb and f"task={task}".encode() in command:
            yield int(file.parent.name)


def stop_in_the_middle(scores: Path, task: int, parts: list[str]) -> None:
    """Stop a task as soon as it has scored one of its parts."""
    until = time.monotonic() + TOO_LONG_SECONDS
    while not any((scores / part).exists() for part in parts):
        assert time.monotonic() < until, f"task {task} scores nothing"
        time.sleep(0.01)
    for process in processes_of(task):
        os.kill(process, signal.SIGSTOP)
    assert not all((scores / part).exists() for part in parts), "it was too late"


def test_a_node_that_crashes_in_mid_array_changes_no_byte(
    cluster: Cluster, home: Path, alone: dict[str, bytes]
) -> None:
    made = home / "by array"
    job = cluster.submit(home, *OPTIONS, "--array=0-2", PREDICT, *words(home, made.name))
    first, second, third = (f"{job}_{task}" for task in range(3))

    stop_in_the_middle(made / "scores", 1, parts_of(home, 1, tasks=3))
    for task in (first, third):
        assert cluster.wait(task) == "COMPLETED 0", output(home, task)
        assert "the last task merges" in output(home, task)
    assert not (made / "summary.json").exists()

    node = cluster.facts(second)["NodeList"]
    cluster("cluster", "crash", node)
    try:
        cluster.wait_for(lambda: cluster.facts(second)["Restarts"] != "0", "a new start")
    finally:
        cluster("cluster", "boot", node)
    assert cluster.wait(second) == "COMPLETED 0", output(home, second)
    assert "1 of 2 parts are there already" in output(home, second)
    assert test_predict.outcome(made) == alone

    said = [output(home, task) for task in (first, second, third)]
    assert [MERGED in each for each in said] == [False, True, False]


def test_a_job_near_its_time_limit_comes_back_and_goes_on(
    cluster: Cluster, home: Path, alone: dict[str, bytes]
) -> None:
    made = home / "in two goes"
    job = cluster.submit(home, *OPTIONS, PREDICT, *words(home, made.name))
    cluster.wait_for(lambda: [*made.glob("scores/*.parquet")], "the first part")

    # As Slurm does it, a minute before.
    cluster("scancel", "--signal=USR1", "--batch", str(job))
    assert cluster.wait(job) == "COMPLETED 0", output(home, job)
    assert cluster.facts(job)["Restarts"] == "1"
    assert "of 7 parts are there already" in output(home, job)
    assert test_predict.outcome(made) == alone
