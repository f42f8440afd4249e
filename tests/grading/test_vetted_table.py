"""The list has each candidate once, the best first, and nothing that was hidden among them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lens_hpc.grading.combine_settings import Contaminants, Targets
from lens_hpc.grading.vetted_table import (
    COLUMNS,
    add_training,
    as_list,
    join_duplicates,
    rank_candidates,
)
from lens_hpc.reporting.recovery import KnownLenses
from tests.grading.graded_items import combine, make_items

ARCSEC = 1 / 3600
NO_TEXT = {"known": "", "known_name": "", "duplicates": ""}


def move(items: pd.DataFrame, number: int, beside: int, arcsec: float) -> None:
    """Put an item so far north of another one."""
    items.loc[number, ["ra", "dec"]] = items.loc[beside, "ra"], 10.0 + arcsec * ARCSEC


def test_the_best_come_first_and_the_ungraded_last() -> None:
    """Of equal grades, the higher posterior and then the higher score."""
    means = {3: 3.0, 4: 2.0, 1: 2.0, 0: 2.0, 6: 3.0, 7: 0.0, 2: 0.5}
    combined = combine(means)
    combined.loc[combined["item"] == "i000001", "swap_posterior"] = 0.9

    table = rank_candidates(make_items(candidates=6, hidden=2), combined)
    assert table["id"].tolist() == ["é3", "é1", "é0", "é4", "é2", "é5"]
    assert table["grade"].fillna("").tolist() == ["A", "B", "B", "B", "C", ""]
    assert table["n_grades"].tolist() == [2, 2, 2, 2, 2, 0]
    assert "truth" not in table


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_of_one_object_the_best_graded_is_kept(order: list[int]) -> None:
    """Each end of a chain is near to its middle alone."""
    items = make_items(candidates=4)
    first, middle, last = order
    move(items, middle, beside=first, arcsec=1.5)
    move(items, last, beside=first, arcsec=3.0)
    graded = rank_candidates(items, combine({0: 1.0, 1: 3.0, 2: 2.0}))
    table = join_duplicates(graded, None)
    assert table["id"].tolist() == ["é1", "é3"]
    assert table["duplicates"].tolist() == ["é2; é0", ""]


def test_a_lens_is_known_by_any_of_its_objects() -> None:
    items = make_items(candidates=4)
    move(items, 1, beside=0, arcsec=1.5)
    items.loc[3, ["ra", "dec"]] = np.nan
    positions = np.array([[0.0, 10 + 3.2 * ARCSEC], [90.0, 0.0]])
    known = KnownLenses(Path("known.csv"), ["near", "far"], positions)

    graded = rank_candidates(items, combine({0: 3.0, 1: 2.0, 2: 1.0}))
    table = join_duplicates(graded, known).fillna(NO_TEXT)
    assert table["id"].tolist() == ["é0", "é2", "é3"]
    assert table["known"].tolist() == ["known", "new", ""]
    assert table["known_name"].tolist() == ["near", "", ""]
    assert table["known_arcsec"][0] == pytest.approx(1.7, abs=1e-6)


def test_grades_become_labels_targets_and_weights() -> None:
    means = {0: 3.0, 1: 2.0, 2: 1.0, 3: 0.0}
    classes = {0: "ring", 2: "ring", 3: "artefact"}
    graded = rank_candidates(make_items(candidates=5), combine(means, classes))
    listed = join_duplicates(graded, None)

    table = add_training(listed, Targets(), Contaminants(ring=2.5))
    assert list(as_list(table)) == list(COLUMNS)
    assert table["rank"].tolist() == [1, 2, 3, 4, 5]
    assert table["label"].tolist() == [1, 1, 0, 0, -1]
    assert table["target"].tolist() == pytest.approx([1, 0.7, 0, 0, np.nan], nan_ok=True)
    # An Einstein ring is no ring galaxy.
    assert table["weight"].tolist() == [1, 1, 2.5, 1, 1]

    other = add_training(listed, Targets(A=0.9, X=0.1), Contaminants())
    assert other["target"].tolist()[:4] == [0.9, 0.7, 0, 0.1]
    assert (other["weight"] == 1).all()


def test_nobody_may_have_graded_or_placed_anything() -> None:
    items = make_items(candidates=3)
    items[["ra", "dec"]] = np.nan
    graded = rank_candidates(items, combine({}))
    table = add_training(join_duplicates(graded, None), Targets(), Contaminants())
    assert table["label"].tolist() == [-1, -1, -1]
    assert table["target"].isna().all()
    # A null is a text that is not known, and no number.
    assert as_list(table)["class"].dtype == as_list(table)["known"].dtype == "string"
