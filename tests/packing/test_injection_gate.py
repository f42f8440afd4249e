"""The gate refuses arcs that are not like known lenses, and says what it could not compare."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_hpc.errors import UserError
from lens_hpc.packing.injection_gate import FEWEST_KNOWN, judge, quantities, read_known

BANDS = ("i", "g")
FILE = Path("known.csv")


def lenses(count: int, seed: int = 0, brighter: float = 1.0) -> pd.DataFrame:
    """Lenses with arcs that are brighter than usual by a factor."""
    rng = np.random.default_rng(seed)
    columns = {"einstein_radius": rng.uniform(0.6, 2.0, count)}
    for band in BANDS:
        columns[f"seeing_{band}"] = rng.uniform(0.6, 0.9, count)
        columns[f"arc_snr_{band}"] = brighter * rng.lognormal(3, 0.5, count)
        columns[f"arc_to_host_{band}"] = brighter * rng.lognormal(-2, 0.5, count)
        columns[f"arc_mag_{band}"] = 22 - 2.5 * np.log10(brighter) + rng.normal(0, 0.3, count)
    return pd.DataFrame(columns)


def test_arcs_of_the_same_law_pass_in_all_quantities() -> None:
    gate = judge(lenses(500), lenses(200, seed=1), BANDS)
    assert gate.problems() == []
    assert gate.lines()[0] == "8 of 8 quantities compared with known lenses"
    assert len(gate.lines()) == 9
    gate.enforce(FILE, "refuse")


def test_arcs_a_hundred_times_too_bright_are_refused_by_all_that_is_wrong() -> None:
    gate = judge(lenses(500, brighter=100), lenses(200, seed=1), BANDS)
    with pytest.raises(UserError, match="not like the lenses of known") as error:
        gate.enforce(FILE, "refuse")
    message = str(error.value)
    for what in ("S/N of the arc", "flux of arc / host"):
        assert all(f"{what}, {band}: painted median" in message for band in BANDS)
    assert "colour" not in message
    assert "Einstein" not in message
    assert "gate=warn" in message


def test_a_warning_is_enough_where_the_user_wants_it(caplog: pytest.LogCaptureFixture) -> None:
    gate = judge(lenses(500, brighter=100), lenses(200, seed=1), BANDS)
    gate.enforce(FILE, "warn")
    assert "painted arcs are not like the lenses of known.csv" in caplog.text


@given(shift=st.floats(-3, 3), seed=st.integers(0, 99))
def test_the_median_must_lie_within_5_to_95_percent(shift: float, seed: int) -> None:
    known = np.random.default_rng(seed).normal(size=101)
    painted = pd.DataFrame({"einstein_radius": [shift - 9, shift, shift + 9]})
    gate = judge(painted, pd.DataFrame({"einstein_radius": known}), BANDS)
    is_outside = shift < np.quantile(known, 0.05) or shift > np.quantile(known, 0.95)
    assert bool(gate.problems()) == is_outside


def test_colours_and_ratios_are_of_each_lens_and_from_blue_to_red() -> None:
    truth = lenses(3)
    found = {quantity.title: quantity.of(truth) for quantity in quantities(BANDS)}
    colour = truth["arc_mag_g"] - truth["arc_mag_i"]
    np.testing.assert_array_equal(found["colour of the arc, g - i"], colour)
    ratio = truth["einstein_radius"] / truth["seeing_i"]
    np.testing.assert_array_equal(found["Einstein radius / seeing, i"], ratio)


def test_without_a_list_it_says_that_nothing_was_compared() -> None:
    gate = judge(lenses(50, brighter=100), None, BANDS)
    assert gate.problems() == []
    assert gate.lines()[0].startswith("compared with nothing: no list of known lenses")
    assert len(gate.lines()) == 9
    gate.enforce(FILE, "refuse")


def test_quantities_that_few_known_lenses_have_are_said_not_to_be_compared() -> None:
    known = lenses(200, seed=1)[["einstein_radius", "arc_snr_g"]]
    known.loc[FEWEST_KNOWN - 1 :, "arc_snr_g"] = np.nan
    gate = judge(lenses(500, brighter=100), known, BANDS)
    assert gate.problems() == []
    lines = {line.partition(":")[0]: line for line in gate.lines()}
    assert "19 known lenses, 20 needed" in lines["S/N of the arc, g"]
    assert "not compared: no known lens has it" in lines["S/N of the arc, i"]
    assert "of 200 known" in lines["Einstein radius"]

    known.loc[FEWEST_KNOWN - 1, "arc_snr_g"] = 20
    assert len(judge(lenses(500, brighter=100), known, BANDS).problems()) == 1


def test_values_that_are_not_finite_do_not_count() -> None:
    truth = lenses(100)
    truth.loc[:59, "arc_snr_g"] = np.nan
    truth.loc[:59, "seeing_g"] = 0
    truth.loc[:59, "arc_mag_g"] = np.inf
    gate = judge(truth, lenses(200, seed=1), BANDS)
    assert all(np.isfinite(verdict.painted).all() for verdict in gate.verdicts)
    assert gate.problems() == []


def test_a_gate_goes_from_process_to_process() -> None:
    gate = judge(lenses(50), lenses(30), BANDS)
    assert pickle.loads(pickle.dumps(gate)).lines() == gate.lines()


# ---- the list of known lenses ----


def test_only_columns_that_the_truth_has_are_read(tmp_path: Path) -> None:
    file = tmp_path / "known.csv"
    file.write_text("name,einstein_radius,arc_snr_g,z\nA,1.2,,0.3\nB,0.9,17,x\n")
    known = read_known(file, BANDS)
    assert sorted(known.columns) == ["arc_snr_g", "einstein_radius"]
    np.testing.assert_array_equal(known["einstein_radius"], [1.2, 0.9])
    np.testing.assert_array_equal(known["arc_snr_g"], [np.nan, 17])


def test_a_list_in_parquet_is_read(tmp_path: Path) -> None:
    lenses(30).to_parquet(tmp_path / "known.parquet")
    known = read_known(tmp_path / "known.parquet", BANDS)
    pd.testing.assert_frame_equal(known[lenses(30).columns.tolist()], lenses(30))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,theta_E\nA,1.2\n", "no value to compare.*its columns are name, theta_E.*einstein_"),
        ("name,einstein_radius\nA,\n", "no value to compare"),
        ("name,seeing_g\nA,0.7\n", "no value to compare"),
        ("name,einstein_radius\nA,1.2\nB,wide\n", "einstein_radius of row 2 is no number: wide"),
    ],
)
def test_a_list_that_says_nothing_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "known.csv").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_known(tmp_path / "known.csv", BANDS)
    assert "known.csv" in str(error.value)


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"known\.fits"):
        read_known(tmp_path / "known.fits", BANDS)
