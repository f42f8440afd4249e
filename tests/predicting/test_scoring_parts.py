"""Parts are scored once, in their order, and whatever has no score has a reason."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from lens_hpc import Finder
from lens_hpc.dataset.dataset import Dataset
from lens_hpc.dataset.survey_kind import SurveyKind
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.predicting.models import load_models
from lens_hpc.predicting.object_table import object_table
from lens_hpc.predicting.score_files import (
    fingerprint_of,
    score_table,
    write_scores,
)
from lens_hpc.predicting.scoring_parts import DARK, NO_NUMBER, PartScorer
from lens_hpc.predicting.survey import PartCutouts, PartRows, SurveyPart
from tests.predicting.small_runs import make_run

PARTS = 3
OBJECTS = 7


class FakeSurvey:
    """Parts of noise: `bad` gives the reason of a row, `broken` the parts that cannot be read."""

    def __init__(self, kind: SurveyKind, broken: tuple[int, ...] = ()) -> None:
        self.kind = kind
        self.broken = broken
        self.parts = [SurveyPart(f"part-{n}", OBJECTS, 100, f"{n}") for n in range(PARTS)]
        rng = np.random.default_rng(1)
        shape = (PARTS, OBJECTS, len(kind.bands), kind.height, kind.width)
        self.pixels = rng.normal(3, 1, shape).astype(np.float32)
        self.features = rng.normal(size=(PARTS, OBJECTS, len(kind.features))).astype(np.float32)

    def rows(self, part: int) -> PartRows:
        ids = [f"{part}-{row}" for row in range(OBJECTS)]
        nothing = pa.nulls(OBJECTS, pa.float64())
        table = pa.table({"id": ids, "ra": nothing, "dec": nothing, "tile": [str(part)] * OBJECTS})
        return PartRows(table, self.features[part], {2: "the id is empty"})

    def batches(
        self, part: int, rows: PartRows, batch_size: int, reasons: dict[int, str]
    ) -> Iterator[PartCutouts]:
        if part in self.broken:
            raise BadCutoutError("a.fits: is cut off")
        for start in range(0, OBJECTS, batch_size):
            numbers = np.arange(start, min(start + batch_size, OBJECTS))
            numbers = numbers[numbers != 2]
            yield PartCutouts(numbers, self.pixels[part][numbers], np.zeros(len(numbers)))

    def cutouts(self, part: int, rows: np.ndarray) -> np.ndarray:
        return self.pixels[part][rows]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, packed_once: Path) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [make_run(folder / f"run-{seed}", packed_once, seed) for seed in range(2)]


@pytest.fixture
def survey(packed_once: Path) -> FakeSurvey:
    return FakeSurvey(Dataset(packed_once).manifest.kind)


def scorer_of(survey: FakeSurvey, runs: list[Path], batch_size: int = 3) -> PartScorer:
    models = load_models(runs, "best", (), 0.01)
    score = models.scorer(torch.device("cpu"), "none")
    return PartScorer(survey, models, score, batch_size, 0.01)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_scores_are_those_of_the_finder(
    survey: FakeSurvey, runs: list[Path], batch_size: int
) -> None:
    scorer = scorer_of(survey, runs, batch_size)
    looked_at: list[int] = []
    done = list(scorer.run([0, 2], looked_at.append))
    assert [work.number for work in done] == [0, 2]
    assert sum(looked_at) == 2 * OBJECTS

    finder = Finder.load(runs)
    for work in done:
        table = score_table(work.rows, scorer.scores_of(work)).to_pandas()
        good = np.arange(OBJECTS) != 2
        images, features = survey.pixels[work.number][good], survey.features[work.number][good]
        np.testing.assert_allclose(table["logit"][good], finder.score(images, features), atol=1e-5)
        expected = finder.probability(images, features, prevalence=0.01)
        np.testing.assert_allclose(table["probability"][good], expected, rtol=1e-4)
        own = [Finder.load(run).score(images, features) for run in runs]
        np.testing.assert_allclose(table["spread"][good], np.std(own, axis=0), atol=1e-5)
        without = table.loc[2]
        assert without["reason"] == "the id is empty"
        assert without[["logit", "probability", "spread", "edge_fraction"]].isna().all()
        assert table["reason"][good].isna().all()


def test_what_cannot_be_scored_has_a_reason(survey: FakeSurvey, runs: list[Path]) -> None:
    survey.pixels[0][4] = -1
    survey.pixels[0][5, 0, 0, 0] = 3e38
    survey.pixels[0][5] *= -1
    scorer = scorer_of(survey, runs)
    (work,) = scorer.run([0], lambda count: None)
    table = score_table(work.rows, scorer.scores_of(work)).to_pandas()
    assert table["reason"][4] == DARK
    assert table["reason"][5] in {DARK, NO_NUMBER}
    assert table["logit"].isna().tolist() == [False, False, True, False, True, True, False]


def test_a_part_that_cannot_be_read_does_not_stop_the_others(
    survey: FakeSurvey, runs: list[Path]
) -> None:
    survey.broken = (1,)
    scorer = scorer_of(survey, runs)
    works = list(scorer.run(range(PARTS), lambda count: None))
    assert [work.fault for work in works] == ["", "a.fits: is cut off", ""]
    table = score_table(works[1].rows, scorer.scores_of(works[1])).to_pandas()
    assert table["logit"].isna().all()
    assert set(table["reason"]) == {"a.fits: is cut off", "the id is empty"}


def test_objects_of_the_training_are_flagged(packed_once: Path, runs: list[Path]) -> None:
    """By their pixels, where the run knows no positions."""
    split = Dataset(packed_once)["train"]
    survey = FakeSurvey(split.manifest.kind)
    survey.pixels[0][:] = split[:OBJECTS].images
    scorer = scorer_of(survey, runs)
    seen, others = (scorer.scores_of(work) for work in scorer.run([0, 1], lambda count: None))
    assert seen.trained_on.tolist() == [True, True, False, True, True, True, True]
    assert not others.trained_on.any()


def test_kept_columns_of_our_names_are_all_there() -> None:
    names = ["tile", "logit", "column_logit", "mag", "ra"]
    kept = pa.table({name: [name] for name in names})
    table = object_table(["a"], np.array([[1.0, 2.0]]), "t", kept, held={"ra"})
    row = table.to_pylist()[0]
    assert row == {
        **{"id": "a", "ra": 1.0, "dec": 2.0, "tile": "t", "column_tile": "tile"},
        **{"column_column_logit": "logit", "column_logit": "column_logit", "mag": "mag"},
    }


def test_a_file_of_scores_keeps_its_fingerprint(tmp_path: Path) -> None:
    table = pa.table({"id": ["a"], "logit": pa.array([1.0], pa.float32())})
    file = tmp_path / "part.parquet"
    assert fingerprint_of(file) is None
    write_scores(file, table, "abc")
    assert fingerprint_of(file) == "abc"
    file.write_bytes(file.read_bytes()[:-9])
    assert fingerprint_of(file) is None
