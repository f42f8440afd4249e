import csv
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from scipy.stats import binomtest

from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.metrics import ScoredSample
from lens_hpc.reporting.recovery import (
    KnownLenses,
    Recovery,
    find_known_lenses,
    read_known_lenses,
    split_positions,
)
from lens_hpc.scoring.predictions import Scores
from tests.conftest import pack_survey, write_survey

ARCSEC = 1 / 3600
ROWS = 1000
# As in lenscat/data/catalog.csv.
LENSCAT = "name,RA [deg],DEC [deg],zlens,type,grading,ref\n"


def right_ascension(row: int) -> float:
    """Across 0 degrees, so that some are near 360."""
    return (359.99 + row / 1000) % 360


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Row i lies at right ascension 359.99 + i / 1000, and the last has no position."""
    folder = tmp_path_factory.mktemp("recovery")
    columns = {
        "ra": [f"{right_ascension(i)}" for i in range(ROWS - 1)] + [""],
        "dec": ["30.0"] * ROWS,
    }
    survey = write_survey(folder / "survey", rows=ROWS, **columns)
    recipe = survey / "recipe.yaml"
    kept = "features: [radius, colour], keep: [ra, dec]"
    recipe.write_text(recipe.read_text().replace("features: [radius, colour]", kept))
    return Split(pack_survey(survey, folder / "dataset", "splits={test: 1.0}"), "test")


def look_for(
    split: Split, known: KnownLenses, logits: np.ndarray, labelled: bool = True
) -> Recovery:
    labels = split.take("labels", np.arange(ROWS))
    sample = ScoredSample(labels, logits) if labelled else None
    labels = labels if labelled else np.full(ROWS, -1)
    return find_known_lenses(known, split, Scores(labels, logits, None), sample)


def numbers_of(split: Split) -> np.ndarray:
    """Number of each row in the catalogue: its id is objNUMBER."""
    return np.array([int(name.removeprefix("obj")) for name in split.ids()])


def lenses_at(tmp_path: Path, rows: list[int], offset_arcsec: float = 1.0) -> KnownLenses:
    lines = [
        f"L{row},{right_ascension(row)},{30 + offset_arcsec * ARCSEC},0.5,galaxy,confident,x"
        for row in rows
    ]
    file = tmp_path / "known.csv"
    file.write_text(LENSCAT + "\n".join(lines) + "\n")
    return read_known_lenses(file)


def test_known_lenses_are_found_with_their_ranks(split: Split, tmp_path: Path) -> None:
    numbers = numbers_of(split)
    known = lenses_at(tmp_path, [5, 3, 100])
    found = look_for(split, known, logits=-numbers.astype(float))
    assert (found.listed, found.called_non_lenses) == (3, 1)
    assert [lens.name for lens in found.lenses] == ["L3", "L5", "L100"]
    assert [lens.id for lens in found.lenses] == ["obj3", "obj5", "obj100"]
    assert [lens.rank for lens in found.lenses] == [4, 6, 101]
    assert [lens.label for lens in found.lenses] == [1, 1, 0]
    assert [lens.separation_arcsec for lens in found.lenses] == [1.0, 1.0, 1.0]

    top = found.shares["top_1_percent"]
    assert (top.above, top.total, top.ci95) == (2, 3, None)
    assert found.as_dict()["recovered"]["top_1_percent"]["share"] == 2 / 3
    assert found.summary == (
        "3 of the 3 of known.csv lie in this split, median rank 6 of 1,000, "
        "2 of them in the first 1% of the ranking"
    )


def test_the_share_has_its_interval(split: Split, tmp_path: Path) -> None:
    known = lenses_at(tmp_path, list(range(0, 40, 2)))
    found = look_for(split, known, logits=-numbers_of(split).astype(float))
    top = found.shares["top_1_percent"]
    assert (top.above, top.total) == (5, 20)
    np.testing.assert_allclose(top.ci95, binomtest(5, 20).proportion_ci(method="wilson"), atol=0.01)


def test_rates_are_those_that_the_non_lenses_allow(split: Split, tmp_path: Path) -> None:
    """Those of 1,000 non-lenses, of which the tenth has a score of 390."""
    logits = numbers_of(split).astype(float)
    labels = np.repeat([1, 0], [50, 1000])
    sample = ScoredSample(labels, np.append(np.full(50, 500), 400 - np.arange(1000)))
    known = lenses_at(tmp_path, [389, 390, 391, 395])
    scores = Scores(split.take("labels", np.arange(ROWS)), logits, None)
    found = find_known_lenses(known, split, scores, sample)
    assert list(found.shares) == ["top_1_percent", "fpr_1e-2"]
    assert found.shares["fpr_1e-2"].above == 2


def test_a_split_without_labels_has_ranks(split: Split, tmp_path: Path) -> None:
    known = lenses_at(tmp_path, [5])
    found = look_for(split, known, -numbers_of(split).astype(float), labelled=False)
    assert list(found.shares) == ["top_1_percent"]
    assert found.lenses[0].label == -1


def test_equal_scores_count_against_it(split: Split, tmp_path: Path) -> None:
    found = look_for(split, lenses_at(tmp_path, [5]), np.zeros(ROWS))
    assert found.lenses[0].rank == ROWS


def test_a_lens_that_is_listed_twice_counts_once(split: Split, tmp_path: Path) -> None:
    file = tmp_path / "known.csv"
    place = right_ascension(7)
    lines = [f"{name},{place},{30 + shift * ARCSEC}" for name, shift in (("A", 0.2), ("B", 1.5))]
    file.write_text("name,ra,dec\n" + "\n".join(lines) + "\n")
    known = read_known_lenses(file)
    assert known.names == ["A"]
    found = look_for(split, known, np.arange(ROWS, dtype=float))
    assert [(lens.name, lens.separation_arcsec) for lens in found.lenses] == [("A", 0.2)]


def test_of_two_rows_of_a_lens_the_nearest_counts(split: Split) -> None:
    """A list may lie between two rows, which here are 3.1 arcsec apart."""
    right = right_ascension(20) + 0.0004
    known = KnownLenses(Path("list.csv"), ["between"], np.array([[right, 30.0]]))
    found = look_for(split, known, np.arange(ROWS, dtype=float))
    assert [lens.id for lens in found.lenses] == ["obj20"]


def test_none_in_the_split_says_how_far_the_nearest_is(split: Split, tmp_path: Path) -> None:
    found = look_for(split, lenses_at(tmp_path, [5], 30.0), np.arange(ROWS, dtype=float))
    assert found.lenses == []
    assert found.shares == {}
    assert "none of the 1 of known.csv lies in this split; the nearest is 30.0 arcsec" in (
        found.summary
    )
    assert found.as_dict()["recovered"] == {}


def test_the_table_can_be_opened_by_a_spreadsheet(split: Split, tmp_path: Path) -> None:
    known = lenses_at(tmp_path, [5])
    formula = KnownLenses(known.file, ["=1+1"], known.positions)
    found = look_for(split, formula, np.arange(ROWS, dtype=float))
    found.write(tmp_path / "recovery.csv")
    header, row = csv.reader((tmp_path / "recovery.csv").read_text().splitlines())
    assert header == ["name", "id", "rank", "score", "label", "separation_arcsec"]
    assert row[:2] == ["'=1+1", "obj5"]


# ---- what can be wrong ----


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,x,y\nA,1,2\n", "has no columns of right ascension and declination.*name, x, y"),
        ("name,ra,dec\nA,00:11:12,-01:02:03\n", "no row has a position in ra and dec.*decimal"),
        ("name,ra,dec\n", "has no rows"),
    ],
)
def test_a_list_without_positions_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "known.csv"
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        read_known_lenses(file)


def test_a_list_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"known\.csv: no such catalogue"):
        read_known_lenses(tmp_path / "known.csv")


def test_rows_without_a_position_are_left_out_with_a_warning(
    split: Split, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "known.csv"
    file.write_text("ra,dec\n1,2\n,\n3,95\n")
    known = read_known_lenses(file)
    assert known.names == ["row 1"]
    with caplog.at_level(logging.WARNING):
        look_for(split, known, np.arange(ROWS, dtype=float))
    assert "known.csv: 2 rows have no position in degrees" in caplog.text


def test_a_dataset_without_positions_is_an_error(dataset: Path) -> None:
    with pytest.raises(UserError, match=r"keeps no positions .* columns\.keep"):
        split_positions(Split(dataset, "train"))


@pytest.mark.parametrize("kind", ["fits", "parquet", "vot"])
def test_a_list_may_be_any_catalogue(tmp_path: Path, kind: str) -> None:
    rows = {"Name": ["A", "B"], "RAJ2000": [10.0, 359.9], "DEJ2000": [-30.0, 89.5]}
    file = tmp_path / f"known.{kind}"
    if kind == "parquet":
        pd.DataFrame(rows).to_parquet(file)
    else:
        Table(rows).write(file, format="votable" if kind == "vot" else kind)
    known = read_known_lenses(file)
    assert known.names == ["A", "B"]
    assert known.positions.tolist() == [[10.0, -30.0], [359.9, 89.5]]
