"""Datasets of folds: each row validates once, groups stay whole, the test split is left out."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.errors import UserError
from lens_hpc.sweeping.folds import write_folds
from tests.conftest import pack_survey, write_survey
from tests.kills import files_of

FOLDS = 3


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset in groups of four rows."""
    folder = tmp_path_factory.mktemp("grouped")
    survey = write_survey(folder / "s", rows=600, field=[f"f{row // 4}" for row in range(600)])
    columns = "columns={id: id, label: is_lens, features: [radius, colour], group: field}"
    return pack_survey(survey, folder / "d", columns)


def rows_of(dataset: Path, split: str) -> dict[bytes, tuple[object, ...]]:
    """Return all that is known of each row, by its id."""
    reader = Dataset(dataset)[split]
    rows = np.arange(len(reader))
    names = ("ids", "images", "features", "labels", "groups", "sources", "targets", "weights")
    columns = [reader.take(name, rows) for name in names]
    values = [[value.tobytes() for value in column] for column in columns]
    return {name: tuple(rest) for name, *rest in zip(*values, strict=True)}


def groups_of(dataset: Path, split: str) -> set[bytes]:
    reader = Dataset(dataset)[split]
    return set(reader.take("groups", np.arange(len(reader))).tolist())


def test_each_row_validates_once_as_it_is(grouped: Path, tmp_path: Path) -> None:
    folds = write_folds(grouped, tmp_path / "folds", FOLDS, seed=1)
    everything = rows_of(grouped, "train") | rows_of(grouped, "val")
    validated: dict[bytes, tuple[object, ...]] = {}
    for fold in folds:
        assert [*Dataset(fold)] == ["train", "val"]
        train, val = rows_of(fold, "train"), rows_of(fold, "val")
        assert not set(train) & set(val)
        assert {**train, **val} == everything
        assert not set(val) & set(validated)
        validated |= val

        assert not groups_of(fold, "train") & groups_of(fold, "val")
        assert abs(len(val) / len(everything) - 1 / FOLDS) < 0.05
        Dataset(fold)["train"].check_blocks(np.arange(len(train)))
    assert validated == everything


def test_what_is_there_is_kept_and_what_is_not_is_the_same_again(
    grouped: Path, tmp_path: Path
) -> None:
    first, second = write_folds(grouped, tmp_path / "folds", 2, seed=1)
    inode = first.stat().st_ino
    before = files_of(second)
    shutil.rmtree(second)
    write_folds(grouped, tmp_path / "folds", 2, seed=1)
    assert first.stat().st_ino == inode
    assert files_of(second) == before


def test_too_many_folds_are_refused(packed_once: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"folds = 100: .* use fewer folds"):
        write_folds(packed_once, tmp_path / "folds", 100, seed=0)
    assert [*tmp_path.glob("folds/*")] == []
