"""The card tells what the run knows of itself, and no more."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import lens_hpc
from lens_hpc.dataset.verdict import Audit, Finding, manifest_crc32, write_audit
from tests.conftest import call
from tests.exporting.test_export import follow_card
from tests.predicting.small_runs import make_run

RECORD = {
    "runs": ["runs/first"],
    "dataset": "toy",
    "split": "test",
    "weights": "best",
    "tta": "none",
    "trained_on": {"by_pixels": 0, "by_position": 0, "by_id": 5},
    "n": 6000,
    "n_lenses": 3000,
    "auc": 0.93014,
    "auc_ci95": [0.90527, 0.94848],
    "tpr0": 0.23,
    "tpr0_ci95": None,
    "tpr10": None,
    "not_said": {"tpr10": "too few non-lenses: 3 of the 10 needed"},
}


def write_evaluation(run: Path, name: str, **changes: Any) -> Path:
    folder = run / "evaluation" / name
    (folder / "figures").mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(RECORD | changes))
    (folder / "figures" / "roc_log.png").write_bytes(name.encode())
    return folder


def card_of(run: Path, *words: str) -> str:
    folder = call("export", run, f"output={run.parent / 'shared'}", "formats=[]", *words).folder
    return (folder / "README.md").read_text()


def test_evaluations_of_these_weights_alone_are_in_the_card(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tmp_path / "run", dataset)
    write_evaluation(run, "test")
    write_evaluation(run, "test-d4", tta="d4", trained_on={"by_pixels": 7, "by_position": 2})
    write_evaluation(run, "test-with-other", runs=["runs/first", "runs/other"])
    write_evaluation(run, "val-final", weights="final", split="val")
    for number, text in enumerate(("{", "[]", '{"runs": ["a"], "weights": "best"}')):
        (write_evaluation(run, f"broken-{number}") / "metrics.json").write_text(text)

    card = card_of(run)
    assert card.count("### Split") == 2
    assert "### Split test of toy\n\n6,000 objects, 3,000 of them lenses.\n\n|" in card
    assert "### Split test of toy, test-time augmentation d4" in card
    assert card.count("**7 of them were trained on**") == 1
    assert "| AUC, ties counted half | 0.9301 | 0.9053 to 0.9485 |" in card
    assert "| 0.2300 |  |" in card
    assert "before the tenth | too few non-lenses: 3 of the 10 needed |  |" in card
    assert caplog.text.count("is damaged") == 3

    shared = tmp_path / "shared"
    assert "](figures/test/roc_log.png)" in card
    assert (shared / "figures" / "test" / "roc_log.png").read_bytes() == b"test"
    assert (shared / "figures" / "test-d4" / "roc_log.png").read_bytes() == b"test-d4"
    assert len(list((shared / "figures").rglob("*.png"))) == 2


def test_an_evaluation_of_an_earlier_epoch_is_not_in_the_card(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tmp_path / "run", dataset)
    lens_hpc.evaluate(run, workers=0)
    file = run / "evaluation" / "test" / "metrics.json"
    record = json.loads(file.read_text())
    now = record["epochs"]
    file.write_text(json.dumps(record | {"epochs": ["3"]}))
    assert "Not evaluated" in card_of(run)
    assert "test/metrics.json: is not of the weights of epoch" in caplog.text

    shutil.rmtree(tmp_path / "shared")
    file.write_text(json.dumps(record | {"epochs": now}))
    assert "### Split test of" in card_of(run)


def test_a_card_without_an_evaluation_says_so(dataset: Path, tmp_path: Path) -> None:
    card = card_of(make_run(tmp_path / "run", dataset))
    assert "Not evaluated" in card
    assert "No licence is given yet" in card
    assert "| audit of the dataset | none |" in card


def test_licence_and_audit_are_in_the_card(dataset: Path, tmp_path: Path) -> None:
    finding = Finding(verdict="leak", check="ids", found="they tell the label")
    crc32 = manifest_crc32(dataset)
    write_audit(dataset, Audit(dataset="toy", manifest_crc32=crc32, rows=40, findings=(finding,)))
    card = card_of(make_run(tmp_path / "run", dataset), "license=cc-by-4.0")
    assert card.startswith('---\nlicense: "cc-by-4.0"\n')
    assert "No licence" not in card
    assert "| audit of the dataset | leak (ids: they tell the label) |" in card


@pytest.mark.parametrize("inputs", ["image", "features", "fusion"])
@pytest.mark.parametrize("is_calibrated", [True, False])
def test_the_card_shows_how_to_use_the_finder(
    inputs: str, is_calibrated: bool, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", dataset, inputs=inputs, is_calibrated=is_calibrated)
    card = card_of(run)
    assert ("radius, colour" in card) == (inputs != "image")
    assert ("prevalence" in card) == is_calibrated
    monkeypatch.chdir(tmp_path / "shared")
    (found,) = follow_card(Path("README.md"))
    assert found.shape == (4,)
