from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from lens_hpc.reporting.breakdown import make_column
from lens_hpc.selection.cells import (
    Found,
    judge_arcs,
    make_curve,
    make_map,
    maps_by,
)
from lens_hpc.selection.grid import TrialGrid, Trials, draw_trials

SURVEYS = 1000
GRID = TrialGrid((0.5, 1.0, 1.5, 2.5), (22.0, 23.0, 24.0, 25.0, 26.0))
HOSTS, TRIALS = 60, 24


def probability(radius: np.ndarray, magnitude: np.ndarray, host: np.ndarray) -> np.ndarray:
    """Return with which probability a lens is found: some hosts hide every arc, some show it."""
    return expit(4 * (radius - 1.2) - 1.5 * (magnitude - 24) + 2 * host)


def true_fractions() -> np.ndarray:
    """Return the mean probability in each cell, over all hosts that there could be."""
    rng = np.random.default_rng(0)
    host = rng.normal(size=200_000)
    means = []
    for radii in pairwise(GRID.einstein_radius):
        for magnitudes in pairwise(GRID.source_magnitude):
            radius, magnitude = rng.uniform(*radii, len(host)), rng.uniform(*magnitudes, len(host))
            means.append(probability(radius, magnitude, host).mean())
    return np.reshape(means, GRID.shape)


def observe(trials: Trials, rng: np.random.Generator) -> pd.DataFrame:
    """Return the trials of one survey, whose hosts are other galaxies than those of another."""
    host = rng.normal(size=HOSTS)[trials.host]
    chance = probability(trials.einstein_radius, trials.source_magnitude, host)
    table = pd.DataFrame(trials._asdict())
    return table.assign(found=rng.random(len(table)) < chance)


@pytest.mark.slow
def test_intervals_hold_the_truth_in_95_percent_of_surveys() -> None:
    truth = true_fractions()
    holds = np.zeros(GRID.shape)
    for survey in range(SURVEYS):
        trials = draw_trials(GRID, HOSTS, TRIALS, seed=survey)
        found = make_map(GRID, observe(trials, np.random.default_rng([1, survey])))
        intervals = np.array([[cell.ci95 for cell in row] for row in found.cells])
        holds += (intervals[:, :, 0] <= truth) & (truth <= intervals[:, :, 1])

    coverage = holds / SURVEYS
    assert coverage.min() >= 0.93
    is_middle = (truth >= 0.1) & (truth <= 0.9)
    assert is_middle.sum() >= 6
    assert 0.93 <= coverage[is_middle].mean() <= 0.97


def table_of(cells: list[tuple[int, int, bool]]) -> pd.DataFrame:
    return pd.DataFrame(cells, columns=["radius_cell", "magnitude_cell", "found"])


def test_a_map_counts_what_is_found_in_each_cell() -> None:
    grid = TrialGrid((0.5, 1.0, 2.0), (22.0, 23.0))
    trials = table_of([(0, 0, True), (0, 0, False), (1, 0, True)] + 19 * [(1, 0, True)])
    drawn = make_map(grid, trials)
    assert drawn.cells == [[Found(2, 1)], [Found(20, 20)]]

    rows = list(drawn.rows())
    assert rows[0]["fraction"] == 0.5
    assert rows[0]["few_trials"]
    assert not rows[1]["few_trials"]
    assert (rows[1]["einstein_radius_low"], rows[1]["einstein_radius_high"]) == (1.0, 2.0)
    assert rows[1]["ci95_low"] == pytest.approx(0.8398, abs=1e-3)


def test_a_cell_without_trials_has_no_fraction() -> None:
    drawn = make_map(TrialGrid((0.5, 1.0, 2.0), (22.0, 23.0)), table_of([(0, 0, True)]))
    assert np.isnan(drawn.fractions[1, 0])
    row = list(drawn.rows())[1]
    assert row["fraction"] is None
    assert (row["ci95_low"], row["ci95_high"]) == (0.0, 1.0)


def test_a_third_axis_divides_the_trials() -> None:
    grid = TrialGrid((0.5, 1.0), (22.0, 23.0))
    trials = table_of([(0, 0, True), (0, 0, False), (0, 0, True)])
    maps = maps_by(grid, trials, "field", make_column(pd.Series(["a", "b", "a"])))
    assert [(one.title, one.cells[0][0]) for one in maps] == [
        ("field a", Found(2, 2)),
        ("field b", Found(1, 0)),
    ]


def test_a_curve_has_bins_of_equal_count_and_leaves_out_what_is_unknown() -> None:
    values = np.append(np.arange(100.0), np.nan)
    curve = make_curve(values, values > 49)
    assert [point.found.trials for point in curve] == [20] * 5
    assert [point.found.found for point in curve] == [0, 0, 10, 20, 20]
    assert curve[0].middle == 9.5
    assert make_curve(np.arange(19.0), np.ones(19, dtype=bool)) == []


def test_without_the_arc_those_found_are_lost_or_not() -> None:
    trials = pd.DataFrame(
        {
            "found": [True, True, True, False],
            "logit_host": [-1.0, -1.0, 3.0, -1.0],
            "logit_hidden": [-1.0, 2.0, np.nan, 5.0],
            "logit_control": [2.0, np.nan, np.nan, 5.0],
            "attention_arc": [2.0, np.nan, np.nan, 4.0],
            "attention_control": [1.0, np.nan, np.nan, 1.0],
        }
    )
    arcs = judge_arcs(trials, threshold=1.0)
    assert arcs.found == Found(4, 3)
    assert arcs.without == Found(3, 2)
    # Only what was tried both ways is compared.
    assert (arcs.hidden, arcs.control) == (Found(1, 1), Found(1, 0))
    assert arcs.attention_arc == 3.0
    assert not arcs.are_found_without
    assert judge_arcs(trials, threshold=-2.0).are_found_without
