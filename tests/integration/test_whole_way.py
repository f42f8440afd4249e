"""simulate -> pack -> train on two processes -> evaluate on one to four."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open

from lens_hpc.dataset.manifest import read_run_manifest
from tests.integration.commands import done, forked, lens_hpc

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
        assert (
            auc
            == (lines[-1] if name == "final" else max(lines, key=lambda line: line["val_auc"]))[
                "val_auc"
            ]
        )
        assert read_run_manifest(run / name) == read_run_manifest(run)
        calibration = json.loads((run / name / "calibration.json").read_text())
        assert calibration["temperature"] > 0
        assert 0 < calibration["prevalence"] < 1


@pytest.fixture(scope="module")
def evaluated(workplace: Path, run: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Metrics and predictions by one process."""
    done("evaluate", "run", "batch_size=8", cwd=workplace)
    assert {path.name for path in (run / "evaluation" / "test").iterdir()} == EVALUATION
    return metrics_of(run), pd.read_parquet(run / "evaluation" / "test" / "predictions.parquet")


@pytest.mark.parametrize(("processes", "batch"), [(2, 8), (3, 5), (4, 61)])
def test_any_number_of_processes_gives_the_same_metrics_and_each_sample_once(
    workplace: Path,
    run: Path,
    evaluated: tuple[dict[str, Any], pd.DataFrame],
    processes: int,
    batch: int,
) -> None:
    expected, predictions = evaluated
    assert expected["n"] == 61
    done("evaluate", "run", f"batch_size={batch}", processes=processes, cwd=workplace)
    assert leaves(metrics_of(run)) == pytest.approx(leaves(expected), abs=1e-5)
    table = pd.read_parquet(run / "evaluation" / "test" / "predictions.parquet")
    assert list(table["index"]) == list(range(61))
    assert table["id"].is_unique
    pd.testing.assert_frame_equal(table, predictions, atol=1e-5)


EVALUATION = {"predictions.parquet", "metrics.json", "calibration.json", "report.html", "figures"}


def metrics_of(run: Path, name: str = "test") -> dict[str, Any]:
    return json.loads((run / "evaluation" / name / "metrics.json").read_text())


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Every value of a nested tree by its path."""
    items = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else None
    )
    if items is None:
        return {path: tree}
    return {
        key: value
        for name, branch in items
        for key, value in leaves(branch, f"{path}/{name}").items()
    }


def logits_of(run: Path, name: str) -> np.ndarray:
    return pd.read_parquet(run / "evaluation" / name / "predictions.parquet")["logit"].to_numpy()


@pytest.mark.usefixtures("evaluated")
def test_an_ensemble_is_the_mean_of_its_logits_and_is_compared_with_its_parts(
    workplace: Path, run: Path
) -> None:
    done(
        "train",
        "train.yaml",
        *SETTINGS,
        "run=other",
        "train.seed=1",
        "train.epochs=1",
        cwd=workplace,
    )
    other = workplace / "other"
    done("evaluate", "other", cwd=workplace)
    said = done("evaluate", "run", "other", "compare=[run, other]", cwd=workplace)
    name = "test-with-other"
    both = logits_of(run, name)
    np.testing.assert_allclose(
        both, (logits_of(run, "test") + logits_of(other, "test")) / 2, atol=1e-5
    )
    assert metrics_of(run, name)["runs"] == ["run", "other"]
    assert "against run (fusion): " in said
    page = (run / "evaluation" / name / "report.html").read_text()
    assert "mean of the runs run, other" in page
    assert "Compared with other runs" in page


@pytest.mark.usefixtures("evaluated")
def test_views_of_a_cutout_are_scored_too(workplace: Path, run: Path) -> None:
    done("evaluate", "run", "tta=d4", cwd=workplace)
    assert abs(logits_of(run, "test-d4") - logits_of(run, "test")).max() > 1e-4
    assert metrics_of(run, "test-d4")["tta"] == "d4"


@pytest.mark.usefixtures("evaluated")
def test_weights_of_a_file_and_another_dataset(workplace: Path, run: Path) -> None:
    done("evaluate", "run", "weights=run/best/model.safetensors", "dataset=shards", cwd=workplace)
    (name,) = (path.name for path in (run / "evaluation").glob("test-shards-*-run-best"))
    np.testing.assert_allclose(logits_of(run, name), logits_of(run, "test"), atol=1e-5)


def test_a_split_without_lenses_is_scored_and_says_what_it_cannot_say(
    workplace: Path, run: Path
) -> None:
    catalogue = pd.read_csv(workplace / "survey" / "catalogue.csv")
    catalogue["split"] = np.where(catalogue["is_lens"] == 1, "train", "test")
    catalogue.loc[catalogue.index[catalogue["is_lens"] == 0][:10], "split"] = "train"
    catalogue.to_csv(workplace / "survey" / "one_class.csv", index=False)
    options = ("catalogue=one_class.csv", "columns.split=split", "output=one-class")
    done("pack", "survey/recipe.yaml", "source=survey", *options, cwd=workplace)
    said = done("evaluate", "run", "dataset=one-class", processes=2, cwd=workplace)
    assert "no labelled sample is a lens" in said
    assert "AUC" not in said
    (name,) = (path.name for path in (run / "evaluation").glob("test-one-class-*"))
    result = metrics_of(run, name)
    assert (result["n_lenses"], result["auc"]) == (0, None)
    assert len(logits_of(run, name)) == result["n"]


def test_a_dataset_that_was_packed_anew_is_refused(workplace: Path, run: Path) -> None:
    """The samples that it tests on may be among those that the run was trained on."""
    splits = ("splits={train: 0.5, val: 0.2, test: 0.3}", "seed=5")
    done("pack", "survey/recipe.yaml", "source=survey", "output=anew", *splits, cwd=workplace)
    (workplace / "shards").rename(workplace / "aside")
    (workplace / "anew").rename(workplace / "shards")
    try:
        result = forked("evaluate", "run", cwd=workplace)
    finally:
        shutil.rmtree(workplace / "shards")
        (workplace / "aside").rename(workplace / "shards")
    assert result.returncode == 2
    assert "was trained on other splits than shards has now" in result.stderr


LOSING = """
import sys
from lens_hpc.cli import main
from lens_hpc.scoring import predictions

