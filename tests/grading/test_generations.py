"""Graded candidates join what is trained on, and nothing that is frozen is ever among them."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.dataset.manifest import Manifest
from lens_hpc.dataset.shards import RowBlock, encode_texts
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.grading.generations import make_generation
from lens_hpc.packing.derived import SplitRows, write_dataset
from lens_hpc.packing.describing import DatasetFacts
from tests.conftest import call, pack_survey, write_survey

ROWS = 600
CANDIDATES = 40
FAR = 100.0
"""Degrees from the survey to the candidates."""


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A dataset of 400 training rows in two blocks, with positions and a class beside them."""
    folder = tmp_path_factory.mktemp("parent")
    columns = {
        "RA_deg": [f"{row / 10:.2f}" for row in range(ROWS)],
        "DEC_deg": ["-5.0"] * ROWS,
        "class": ["E", "S"] * (ROWS // 2),
        "part": (["train"] * 4 + ["val", "test"]) * (ROWS // 6),
        "field": [f"f{row // 6}{'abcdef'[row % 6]}" for row in range(ROWS)],
    }
    survey = write_survey(folder / "s", rows=ROWS, **columns)
    kept = "columns.keep=[RA_deg, DEC_deg, class]"
    zero_point = "zero_point={g: 27, r: 27}"
    settings = "columns.split=part", "columns.group=field", kept, zero_point
    return Dataset(pack_survey(survey, folder / "d", *settings))


def write_candidates(folder: Path, manifest: Manifest, **changes: Any) -> Split:
    """Write candidates that are like the rows of a dataset, and none of them."""
    rng = np.random.default_rng(1)
    facts = {field.name: getattr(manifest, field.name) for field in fields(DatasetFacts)}
    facts |= {"recipe": {"candidates": {"models": [{"crc32": "01234567"}]}}} | changes
    # In another order than the dataset has them, and with another one.
    facts["features"] = changes.get("features", ("other", *manifest.features[::-1]))
    made = DatasetFacts(**facts)

    shape = (CANDIDATES, len(made.bands), made.height, made.width)
    names = [f"candidate-{number:02}" for number in range(CANDIDATES)]
    block = RowBlock(
        images=rng.normal(size=shape).astype(made.dtype),
        features=rng.normal(size=(CANDIDATES, len(made.features))).astype(np.float32),
        labels=np.full(CANDIDATES, -1, np.int8),
        ids=encode_texts(np.array(names)),
        groups=encode_texts(np.full(CANDIDATES, "")),
        sources=encode_texts(np.full(CANDIDATES, "survey float32 8x8")),
    )
    kept = {
        "id": names,
        "rank": np.arange(1, CANDIDATES + 1),
        "ra": FAR + np.arange(CANDIDATES) / 10,
        "dec": np.full(CANDIDATES, 5.0),
        "class": ["ring"] * CANDIDATES,
    }
    splits = {"candidates": SplitRows(CANDIDATES, [block])}
    write_dataset(folder, made, splits, kept=pa.table(kept))
    return Split(folder, "candidates")


def graded(split: Split) -> pd.DataFrame:
    """Grades of all: A, B, X, and none in turn."""
    number = np.arange(len(split)) % 4
    return pd.DataFrame(
        {
            "id": split.ids(),
            "other_ids": [()] * len(split),
            "label": np.array([1, 1, 0, -1])[number],
            "target": np.array([1.0, 0.7, 0.0, np.nan])[number],
            "weight": np.array([1.0, 1.0, 2.0, 1.0])[number],
        }
    )


@pytest.fixture
def candidates(tmp_path: Path, parent: Dataset) -> Split:
    return write_candidates(tmp_path / "candidates", parent.manifest)


def test_graded_candidates_lie_among_the_training_rows(
    parent: Dataset, candidates: Split, tmp_path: Path
) -> None:
    table = graded(candidates)
    record = make_generation(parent.path, table, candidates, tmp_path / "d")
    made = Dataset(tmp_path / "d")
    call("verify", tmp_path / "d")

    train, before = made["train"], parent["train"]
    is_added = np.char.startswith(train.ids(), "candidate")
    assert is_added.sum() == 30
    assert 0 < is_added[:250].sum() < 30
    old = np.flatnonzero(~is_added)
    for name in ("images", "features", "labels", "targets", "weights"):
        np.testing.assert_array_equal(train.take(name, old), before.take(name, np.arange(400)))
    for name in ("ids", "groups", "sources"):
        assert train.texts(name, old).tolist() == before.texts(name).tolist()

    given = table.set_index("id")
    row_there = {name: row for row, name in enumerate(candidates.ids().tolist())}
    for row in np.flatnonzero(is_added):
        sample, there = train[int(row)], candidates[row_there[train.ids()[row]]]
        np.testing.assert_array_equal(sample.image, there.image)
        np.testing.assert_array_equal(sample.features, there.features[[2, 1]])
        expected = given.loc[sample.id]
        assert sample.label == expected["label"]
        assert sample.target == np.float32(expected["target"])
        assert sample.weight == expected["weight"]
        assert sample.group == sample.id

    for name in ("val", "test"):
        assert made[name].ids().tolist() == parent[name].ids().tolist()
        np.testing.assert_array_equal(made[name][:].images, parent[name][:].images)
    assert made.manifest.recipe["generations"] == [json.loads(json.dumps(record))]


def test_positions_and_columns_of_the_same_kind_lie_beside_them(
    parent: Dataset, candidates: Split, tmp_path: Path
) -> None:
    make_generation(parent.path, graded(candidates), candidates, tmp_path / "d")
    kept = Dataset(tmp_path / "d")["train"].kept_columns()
    assert [*kept] == ["RA_deg", "DEC_deg", "class"]
    added = kept[kept.index.str.startswith("candidate")]
    assert added.loc["candidate-05"].tolist() == [FAR + 0.5, 5.0, "ring"]
    old = kept[~kept.index.str.startswith("candidate")]
    pd.testing.assert_frame_equal(old, parent["train"].kept_columns())


def test_a_second_generation_knows_the_first(
    parent: Dataset, candidates: Split, tmp_path: Path
) -> None:
    table = graded(candidates)
    few = table.iloc[:20]
    make_generation(parent.path, few, candidates, tmp_path / "first")
    record = make_generation(tmp_path / "first", table, candidates, tmp_path / "second")
    assert record["number"] == 2
    assert record["left_out"] == {
        "without_a_grade": 10,
        "in_train_already": 15,
        "in_a_frozen_split": 0,
    }
    first, second = (Dataset(tmp_path / name).manifest for name in ("first", "second"))
    assert second.recipe["generations"][0] == first.recipe["generations"][0]
    assert [len(first.recipe["generations"]), len(second.recipe["generations"])] == [1, 2]
    assert second.splits["train"].rows == 430
    assert record["candidates"]["models"] == [{"crc32": "01234567"}]


# ---- what is frozen ----


def with_frozen(parent: Dataset, folder: Path, way: str, split: str) -> Split:
    """Candidates of which number 2 is a row of a split, known again by one way alone."""
    write_candidates(folder, parent.manifest)
    there = parent[split]
    candidates = Dataset(folder)["candidates"]
    block = {
        name: candidates.take(name, np.arange(CANDIDATES))
        for name in ("images", "features", "labels", "groups", "sources")
    }
    names, kept = candidates.ids().tolist(), candidates.kept_columns()
    if way == "id":
        names[2] = str(there.ids()[7])
    elif way == "pixels":
        block["images"][2] = there.take("images", np.array([7]))[0]
    else:
        beside = there.kept_columns().iloc[7]
        kept["ra"] = kept["ra"].where(np.arange(CANDIDATES) != 2, beside["RA_deg"] + 1.9 / 3600)
        kept["dec"] = kept["dec"].where(np.arange(CANDIDATES) != 2, beside["DEC_deg"])

    facts = {name.name: getattr(candidates.manifest, name.name) for name in fields(DatasetFacts)}
    rows = RowBlock(ids=encode_texts(np.array(names)), **block)
    table = pa.Table.from_pandas(kept, preserve_index=False).add_column(0, "id", pa.array(names))
    splits = {"candidates": SplitRows(CANDIDATES, [rows])}
    write_dataset(folder, DatasetFacts(**facts), splits, table, replacing=True)
    return Split(folder, "candidates")


@pytest.mark.slow
@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("way", ["id", "pixels", "position"])
def test_what_is_frozen_is_refused_or_left_out(
    parent: Dataset, tmp_path: Path, way: str, split: str
) -> None:
    candidates = with_frozen(parent, tmp_path / "c", way, split)
    name = candidates.ids()[2]
    with pytest.raises(UserError, match=rf"1 graded .* position: {name} \({split}\)\. Were"):
        make_generation(parent.path, graded(candidates), candidates, tmp_path / "d")
    assert not (tmp_path / "d").exists()

    output = tmp_path / "d"
    record = make_generation(parent.path, graded(candidates), candidates, output, "leave_out")
    assert record["left_out"]["in_a_frozen_split"] == 1
    train = Dataset(output)["train"].ids()
    assert len(train) == 429
    assert name not in train


@pytest.mark.parametrize("way", ["id", "pixels"])
def test_an_object_of_which_another_candidate_is_frozen_is_refused(
    parent: Dataset, tmp_path: Path, way: str
) -> None:
    candidates = with_frozen(parent, tmp_path / "c", way, "test")
    first, _, twin = candidates.ids()[:3]
    others = [(twin,), *[()] * (len(candidates) - 1)]
    table = graded(candidates).assign(other_ids=others).drop(index=2)
    with pytest.raises(UserError, match=rf"1 graded .* position: {first} \(test\)\. Were"):
        make_generation(parent.path, table, candidates, tmp_path / "d")


@pytest.mark.parametrize("way", ["id", "pixels", "position"])
def test_what_is_trained_on_keeps_its_label(parent: Dataset, tmp_path: Path, way: str) -> None:
    candidates = with_frozen(parent, tmp_path / "c", way, "train")
    record = make_generation(parent.path, graded(candidates), candidates, tmp_path / "d")
    assert record["left_out"]["in_train_already"] == 1
    made = Dataset(tmp_path / "d")["train"]
    [row] = np.flatnonzero(made.ids() == parent["train"].ids()[7])
    assert made[int(row)].label == parent["train"][7].label


def test_without_positions_it_is_said(
    parent: Dataset, candidates: Split, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_generation(parent.path, graded(candidates), candidates, tmp_path / "first")
    assert "by their ids and pixels alone" not in caplog.text
    bare = pack_survey(write_survey(tmp_path / "s"), tmp_path / "bare")
    make_generation(bare, graded(candidates), candidates, tmp_path / "d")
    assert "by their ids and pixels alone; keep ra and dec" in caplog.text
    kept = Dataset(tmp_path / "d")["train"].kept_columns()
    assert kept["ra"].notna().sum() == 30


# ---- what does not fit ----


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"bands": ("r", "g")}, "bands r, g, not g, r"),
        ({"height": 9}, "size 9 x 8 px, not 8 x 8 px"),
        ({"dtype": "float16"}, "pixels in float16, not float32"),
        ({"zero_point": {"g": 25.0, "r": 27.0}}, "a zero point of 25 in g, not 27"),
        ({"units": "nJy"}, "units nJy, not counts"),
        ({"pixel_scale_arcsec": 0.25}, "pixels of 0.25 arcsec, not 0.2"),
        ({"features": ("radius",)}, "no features colour"),
    ],
)
def test_candidates_of_another_kind_are_refused(
    parent: Dataset, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    candidates = write_candidates(tmp_path / "c", parent.manifest, **changes)
    with pytest.raises(UserError, match=f"cannot join .*{told}.*predict by a recipe like"):
        make_generation(parent.path, graded(candidates), candidates, tmp_path / "d")


def test_grades_of_others_and_no_grades_are_refused(
    parent: Dataset, candidates: Split, tmp_path: Path
) -> None:
    table = graded(candidates)
    with pytest.raises(UserError, match="has no candidate 'stranger', which was graded"):
        strangers = table.assign(id=["stranger", *table["id"][1:]])
        make_generation(parent.path, strangers, candidates, tmp_path / "d")
    with pytest.raises(UserError, match="none of 40 candidates can be added"):
        make_generation(parent.path, table.assign(label=-1), candidates, tmp_path / "d")
    assert not (tmp_path / "d").exists()
