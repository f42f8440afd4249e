"""simulate -> pack -> train on two processes -> evaluate on one, two and three."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open

from lens_hpc.data.shards import read_manifest
from tests.integration.commands import done, lens_hpc

pytestmark = pytest.mark.slow

SETTINGS = [
    "model.backbone=test_resnet", "model.weights=none", "data.workers=0",
    "train.epochs=2", "train.global_batch_size=16",
]  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mock survey, packed: 203 objects give a test split of 61, which neither 2 nor 3 divides."""
    folder = tmp_path_factory.mktemp("whole way")
    done("simulate", "survey", "objects=203", "seed=1", cwd=folder)
    splits = "splits={train: 0.5, val: 0.2, test: 0.3}"
    done("pack", "survey/recipe.yaml", "source=survey", "output=shards", splits, cwd=folder)
    (folder / "train.yaml").write_text("run: run\ndata: {dataset: shards}\n")
    return folder


@pytest.fixture(scope="module")
def run(workplace: Path) -> Path:
    done("train", "train.yaml", *SETTINGS, processes=2, cwd=workplace)
    return workplace / "run"


def test_a_run_directory_holds_what_the_design_says(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert [line["step"] for line in lines] == [6, 12]  # 101 training rows, 16 a step
    assert all(np.isfinite(line["loss"]) and 0 <= line["val_auc"] <= 1 for line in lines)
    assert json.loads((run / "environment.json").read_text())["processes"] == 2
    assert list((run / "tensorboard").rglob("events.*"))
    for name in ("best", "final"):
        with safe_open(run / name / "model.safetensors", "np") as weights:
            auc = float(weights.metadata()["val_auc"])
        assert auc == (lines[-1] if name == "final" else max(lines, key=lambda line: line["val_auc"]))["val_auc"]
        assert read_manifest(run / name) == read_manifest(run)


def test_any_number_of_processes_gives_the_same_metrics_and_each_sample_once(workplace: Path, run: Path) -> None:
    results, predictions = [], []
    for processes in (1, 2, 3):
        done("evaluate", "run", "batch_size=8", processes=processes, cwd=workplace)
        results.append(json.loads((run / "evaluation" / "test" / "metrics.json").read_text()))
        predictions.append(pd.read_parquet(run / "evaluation" / "test" / "predictions.parquet"))
        assert (run / "evaluation" / "test" / "roc.png").stat().st_size > 10_000
    assert results[0]["n"] == 61
    for result, table in zip(results, predictions, strict=True):
        assert result.keys() == results[0].keys()
        for key, value in result.items():
            assert value == pytest.approx(results[0][key], abs=1e-6)
        assert list(table["index"]) == list(range(61))
        assert table["id"].is_unique
        pd.testing.assert_frame_equal(table, predictions[0], atol=1e-6)


def test_a_finished_run_is_left_as_it_is(workplace: Path, run: Path) -> None:
    before = (run / "metrics.jsonl").read_bytes()
    result = lens_hpc("train", "train.yaml", *SETTINGS, cwd=workplace)
    assert result.returncode == 0
    assert "has finished already" in result.stderr
    assert (run / "metrics.jsonl").read_bytes() == before


def test_other_settings_for_the_same_run_are_refused_with_what_differs(workplace: Path, run: Path) -> None:
    result = lens_hpc("train", "train.yaml", *SETTINGS, "optim.lr=0.5", cwd=workplace)
    assert result.returncode == 2
    assert "optim.lr: 0.002 there, 0.5 here" in result.stderr
    assert "Traceback" not in result.stderr


def test_one_mistake_on_two_processes_is_one_message(workplace: Path) -> None:
    result = lens_hpc("train", "train.yaml", *SETTINGS, "run=no", "optim.lrr=1", processes=2, cwd=workplace)
    assert result.returncode != 0
    assert result.stderr.count("did you mean optim.lr?") == 1
    assert not (workplace / "no").exists()


def test_a_batch_that_the_processes_cannot_share_is_one_message(workplace: Path) -> None:
    settings = [*SETTINGS, "run=no", "train.global_batch_size=15"]
    result = lens_hpc("train", "train.yaml", *settings, processes=2, cwd=workplace)
    assert result.returncode != 0
    assert result.stderr.count("cannot be shared evenly by 2 processes; choose 14 or 16") == 1
    assert not (workplace / "no").exists()


BLIND = """
import sys
from lens_hpc.cli import main
from lens_hpc.engine import accelerator

make = accelerator.Accelerator
accelerator.Accelerator = lambda cpu, **options: make(cpu=False, **options)
sys.exit(main())
"""


def test_processes_that_would_train_alone_refuse(workplace: Path) -> None:
    """What Accelerate does in silence when it is told nothing of the CPU on a machine without GPUs (FACTS.md)."""
    (workplace / "blind.py").write_text(BLIND)
    arguments = ["train", "train.yaml", *SETTINGS, "run=no"]
    result = lens_hpc(*arguments, processes=2, cwd=workplace, program=("blind.py",))
    assert result.returncode != 0
    assert result.stderr.count("the launcher started 2 processes, but 1 came together") == 1
    assert not (workplace / "no").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "train.yaml", "data.dataset=nowhere"], "nowhere is not a packed dataset"),
        (["train", "train.yaml", *SETTINGS, "model.backbone=resnet5O"], "timm has no such model"),
        (["evaluate", "run", "split=tset"], "has no split 'tset'; it has: train, val, test"),
        (["evaluate", "survey"], "survey/best holds no model.safetensors"),
    ],
)
def test_a_mistake_ends_with_2_and_the_place(workplace: Path, run: Path, arguments: list[str], said: str) -> None:
    result = lens_hpc(*arguments, *(["run=no"] if arguments[0] == "train" else []), cwd=workplace)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not (workplace / "no").exists()


@pytest.mark.parametrize("inputs", ["image", "features"])
def test_each_branch_trains_alone(workplace: Path, inputs: str) -> None:
    name = f"run-{inputs}"
    done("train", "train.yaml", *SETTINGS, f"run={name}", f"model.inputs={inputs}", processes=2, cwd=workplace)
    assert "AUC" in done("evaluate", name, processes=2, cwd=workplace)


def test_bf16_trains(workplace: Path) -> None:
    done("train", "train.yaml", *SETTINGS, "run=run-bf16", "train.precision=bf16", "train.epochs=1", cwd=workplace)
    assert "AUC" in done("evaluate", "run-bf16", "split=val", cwd=workplace)
