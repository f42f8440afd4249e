"""Every write, rename, sync and lock of the verbs that write fails in turn, or is their last. The
same line, run again, goes on: no result is lost or damaged.

failing_disk.c stands between the program and the system, so that the writes of HDF5, torch, Arrow
and safetensors are met, too.
"""

import ctypes
import errno
import itertools
import json
import mmap
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.numpy import load_file

import lens_hpc
from tests.conftest import pack_survey, write_survey
from tests.grading import gradings
from tests.integration import test_predict
from tests.integration.forked import Forks
from tests.kills import files_of
from tests.predicting.small_runs import make_run
from tests.selection import conftest as selection

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("gcc"), reason="there is no compiler for failing_disk.c"),
]
LONG = "LENS_HPC_LONG" in os.environ
TRIALS = 170 if LONG else 5
"""Of each verb."""

KILL = -1
ON_CPU = {"ACCELERATE_USE_CPU": "true"}
NAMES = ("ENOSPC", "EDQUOT", "EIO", "EACCES", "ESTALE", "EINTR")
ERRORS = [KILL, *(getattr(errno, name) for name in NAMES)]

CONFIG = """
run: {folder}/run
data: {{dataset: {folder}/d, workers: 0}}
augment: {{engine: torch}}
model: {{inputs: image, backbone: test_vit, weights: none, norm: layer}}
train: {{epochs: 2, global_batch_size: 24, trackers: []}}
checkpoint: {{every_steps: 1}}
"""


SWEEP = """
config: {folder}/config.yaml
output: {folder}/swept
fixed: {{model.inputs: features, train.epochs: 1}}
ranges: {{optim.lr: {{choices: [0.001]}}}}
"""

ARCS = """
share: 0.2
psf: {g: 0.7, r: 0.6}
zero_point: {g: 27, r: 27}
gain: {g: 100, r: 100}
deflector: {einstein_radius: {fixed: 0.7}}
sources: {z: {fixed: 2}, band: r, magnitude: {fixed: 23}, colors: {g: {fixed: 0.3}}}
"""


def write_inputs(folder: Path) -> None:
    """Write what all verbs begin with: stamps, a dataset, a config, and a run with its mosaics."""
    write_survey(folder / "s", rows=75, size=16)
    pack_survey(folder / "s", folder / "d")
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder))
    (folder / "arcs.yaml").write_text(ARCS)
    (folder / "sweep.yaml").write_text(SWEEP.format(folder=folder))

    sky = test_predict.write_survey(folder / "sky")
    packed = folder / "sky-packed"
    lens_hpc.pack(sky / "recipe.yaml", source=sky, output=packed, on_bad="skip")
    make_run(folder / "finder", packed)

    make_run(folder / "judge", folder / "d", seed=2, inputs="image")
    (folder / "arcs.yaml").write_text(selection.RECIPE)

    (folder / "vetting").mkdir()
    grading = gradings.make_grading(folder / "vetting")
    gradings.grade_all(grading, "anna", lambda _, is_lens: "A" if is_lens else "X")


class Control(ctypes.Structure):
    """What failing_disk.c shares."""

    _fields_ = [
        ("count", ctypes.c_int64),
        ("fail_at", ctypes.c_int64),
        ("error", ctypes.c_int64),
        ("stays", ctypes.c_int64),
        ("folder", ctypes.c_char * 1024),
        ("told", ctypes.c_char * 1024),
    ]


class Disk:
    """A folder whose disk fails when it is told to, and the commands that write there."""

    def __init__(self, folder: Path, control: Control, forks: Forks) -> None:
        self.folder = folder
        self.control = control
        self.forks = forks

    def run(self, words: list[str], fail_at: int = 0, error: int = 0, stays: bool = False) -> int:
        """Return the exit status of a command whose `fail_at`th operation fails."""
        control = self.control
        control.count, control.fail_at, control.error, control.stays = 0, fail_at, error, stays
        control.told = b""
        control.folder = str(self.folder).encode()
        try:
            output = self.folder.with_name("output")
            return self.forks.start(*words, output=output, environment=ON_CPU).wait()
        finally:
            control.folder = b""

    @property
    def output(self) -> str:
        return self.folder.with_name("output").read_text(errors="replace")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    place = tmp_path_factory.mktemp("disk")
    library, control_file, folder = place / "failing_disk.so", place / "control", place / "disk"
    source = Path(__file__).with_name("failing_disk.c")
    compiler = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(compiler, check=True)

    folder.mkdir()
    write_inputs(folder)

    control_file.write_bytes(bytes(ctypes.sizeof(Control)))
    environment = {"LD_PRELOAD": str(library), "FAILING_DISK": str(control_file)}
    with control_file.open("r+b") as file, Forks(environment) as forks:
        control = Control.from_buffer(mmap.mmap(file.fileno(), 0))
        yield Disk(folder, control, forks)


# ---- the verbs, and what they leave ----


def result_of_pack(folder: Path) -> object:
    return files_of(folder / "packed")


def result_of_simulate(folder: Path) -> object:
    return files_of(folder / "mock")


def result_of_inject(folder: Path) -> object:
    return files_of(folder / "injected")


