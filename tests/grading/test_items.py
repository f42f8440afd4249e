import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.grading import items
from lens_hpc.grading.grading_folder import Grading
from lens_hpc.grading.items import COLUMNS, candidate_items, is_shown, make_items
from tests.conftest import pack_survey, write_survey


def plain_items(split: Split, count: int, shown: tuple[str, ...] = ()) -> pd.DataFrame:
    """The first candidates without anything hidden."""
    chosen = candidate_items(split, np.arange(count), np.full(count, "top"), np.ones(count))
    return make_items(chosen, {}, 0.1, shown, seed=0)


def test_each_item_is_a_row_of_its_dataset(grading_once: Grading) -> None:
    table = grading_once.items
    assert list(table) == list(COLUMNS)
    assert table["item"].tolist() == [f"i{n:06d}" for n in range(50)]
    assert table["kind"].value_counts().to_dict() == {"candidate": 40, "known": 5, "ordinary": 5}
    for item in table.itertuples():
        sample = Split(item.dataset, item.split)[item.row]
        assert sample.id == item.id
        assert pd.isna(item.truth) if item.kind == "candidate" else sample.label == item.truth


def test_candidates_have_what_was_kept_beside_them(grading_once: Grading) -> None:
    table = grading_once.items
    candidates = table[table["kind"] == "candidate"]
    numbers = candidates["id"].str.removeprefix("obj").astype(float)
    np.testing.assert_allclose(candidates["ra"], 0.1 * numbers)
    np.testing.assert_allclose(candidates["dec"], 1)
    np.testing.assert_allclose(candidates["score"], 9 - 0.1 * numbers)
    np.testing.assert_allclose(candidates["probability"], 0.5)
    assert (candidates["drawn"] == np.where(numbers >= 30, "random", "top")).all()
    np.testing.assert_allclose(
        candidates["inclusion_probability"], np.where(numbers >= 30, 0.2, 1.0)
    )

    hidden = table[table["kind"] != "candidate"]
    unknown = ["score", "probability", "ra", "dec", "drawn", "inclusion_probability"]
    assert hidden[unknown].isna().all(axis=None)


def test_a_place_tells_nothing_of_what_was_drawn_by_chance() -> None:
    drawn = pd.Series(["top"] * 60 + ["random"] * 30 + [None] * 10)
    places = np.array(
        [np.argsort(items._order(drawn, np.random.default_rng(n))) for n in range(300)]
    )
    # The top keeps its order.
    assert (np.diff(places[:, :60]) > 0).all()
    # The mean place of the others is that of the middle: 5 standard deviations of a uniform one.
    limit = 5 * 100 / np.sqrt(12 * 300)
    np.testing.assert_array_less(abs(places[:, 60:].mean(axis=0) - 49.5), limit)


@pytest.fixture(scope="module")
def classed(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Four candidates with a class, of which one is a script."""
    folder = tmp_path_factory.mktemp("classed")
    classes = ["<script>alert(1)</script>", "", "ring", "é"]
    survey = write_survey(folder / "s", rows=4, kind=classes, ra=[*"1234"], dec=[*"1234"])
    settings = ("splits={candidates: 1.0}", "columns.keep=[kind, ra, dec]")
    return Split(pack_survey(survey, folder / "d", *settings), "candidates")


def test_shown_columns_are_json(classed: Split) -> None:
    table = plain_items(classed, 4, ("kind",))
    kept = classed.kept_columns()["kind"]
    told = [json.loads(text) for text in table["columns"]]
    assert told == [{"kind": None if pd.isna(value) else value} for value in kept]
    assert {"kind": "<script>alert(1)</script>"} in told
    assert set(plain_items(classed, 4)["columns"]) == {"{}"}


def test_a_column_that_cannot_be_shown_is_refused(classed: Split, packed_once: Path) -> None:
    # Positions and scores are no columns: they are shown as such.
    with pytest.raises(
        UserError, match="show: the candidates have no column 'ra'; they have: kind"
    ):
        plain_items(classed, 3, ("ra",))

    chosen = candidate_items(classed, np.arange(3), np.full(3, "top"), np.ones(3))
    hidden = {"known": Dataset(packed_once)}
    with pytest.raises(UserError, match="show: 'kind' would tell what is hidden, as not all of"):
        make_items(chosen, hidden, 0.4, ("kind",), seed=0)


VALUES = st.one_of(st.none(), st.floats(), st.integers(), st.text(), st.booleans())


@example([{"a": float("inf"), "<b>": float("nan")}])
@given(st.lists(st.fixed_dictionaries({"a": VALUES, "<b>": VALUES}), min_size=1, max_size=5))
@settings(max_examples=40)
def test_every_value_becomes_json(rows: list[dict[str, object]]) -> None:
    table = pd.DataFrame(rows, dtype=object)
    for text, row in zip(items._as_json(table), rows, strict=True):
        read = json.loads(text, parse_constant=lambda name: pytest.fail(name))
        assert set(read) == set(row)
        for name, value in row.items():
            is_infinite = isinstance(value, float) and np.isinf(value)
            expected = str(value) if is_infinite else value
            assert read[name] == (None if pd.isna(value) else expected)


def test_nothing_is_shown_that_a_hidden_item_lacks() -> None:
    is_hidden = np.array([False, True, False, True])
    assert is_shown(pd.Series([None, 1, 2, 3.0]), is_hidden)
    assert not is_shown(pd.Series([1, 1, 2, None]), is_hidden)
    assert not is_shown(pd.Series([None, None], dtype=float), np.array([False, False]))
