"""However many processes and whatever batches: the same file, each sample once, or an error that
names the first."""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lens_hpc.dataset.split import Split
from lens_hpc.layout import PREDICTIONS
from lens_hpc.loading.order import scoring_shares
from lens_hpc.reporting.results import Survey, evaluate_scores
from lens_hpc.scoring import predictions
from lens_hpc.scoring.calibration import Calibration, probability_maps
from lens_hpc.scoring.scores import every_row_once
from tests.conftest import pack_survey, write_survey

SURVEY = Survey(1e-3, 1000, (0.5,))
SIZES = {"one": 1, "seven": 7, "even": 1000, "odd": 1001}
MAPS = probability_maps(Calibration(2.0, (-1.0, 1.0), (0.1, 0.9), 0.5))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predictions")
    names = [
        "train",
        *(name for name, size in SIZES.items() for _ in range(size)),
        "train",
        "train",
    ]
    fields = [f"field{i // 3}" for i in range(len(names))]
    survey = write_survey(folder / "s", rows=len(names), bands=1, size=4, split=names, field=fields)
    columns = (
        "columns={id: id, label: is_lens, features: [radius, colour], group: field, split: split}"
    )
    return pack_survey(survey, folder / "d", columns, "bands=[g]")


def logits_of(rows: np.ndarray) -> np.ndarray:
    """Some of them tied."""
    return (rows * 7919 % 613 / 100).astype(np.float32) - 3


def write_parts(folder: Path, split: Split, world_size: int, batch_size: int) -> None:
    for rank in range(world_size):
        shares = [share.draws for share in scoring_shares(len(split), batch_size, rank, world_size)]
        rows = np.concatenate([np.empty(0, dtype=np.int64), *shares])
        predictions.write_part(folder, rank, split, rows, logits_of(rows), MAPS)


@pytest.mark.slow
@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(list(SIZES)), world_size=st.integers(1, 4), batch_size=st.integers(1, 300)
)
def test_the_same_predictions_and_metrics(
    dataset: Path, name: str, world_size: int, batch_size: int
) -> None:
    split = Split(dataset, name)
    with tempfile.TemporaryDirectory() as there:
        write_parts(Path(there), split, world_size, batch_size)
        scores = predictions.merge_parts(Path(there), split)
        table = pd.read_parquet(Path(there) / PREDICTIONS)
        assert [file.name for file in Path(there).iterdir()] == [PREDICTIONS]
    rows = np.arange(SIZES[name])
    assert list(table["index"]) == list(rows)
    assert list(table["id"]) == list(split.ids())
    assert list(table["group"]) == list(split.texts("groups"))
    np.testing.assert_array_equal(table["label"], split.take("labels", rows))
    np.testing.assert_array_equal(table["logit"], logits_of(rows))
    np.testing.assert_allclose(
        table["probability"], 1 / (1 + np.exp(-logits_of(rows).astype(float)))
    )
    np.testing.assert_array_equal(table["radius"], split.take("features", rows)[:, 0])
    found = evaluate_scores(scores.labels, scores.logits, SURVEY, scores.groups)
    assert found.as_dict() == expected_results(dataset, name)


@cache
def expected_results(dataset: Path, name: str) -> dict[str, object]:
    split = Split(dataset, name)
    rows = np.arange(len(split))
    groups = pd.factorize(split.texts("groups"))[0]
    return evaluate_scores(split.take("labels", rows), logits_of(rows), SURVEY, groups).as_dict()


def test_a_lost_part_and_a_doubled_one_are_errors_that_name_the_first(
    dataset: Path, tmp_path: Path
) -> None:
    split = Split(dataset, "even")
    write_parts(tmp_path, split, 4, 10)
    (tmp_path / "part-00002.parquet").rename(tmp_path / "lost")
    with pytest.raises(
        RuntimeError,
        match=f"250 of 1,000 samples have no score and 0 .* first: {split.ids()[500]}, ",
    ):
        predictions.merge_parts(tmp_path, split)
    (tmp_path / "lost").rename(tmp_path / "part-00002.parquet")
    (tmp_path / "part-00007.parquet").write_bytes((tmp_path / "part-00001.parquet").read_bytes())
    with pytest.raises(
        RuntimeError,
        match=f"0 of 1,000 samples .* 250 have several; the first: {split.ids()[250]}, ",
    ):
        predictions.merge_parts(tmp_path, split)


def test_one_lost_and_one_doubled_sample(dataset: Path) -> None:
    split = Split(dataset, "seven")
    times = np.array([1, 1, 0, 1, 2, 1, 1])
    names = ", ".join(split.ids(np.array([2, 4])))
    with pytest.raises(
        RuntimeError, match=f"1 of 7 samples have no score and 1 have several; the first: {names}"
    ):
        every_row_once(times, split)


def test_a_feature_with_the_name_of_a_column_keeps_both(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=60, logit=[str(i) for i in range(60)])
    split = Split(pack_survey(survey, tmp_path / "d", "columns.features=[logit]"), "test")
    write_parts(tmp_path, split, 1, 60)
    predictions.merge_parts(tmp_path, split)
    table = pd.read_parquet(tmp_path / PREDICTIONS)
    np.testing.assert_array_equal(table["logit"], logits_of(np.arange(len(split))))
    np.testing.assert_array_equal(
        table["feature_logit"], split.take("features", np.arange(len(split)))[:, 0]
    )