def result_of_train(folder: Path) -> object:
    run = folder / "run"
    weights = [load_file(run / which / "model.safetensors") for which in ("best", "final")]
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return (
        [{name: value.tobytes() for name, value in each.items()} for each in weights],
        [(line["epoch"], line["loss"], line["val_auc"]) for line in log],
    )


def result_of_evaluate(folder: Path) -> object:
    evaluation = folder / "evaluated" / "evaluation" / "test"
    names = ("metrics.json", "predictions.parquet", "calibration.json")
    return {name: (evaluation / name).read_bytes() for name in names}


def result_of_predict(folder: Path) -> object:
    return test_predict.outcome(folder / "scored")


def result_of_export(folder: Path) -> object:
    return files_of(folder / "exported")


def result_of_completeness(folder: Path) -> object:
    names = ("completeness.json", "cells.parquet", "trials.parquet", "hosts.parquet")
    measured = folder / "judge" / "completeness" / "hosts"
    return {name: (measured / name).read_bytes() for name in names}


def result_of_sweep(folder: Path) -> object:
    names = ("study.journal", "trials.csv", "trials.parquet", "best.yaml", "sweep.png")
    return {name: (folder / "swept" / name).read_bytes() for name in names}


def result_of_grade(folder: Path) -> object:
    return files_of(folder / "looked"), (folder / "looked.html").read_bytes()


def result_of_combine(folder: Path) -> object:
    names = ("graded.parquet", "graded.csv", "graders.json")
    return {name: (folder / "vetted" / name).read_bytes() for name in names}


VERBS: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "pack": (
        "pack {folder}/s/recipe.yaml source={folder}/s output={folder}/packed processes=2",
        "packed",
        result_of_pack,
    ),
    "simulate": ("simulate {folder}/mock objects=6 processes=2", "mock", result_of_simulate),
    "inject": (
        "inject {folder}/d output={folder}/injected recipe={folder}/arcs.yaml processes=2",
        "injected",
        result_of_inject,
    ),
    "train": ("train {folder}/config.yaml", "run", result_of_train),
    # What was there before is kept, so it is not taken away.
    "evaluate": ("evaluate {folder}/evaluated workers=0", "", result_of_evaluate),
    "predict": (
        "predict {folder}/finder {folder}/sky/recipe.yaml source={folder}/sky "
        "output={folder}/scored batch_size=64 candidates=20",
        "scored",
        result_of_predict,
    ),
    "completeness": (
        "completeness {folder}/judge {folder}/d recipe={folder}/arcs.yaml name=hosts threshold=0 "
        "einstein_radius=[0.4,0.8] source_magnitude=[22,24] trials=6 batch_size=4 processes=1",
        "judge/completeness/hosts",
        result_of_completeness,
    ),
    "export": (
        "export {folder}/finder output={folder}/exported formats=[torch]",
        "exported",
        result_of_export,
    ),
    # Its trainings are processes of their own, and have ended before.
    "sweep": ("sweep {folder}/sweep.yaml", "", result_of_sweep),
    "grade": (
        "grade {folder}/vetting/candidates output={folder}/looked page={folder}/looked.html",
        "looked",
        result_of_grade,
    ),
    "combine": (
        "combine {folder}/vetting/grading output={folder}/vetted sheet=none",
        "vetted",
        result_of_combine,
    ),
}


REFUSE_WHAT_IS_THERE = {"simulate", "export"}


@pytest.mark.parametrize("verb", VERBS)
def test_no_failure_of_the_disk_loses_or_damages_anything(disk: Disk, verb: str) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    line, written, result = VERBS[verb]
    words = line.format(folder=disk.folder).split()
    if verb == "evaluate":
        train = VERBS["train"][0].format(folder=disk.folder)
        assert disk.run([*train.split(), f"run={disk.folder}/evaluated"]) == 0, disk.output
    if verb == "sweep":
        assert disk.run(words) == 0, disk.output

    assert disk.run(words) == 0, disk.output
    operations = disk.control.count
    assert operations > 10
    expected = result(disk.folder)

    for trial in range(TRIALS):
        if written:
            shutil.rmtree(disk.folder / written)
        error = rng.choice(ERRORS)
        # What was interrupted is tried again by Python and by HDF5.
        stays = error != errno.EINTR and rng.random() < 0.5
        number = rng.randrange(operations) + 1
        status = disk.run(words, number, error, stays)
        name = "a kill" if error == KILL else errno.errorcode[error]
        case = f"{verb}, trial {trial}, seed {seed}: {name} at {disk.control.told.decode()}"
        said = disk.output
        if error == KILL:
            assert status == -9, f"{case}\n{said}"
        else:
            assert status in {0, 2}, f"{case}\n{said}"
            assert "Traceback" not in said, f"{case}\n{said}"
            assert status == 0 or str(disk.folder) in said, f"{case}\n{said}"
        is_there = verb in REFUSE_WHAT_IS_THERE and (disk.folder / written).exists()
        if status == 0 or not written or is_there:
            assert result(disk.folder) == expected, f"{case}\n{said}"
        if is_there:
            continue

        assert disk.run(words) == 0, f"{case}\n{said}\nand then\n{disk.output}"
        assert result(disk.folder) == expected, f"{case}\n{said}\nand then\n{disk.output}"
        left = [disk.folder.rglob(f"*{part}*") for part in (".partial", ".replaced", ".lock")]
        assert not [*itertools.chain(*left)], f"{case}\n{said}"
