"""What users see: jobs of the shipped scripts, undisturbed and disturbed in every way that a
cluster knows."""

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import pack_survey, write_survey
from tests.integration.commands import Job
from tests.slurm.conftest import SCRIPTS, Cluster, output

TRAIN, PIPELINE = str(SCRIPTS / "train.sbatch"), str(SCRIPTS / "pipeline.sh")
SMALL = ("--gpus-per-node=0", "--cpus-per-task=2")
CONFIG = """
run: a run
data: {dataset: packed, workers: 0}
augment: {engine: torch}
model:
  {backbone: test_vit, weights: none, norm: layer, conv_channels: [16, 8], attention_channels: 4}
optim: {lr: 1.0e-3}
train: {epochs: 4, global_batch_size: 24}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a user works: a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("my work") / "lens finding"
    survey = write_survey(folder / "survey", rows=75, size=16)
    pack_survey(survey, folder / "packed")
    (folder / "my config.yaml").write_text(CONFIG)
    return folder


def records(run: Path) -> list[dict[str, float]]:
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def results(run: Path) -> list[tuple[float, float, float]]:
    """What does not depend on the clock."""
    return [(record["step"], record["loss"], record["val_auc"]) for record in records(run)]


def test_two_nodes_of_two_processes_train_as_one_node_of_four(cluster: Cluster, home: Path) -> None:
    """And a port that is taken is passed over."""
    last = cluster.submit(home, "--hold", *SMALL, TRAIN, "my config.yaml")
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 20000 + (last + 1) % 10000))
        taken.listen()
        wide = cluster.submit(
            home, "-N", "2", *SMALL, TRAIN, "my config.yaml", "run=wide", LENS_HPC_PROCESSES="2"
        )
        cluster.wait_for(lambda: "which meet at" in output(home, wide), "the job to meet")
    cluster("scancel", str(last))
    assert wide == last + 1
    assert "is taken, tries the next" in output(home, wide)
    assert cluster.wait(wide) == "COMPLETED 0", output(home, wide)
    assert "2 nodes x 2 processes x 1 threads, which meet at node1:" in output(home, wide)
    assert "preflight: 2 nodes, all-reduce" in output(home, wide)
    assert {file.name for file in (home / "logs" / str(wide)).iterdir()} == {
        "finished",
        "status",
        "node1-0.log",
        "node2-0.log",
    }
    narrow = cluster.submit(
        home, *SMALL, TRAIN, "my config.yaml", "run=narrow", LENS_HPC_PROCESSES="4"
    )
    assert cluster.wait(narrow) == "COMPLETED 0", output(home, narrow)
    assert json.loads((home / "narrow/environment.json").read_text())["processes"] == 4
    np.testing.assert_allclose(results(home / "wide"), results(home / "narrow"), atol=1e-5)
    cluster("scontrol", "requeue", str(wide))
    cluster.wait_for(
        lambda: "has finished already" in output(home, wide), "the late requeue to end"
    )
    assert cluster.wait(wide) == "COMPLETED 0"


LONG = ("train.epochs=100", "checkpoint.every_steps=4", "optim.ema_decay=0.9")


def test_whatever_happens_it_comes_back_and_ends_as_if_nothing_had(
    cluster: Cluster, home: Path
) -> None:
    """USR1, preemption, requeue, a node set down, and one that crashes, in one job's life."""
    alone = Job(
        home / "output",
        "train",
        str(home / "my config.yaml"),
        *LONG,
        f"data.dataset={home}/packed",
        f"run={home}/alone",
        processes=2,
    )
    run = home / "disturbed"
    options = (
        "-N",
        "2",
        "-p",
        "low",
        "--gpus-per-node=0",
        "--cpus-per-task=1",
    )  # as many threads as alone
    job = cluster.submit(home, *options, TRAIN, "my config.yaml", *LONG, f"run={run.name}")
    high = []

    def preempt() -> None:
        high.append(
            cluster.submit(home, "-N", "3", "-p", "high", "--exclusive", "--wrap", "sleep 5")
        )

    def set_down() -> None:
        node = cluster.facts(job)["NodeList"][-2]  # node[1-2]
        cluster("scontrol", "update", f"nodename=node{node}", "state=down", "reason=test")
        cluster("scontrol", "update", f"nodename=node{node}", "state=resume")

    def crash() -> None:
        cluster("cluster", "crash", "node2")

    disturbances = {
        "state=down": set_down,
        "USR1": lambda: cluster("scancel", "--signal=USR1", "--batch", str(job)),
        "preemption": preempt,
        "requeue": lambda: cluster("scontrol", "requeue", str(job)),
        "crash": crash,
    }
    for number, (name, disturb) in enumerate(disturbances.items()):
        before = len(records(run))
        cluster.wait_for(
            lambda before=before: len(records(run)) >= before + 3, f"progress before {name}"
        )
        disturb()
        cluster.wait_for(
            lambda number=number: int(cluster.facts(job)["Restarts"]) > number,
            f"a new start after {name}",
        )
    cluster("cluster", "boot", "node2")
    assert alone.wait() == [0, 0]
    assert cluster.wait(job) == "COMPLETED 0", output(home, job)
    assert cluster.wait(high[0]) == "COMPLETED 0"
    assert int(cluster.facts(job)["Restarts"]) >= len(
        disturbances
    )  # a node that boots may end one more
    assert "USR1: the workers save and stop" in output(home, job)
    assert results(run) == results(home / "alone")
    ours, theirs = (
        load_file(each / "final" / "model.safetensors") for each in (run, home / "alone")
    )
    for name, weights in ours.items():
        np.testing.assert_array_equal(weights, theirs[name], err_msg=name)


