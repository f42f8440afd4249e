"""A real evaluation, of small models that were never trained."""

import json
import random
import re
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch

from lens_hpc import config, layout
from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.metrics import table
from lens_hpc.model.build import build_model
from lens_hpc.model.fusion import FusionModel
from lens_hpc.model.trained import save_trained
from lens_hpc.reporting.evaluation import Evaluation, Scoring, evaluate_runs, evaluation_name
from lens_hpc.reporting.results import Survey
from lens_hpc.scoring.finder import Finder
from lens_hpc.training.loop import keep_training_rows
from tests.conftest import pack_survey, write_survey

pytestmark = pytest.mark.slow

SURVEY = Survey(1e-3, 10**6, (0.5, 0.9))
FILES = {"predictions.parquet", "metrics.json", "calibration.json", "report.html", "figures"}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset and two runs on it."""
    folder = tmp_path_factory.mktemp("evaluation")
    survey = write_survey(folder / "survey", rows=60, size=24)
    dataset = pack_survey(survey, folder / "dataset", "splits={train: 0.2, val: 0.3, test: 0.5}")
    model = config.Model(
        backbone="test_resnet", weights="none", conv_channels=(16, 8), attention_channels=4
    )
    for seed, name in enumerate(("run", "other")):
        run = folder / name
        settings = config.Train(
            run=run, data=config.Data(dataset=dataset), model=model, train=config.Loop(seed=seed)
        )
        torch.manual_seed(seed)
        manifest = read_manifest(dataset)
        fresh = build_model(model, manifest)
        save_trained(run / layout.BEST, fresh, settings, manifest, {})
        for file in (layout.CONFIG, layout.MANIFEST):
            shutil.copy(run / layout.BEST / file, run)
    return folder


def evaluate(*runs: Path, compare: tuple[Path, ...] = (), **scoring: object) -> Evaluation:
    arms = {str(run): [run] for run in compare}
    evaluation = evaluate_runs(runs, Scoring(workers=0, compare=arms, **scoring), SURVEY)
    assert evaluation is not None
    return evaluation


@pytest.fixture(scope="module")
def evaluation(workplace: Path) -> Evaluation:
    return evaluate(workplace / "run")


def test_the_result_is_what_lies_on_disk(workplace: Path, evaluation: Evaluation) -> None:
    assert evaluation.folder == workplace / "run" / "evaluation" / "test"
    assert {file.name for file in evaluation.folder.iterdir()} == FILES
    assert evaluation.metrics == json.loads((evaluation.folder / "metrics.json").read_text())
    origin = ("runs", "dataset", "dataset_crc32", "split", "weights", "epochs", "tta")
    told = ("unlike_training", "trained_on", "n")
    assert list(evaluation.metrics)[:10] == [*origin, *told]
    assert evaluation.report.read_text().startswith("<!DOCTYPE html>")

    rows = evaluation.to_pandas()
    assert list(rows["index"]) == list(range(30))
    assert rows["id"].is_unique
    assert {"logit", "probability", "probability_temperature", "radius"} <= set(rows.columns)


def test_it_says_the_headline_numbers(evaluation: Evaluation) -> None:
    first, *lines, last = evaluation.text.splitlines()
    assert first == "30 samples, 15 lenses"
    auc = evaluation.metrics["auc"]
    assert lines[0].startswith(f"  AUC                {auc:.4f}  95% interval [")
    assert len(lines) == 1 + sum(metric.headline for metric in table.METRICS)
    purity = evaluation.metrics["purity_at_completeness_0.5"]
    assert lines[-1].startswith(f"  purity at 50%      {purity:.4f}  at least ")
    assert last == (
        f"report.html, metrics.json, predictions.parquet and figures/ are in {evaluation.folder}"
    )
    assert repr(evaluation).startswith("Evaluation(30 samples, AUC 0.")
    assert str(evaluation.folder) in repr(evaluation)


def test_an_ensemble_is_the_mean_and_is_compared_with_its_parts(
    workplace: Path, evaluation: Evaluation
) -> None:
    run = workplace / "run"
    other = workplace / "other"
    alone = evaluate(other)
    both = evaluate(run, other, compare=(run, other))

    assert both.folder == run / "evaluation" / "test-with-other"
    logits = [each.to_pandas()["logit"] for each in (evaluation, alone, both)]
    np.testing.assert_allclose(logits[2], (logits[0] + logits[1]) / 2, atol=1e-5)
    for part in (run, other):
        line = rf"(?m)^  against {part} \(fusion\): .*[+-]0\.\d+\], p .* \(paired test\)$"
        assert re.search(line, both.text)
    assert "one seed says nothing about a recipe" in both.text


def test_the_seeds_of_an_arm_are_told(workplace: Path) -> None:
    other = evaluate(workplace / "other", split="val")
    both = evaluate(workplace / "run", split="val", arm=(workplace / "other",))
    aucs = [each.metrics["auc"] for each in (both, other)]
    assert both.metrics["arm"]["auc"] == aucs
    assert both.metrics["arm"]["auc_mean"] == pytest.approx(sum(aucs) / 2)
    assert both.metrics["comparisons"] == []
    assert f"AUC of 2 seeds: {aucs[0]:.4f}, {aucs[1]:.4f}; mean " in both.text
    assert f"AUC of the seeds of this run: {aucs[0]:.4f}" in both.report.read_text()


@pytest.mark.usefixtures("evaluation")
def test_the_process_is_left_as_it_was(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def state() -> list[object]:
        return [
            dict(matplotlib.rcParams),
            matplotlib.get_backend(auto_select=False),
            random.getstate(),
            str(np.random.get_state()),  # noqa: NPY002
            torch.get_rng_state().tolist(),
            torch.get_num_threads(),
        ]

    before = state()
    evaluate(workplace / "run", split="val", tta="d4")
    assert state() == before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("scoring", "message"),
    [
        ({"split": "tset"}, "has no split 'tset'"),
        ({"weights": "newest"}, "weights = newest: must be best, final, or a model.safetensors"),
        ({"weights": "final"}, "final holds no model.safetensors"),
    ],
)
def test_a_mistake_is_named_and_writes_nothing(
    workplace: Path, scoring: dict[str, str], message: str
) -> None:
    before = sorted(workplace.glob("run/evaluation/*"))
    with pytest.raises(UserError, match=message):
        evaluate(workplace / "run", **scoring)
    assert sorted(workplace.glob("run/evaluation/*")) == before


def test_another_survey_is_refused_or_told_in_the_report(workplace: Path, tmp_path: Path) -> None:
    survey = workplace / "survey"
    other = pack_survey(
        survey, tmp_path / "d", "pixel_scale=0.05", "splits={train: 0.5, test: 0.5}"
    )
    with pytest.raises(UserError, match=r"pixels of 0.05 arcsec.*allow=\[pixel_scale\]"):
        evaluate(workplace / "run", dataset=other)

    told = "pixels of 0.05 arcsec, where the run was trained on 0.2"
    found = evaluate(workplace / "run", dataset=other, allow=("pixel_scale",))
    assert found.metrics["unlike_training"] == [told]
    assert told in found.report.read_text()


def test_rows_that_were_trained_on_are_flagged(
    workplace: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, survey = workplace / "run", workplace / "survey"
    other = pack_survey(survey, tmp_path / "d", "splits={train: 0.5, test: 0.5}", "seed=3")
    keep_training_rows(run / layout.BEST, Split(workplace / "dataset", "train"))

    found = evaluate(run, dataset=other)
    count = found.metrics["trained_on"]["by_pixels"]
    assert 0 < count < found.metrics["n"]
    assert f"{count} of {found.metrics['n']} rows of test are among those" in caplog.text
    assert f"{count} of these samples were trained on" in found.report.read_text()
    lines = (found.folder / layout.TRAINED_ON).read_text().splitlines()
    assert lines[0] == "id"
    trained = set(Split(workplace / "dataset", "train").ids())
    assert set(lines[1:]) == trained & set(Split(other, "test").ids())


def test_known_lenses_and_parts_of_the_split_are_in_the_report(
    workplace: Path, tmp_path: Path
) -> None:
    columns = {
        "origin": [("field", "candidate", "candidate")[i % 3] for i in range(60)],
        "ra": [f"{10 + i / 100}" for i in range(60)],
        "dec": ["-30"] * 60,
    }
    survey = write_survey(tmp_path / "survey", rows=60, size=24, **columns)
    recipe = survey / "recipe.yaml"
    kept = "features: [radius, colour], keep: [origin, ra, dec]"
    recipe.write_text(recipe.read_text().replace("features: [radius, colour]", kept))
    other = pack_survey(survey, tmp_path / "d", "splits={test: 1.0}")
    known = tmp_path / "known.csv"
    known.write_text("name,RA [deg],DEC [deg]\nfirst,10.01,-30\nelsewhere,50,0\n")

    found = evaluate(workplace / "run", dataset=other, known=known)
    assert (found.folder / "recovery.csv").read_text().splitlines()[1].startswith("first,obj1,")
    assert found.metrics["recovery"]["in_split"] == 1
    assert "known lenses       1 of the 2 of known.csv lie in this split" in found.text
    origin = found.metrics["breakdown"]["origin"]
    assert [(part["value"], part["n_lenses"]) for part in origin] == [
        ("candidate", 20),
        ("field", 10),
    ]
    page = found.report.read_text()
    for title in ("By origin", "Known lenses of known.csv"):
        assert f"<h2>{title}" in page

    by_none = evaluate(workplace / "run", dataset=other, by=())
    assert by_none.metrics["breakdown"] == {}
    assert by_none.metrics["recovery"] is None


def test_what_known_lenses_and_parts_need_is_asked_before_scoring(
    workplace: Path, tmp_path: Path
) -> None:
    known = tmp_path / "known.csv"
    known.write_text("ra,dec\n10,-30\n")
    before = sorted(workplace.glob("run/evaluation/*"))
    with pytest.raises(UserError, match="keeps no positions"):
        evaluate(workplace / "run", known=known)
    with pytest.raises(UserError, match="by: 'class' is no column"):
        evaluate(workplace / "run", by=("class",))
    assert sorted(workplace.glob("run/evaluation/*")) == before


def test_too_little_memory_is_one_message_with_the_setting(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(FusionModel, "forward", fail)
    with pytest.raises(UserError, match="batch_size = 64: choose batch_size=32"):
        evaluate(workplace / "run", batch_size=64)
    finder = Finder.load(workplace / "run")
    images = np.zeros((1, 2, 24, 24), np.float32)
    with pytest.raises(UserError, match="batch_size = 7: choose batch_size=3"):
        finder.score(images, np.zeros((1, 2)), batch_size=7)


def test_what_was_not_evaluated_cannot_be_compared(workplace: Path) -> None:
    with pytest.raises(UserError, match="test-flips is not there; evaluate that run"):
        evaluate(workplace / "run", compare=(workplace / "other",), tta="flips")


def test_a_dataset_that_was_packed_anew_is_refused(workplace: Path, tmp_path: Path) -> None:
    """The samples that it tests on may be among those that the run was trained on."""
    dataset = workplace / "dataset"
    options = ("splits={train: 0.5, val: 0.2, test: 0.3}", "seed=5")
    anew = pack_survey(workplace / "survey", tmp_path / "anew", *options)
    dataset.rename(tmp_path / "aside")
    anew.rename(dataset)
    try:
        with pytest.raises(UserError, match="was trained on other splits than"):
            evaluate(workplace / "run")
        evaluation = evaluate(workplace / "run", dataset=dataset)
    finally:
        dataset.rename(anew)
        (tmp_path / "aside").rename(dataset)

    assert evaluation.folder.name.startswith("test-dataset-")
    assert "probability_temperature" not in evaluation.to_pandas(), "it is not calibrated"


def test_the_name_has_what_is_not_the_default(workplace: Path) -> None:
    run = workplace / "run"
    weights = str(run / "best" / "model.safetensors")
    assert evaluation_name(Scoring(), [run]) == "test"
    assert evaluation_name(Scoring(split="val", weights="final", tta="d4"), [run]) == "val-final-d4"
    assert evaluation_name(Scoring(weights=weights), [run]) == "test-run-best"
