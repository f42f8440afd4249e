import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lens_hpc import config, settings
from lens_hpc.errors import UserError
from lens_hpc.reporting.comparison import read_comparison

ORIGIN = {"split": "test", "dataset_crc32": "1234"}
COUNT = 40


@pytest.fixture
def evaluated(tmp_path: Path) -> Path:
    """A run with an evaluation, as far as a comparison reads it."""
    folder = tmp_path / "evaluation"
    folder.mkdir()
    trained = config.Train(run=tmp_path, data=config.Data(dataset=tmp_path))
    (tmp_path / "config.yaml").write_text(settings.dump(trained))
    write_metrics(folder, {})
    write_predictions(folder, {})
    return tmp_path


def write_metrics(folder: Path, changed: dict[str, Any]) -> None:
    (folder / "metrics.json").write_text(json.dumps({**ORIGIN, "auc": 0.5, **changed}))


def write_predictions(folder: Path, changed: dict[str, Any]) -> None:
    columns = {"index": np.arange(COUNT)[::-1], "logit": np.linspace(0, 1, COUNT), **changed}
    present = {name: values for name, values in columns.items() if values is not None}
    pq.write_table(pa.table(present), folder / "predictions.parquet")


def compare(run: Path) -> np.ndarray:
    """Compare a perfect ranking with that of the run, and return the curve's lenses."""
    comparison = read_comparison(run, run / "evaluation", ORIGIN)
    labels = np.arange(COUNT) % 2
    comparison.compare(labels, labels + 0.5)
    assert comparison.difference is not None
    return comparison.difference.difference


def test_a_sound_evaluation_is_compared_row_by_row(evaluated: Path) -> None:
    assert 0 < compare(evaluated) < 1


def test_rows_of_a_group_are_compared_as_one(evaluated: Path) -> None:
    labels = np.arange(COUNT) // (COUNT // 2)
    logits = labels + np.random.default_rng(0).normal(size=COUNT)

    def width(groups: np.ndarray | None) -> float:
        comparison = read_comparison(evaluated, evaluated / "evaluation", ORIGIN)
        # A row without a label counts in nothing.
        comparison.compare(np.where(np.arange(COUNT) == 3, -1, labels), logits, groups)
        assert comparison.difference is not None
        assert str(comparison).endswith("(paired test)")
        return float(np.ptp(comparison.difference.ci95))

    assert width(np.arange(COUNT) // 4) > 1.2 * width(None)


@pytest.mark.parametrize(
    "content",
    ["", "null", "[1]", "{", "\0", "[" * 100_000, '{"auc": "high"}', '{"auc": [1]}', b"\xff"],
)
def test_damaged_metrics_are_told_by_their_name(evaluated: Path, content: str | bytes) -> None:
    file = evaluated / "evaluation" / "metrics.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=r"metrics.json: is damaged \(.*evaluate that run again"):
        compare(evaluated)


DAMAGE = {
    "a row twice": {"index": np.zeros(COUNT, int)},
    "a row of elsewhere": {"index": np.arange(COUNT) + 1},
    "a row before all": {"index": np.arange(COUNT) - 1},
    "no index": {"index": None},
    "texts": {"logit": ["high"] * COUNT},
    "NaN": {"logit": np.full(COUNT, np.nan)},
    "fewer rows": {"index": np.arange(3), "logit": np.zeros(3)},
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_predictions_that_are_not_those_of_each_row_are_told(
    evaluated: Path, damage: dict[str, Any]
) -> None:
    write_predictions(evaluated / "evaluation", damage)
    with pytest.raises(UserError, match=r"predictions.parquet: is damaged"):
        compare(evaluated)


@pytest.mark.parametrize("kept", [None, 0, 10, 0.5, 0.99])
def test_predictions_that_are_cut_are_told_before_anything_is_scored(
    evaluated: Path, kept: float | None
) -> None:
    file = evaluated / "evaluation" / "predictions.parquet"
    content = file.read_bytes()
    file.unlink()
    if kept is not None:
        file.write_bytes(content[: int(kept if kept > 1 else kept * len(content))])
    with pytest.raises(UserError, match=r"predictions.parquet: is damaged"):
        read_comparison(evaluated, evaluated / "evaluation", ORIGIN)


def test_predictions_with_any_damaged_byte_are_compared_or_told(evaluated: Path) -> None:
    file = evaluated / "evaluation" / "predictions.parquet"
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(content), 100):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        with suppress(UserError):
            compare(evaluated)