def test_a_job_that_is_cancelled_stays_so(cluster: Cluster, home: Path) -> None:
    run = home / "cancelled"
    job = cluster.submit(
        home, *SMALL, TRAIN, "my config.yaml", "train.epochs=9999", f"run={run.name}"
    )
    cluster.wait_for(lambda: records(run), "the first epoch")
    cluster("scancel", str(job))
    cluster.wait_for(
        lambda: cluster("squeue", "-h", "-j", str(job), check=False) == "", "the job to be gone"
    )
    assert cluster.facts(job)["JobState"] == "CANCELLED"
    assert cluster.facts(job)["Restarts"] == "0"


def test_an_array_packs_one_dataset(cluster: Cluster, home: Path) -> None:
    arguments = ("survey/recipe.yaml", "source=survey", "output=by array", "processes=1")
    options = ("--array=0-1", "--ntasks=1", "--cpus-per-task=1")
    job = cluster.submit(home, *options, str(SCRIPTS / "pack.sbatch"), *arguments)
    cluster.wait_for(
        lambda: cluster("squeue", "-h", "-j", str(job), check=False) == "", "the array to end"
    )
    assert (home / "by array" / "manifest.json").is_file(), [
        file.read_text() for file in home.glob("*pack*.out")
    ]


def test_a_job_that_never_ends_is_given_up(cluster: Cluster, home: Path) -> None:
    arguments = ("my config.yaml", "run=endless", "train.epochs=9999", "train.max_minutes=0.01")
    job = cluster.submit(home, *SMALL, TRAIN, *arguments, LENS_HPC_RESTARTS="1")
    assert cluster.wait(job) == "FAILED 85", output(home, job)
    said = output(home, job)
    assert said.count("saved; goes back to the queue") == 1
    assert "saved; not queued again, as it was already started anew 1 times" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere.yaml",), "nowhere.yaml: cannot be read: No such file"),
        (("my config.yaml", "optim.lrr=1"), "did you mean optim.lr?"),
        ((), "which config?"),
    ],
)
def test_a_users_mistake_is_one_message_and_never_queued_again(
    cluster: Cluster, home: Path, arguments: tuple[str, ...], said: str
) -> None:
    began = time.monotonic()
    job = cluster.submit(home, *SMALL, TRAIN, *arguments)
    assert cluster.wait(job) == "FAILED 2"
    assert time.monotonic() - began < 60
    assert output(home, job).count(said) == 1
    assert cluster.facts(job)["Restarts"] == "0"