write = predictions.write_part

def losing(folder, rank, split, rows, logits, maps):
    if rank == 1:
        rows, logits = {change}
    write(folder, rank, split, rows, logits, maps)

predictions.write_part = losing
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("rows[:0], logits[:0]", "30 of 61 samples have no score and 0 have several; the first: "),
        (
            "rows.repeat(2)[1:], logits.repeat(2)[1:]",
            "0 of 61 samples have no score and 29 have several; the first: ",
        ),
    ],
)
def test_a_rank_whose_predictions_are_lost_or_doubled_ends_it(
    workplace: Path,
    run: Path,
    evaluated: tuple[dict[str, Any], pd.DataFrame],
    change: str,
    said: str,
) -> None:
    before = (run / "evaluation" / "test" / "metrics.json").read_bytes()
    (workplace / "losing.py").write_text(LOSING.replace("{change}", change))
    result = forked(
        "evaluate", "run", "batch_size=31", processes=2, cwd=workplace, program=("losing.py",)
    )
    assert result.returncode != 0
    first = evaluated[1]["id"][31 + ("repeat" in change)]
    assert said + first in result.stderr
    assert (run / "evaluation" / "test" / "metrics.json").read_bytes() == before
    assert not list((run / "evaluation").glob("*.partial"))


def test_a_finished_run_is_left_as_it_is(workplace: Path, run: Path) -> None:
    before = (run / "metrics.jsonl").read_bytes()
    result = forked("train", "train.yaml", *SETTINGS, cwd=workplace)
    assert result.returncode == 0
    assert "has finished already" in result.stderr
    assert (run / "metrics.jsonl").read_bytes() == before


def test_other_settings_for_the_same_run_are_refused_with_what_differs(
    workplace: Path, run: Path
) -> None:
    result = forked("train", "train.yaml", *SETTINGS, "optim.lr=0.5", cwd=workplace)
    assert result.returncode == 2
    assert "optim.lr: 0.002 there, 0.5 here" in result.stderr
    assert "Traceback" not in result.stderr


def test_one_mistake_on_two_processes_is_one_message(workplace: Path) -> None:
    result = lens_hpc(
        "train", "train.yaml", *SETTINGS, "run=no", "optim.lrr=1", processes=2, cwd=workplace
    )
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
import os, sys

del os.environ["ACCELERATE_USE_CPU"]
os.environ["CUDA_VISIBLE_DEVICES"] = ""

from lens_hpc.cli import main
from lens_hpc.training import accelerator

make = accelerator.Accelerator
accelerator.Accelerator = lambda cpu, **options: make(cpu=False, **options)
sys.exit(main())
"""


def test_processes_that_would_train_alone_refuse(workplace: Path) -> None:
    """What Accelerate does in silence without a GPU when nothing tells it of the CPU (FACTS.md)."""
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
        (
            ["evaluate", "run", "weights=newest"],
            "weights = newest: must be best, final, or a model.safetensors",
        ),
        (
            ["evaluate", "run", "compare=[shards]"],
            "compare = shards: shards/evaluation/test is not there",
        ),
    ],
)
def test_a_mistake_ends_with_2_and_the_place(
    workplace: Path, run: Path, arguments: list[str], said: str
) -> None:
    result = forked(*arguments, *(["run=no"] if arguments[0] == "train" else []), cwd=workplace)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not (workplace / "no").exists()


@pytest.mark.parametrize("inputs", ["image", "features"])
def test_each_branch_trains_alone(workplace: Path, inputs: str) -> None:
    name = f"run-{inputs}"
    done(
        "train",
        "train.yaml",
        *SETTINGS,
        f"run={name}",
        f"model.inputs={inputs}",
        processes=2,
        cwd=workplace,
    )
    assert "AUC" in done("evaluate", name, cwd=workplace)
    if inputs == "image":  # a survey without a catalogue
        done(
            "pack",
            "survey/recipe.yaml",
            "source=survey",
            "output=bare",
            "columns.features=[]",
            cwd=workplace,
        )
        assert "AUC" in done("evaluate", name, "dataset=bare", cwd=workplace)


def test_bf16_trains(workplace: Path) -> None:
    done(
        "train",
        "train.yaml",
        *SETTINGS,
        "run=run-bf16",
        "train.precision=bf16",
        "train.epochs=1",
        cwd=workplace,
    )
    assert "AUC" in done("evaluate", "run-bf16", "split=val", cwd=workplace)