def test_nodes_with_different_gpus_are_named(cluster: Cluster, home: Path) -> None:
    job = cluster.submit(
        home,
        "-N",
        "2",
        "--gpus=3",
        "--gpus-per-node=",
        "--cpus-per-task=2",
        TRAIN,
        "my config.yaml",
    )
    assert cluster.wait(job) == "FAILED 2"
    assert "as many GPUs on each node, please (--gpus-per-node): node1 2, node2 1" in output(
        home, job
    )


def test_gpus_that_pytorch_does_not_see_are_named(cluster: Cluster, home: Path) -> None:
    arguments = (
        "-N",
        "2",
        "--gpus-per-node=2",
        "--cpus-per-task=2",
        TRAIN,
        "my config.yaml",
        "run=blind",
    )
    job = cluster.submit(home, *arguments, ACCELERATE_USE_CPU="")
    assert cluster.wait(job) == "FAILED 1"
    assert "2 processes want a GPU each, PyTorch sees 0" in output(home, job)


def test_a_full_disk_is_named_before_anything_starts(cluster: Cluster, home: Path) -> None:
    if not cluster.disk.is_mount():
        pytest.skip("only root can mount a small disk")
    job = cluster.submit(home, *SMALL, TRAIN, "my config.yaml", f"run={cluster.disk}/run")
    assert cluster.wait(job) == "FAILED 2"
    said = output(home, job)
    assert f"run = {cluster.disk}/run: checkpoints need " in said
    assert "its disk has 1 MB free; choose another disk" in said


def test_a_user_who_is_not_root(cluster: Cluster, home: Path, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("all these tests are run by such a user")
    nobody, place = 65534, Path(f"/tmp/lens_hpc-{os.getpid()}-nobody")
    drop = ("setpriv", f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups")
    if "85" not in cluster(
        *drop,
        "python",
        "-c",
        "import torch, lens_hpc.verbs.train as t; print(t.STOPPED_STATUS)",
        check=False,
    ):
        pytest.skip("the checkout or its Python cannot be read by others")
    shutil.copytree(home / "packed", place / "packed")
    shutil.copy(home / "my config.yaml", place)
    subprocess.run(["chown", "-R", f"{nobody}:{nobody}", place], check=True)
    try:
        words = ("sbatch", "--parsable", *SMALL, TRAIN, "my config.yaml", "train.epochs=1")
        job = int(cluster(*drop, *words, cwd=place, HOME=str(place)))
        assert cluster.wait(job) == "COMPLETED 0", output(place, job)
        assert (place / "a run" / "final" / "model.safetensors").stat().st_uid == nobody
    finally:
        shutil.rmtree(place)


def test_the_pipeline_ends_with_a_report(cluster: Cluster, home: Path) -> None:
    write_survey(home / "larger", rows=120, size=16)
    options = ("--gpus-per-node=0", "--cpus-per-task=2", "--")
    arguments = (
        "larger/recipe.yaml",
        "larger",
        "larger packed",
        "my config.yaml",
        "piped run",
        "train.epochs=1",
    )
    said = cluster(PIPELINE, *options, *arguments, cwd=home, SBATCH_GPUS_PER_NODE="0")
    jobs = [int(word.rstrip(",:")) for word in said.split() if word.rstrip(",:").isdigit()]
    assert len(jobs) == 4
    assert [cluster.wait(job) for job in jobs] == ["COMPLETED 0"] * 4, [
        output(home, job) for job in jobs
    ]
    assert (home / "piped run/evaluation/test/report.html").stat().st_size > 100_000


def test_a_broken_config_leaves_nothing_in_the_queue(cluster: Cluster, home: Path) -> None:
    arguments = (
        "survey/recipe.yaml",
        "survey",
        "packed",
        "my config.yaml",
        "broken run",
        "optim.lrr=1",
    )
    said = cluster(PIPELINE, "--gpus-per-node=0", "--", *arguments, cwd=home)
    jobs = [int(word.rstrip(",:")) for word in said.split() if word.rstrip(",:").isdigit()]
    cluster.wait_for(lambda: cluster("squeue", "-h") == "", "the queue to be empty")
    assert [cluster.wait(job) for job in jobs] == [
        "COMPLETED 0",
        "COMPLETED 0",
        "FAILED 2",
        "CANCELLED 0",
    ]
