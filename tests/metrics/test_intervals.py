import sys

import numpy as np
import pytest
from hypothesis import given
from scipy.stats import binom, binomtest

from lens_hpc import metrics
from lens_hpc.metrics import ScoredSample
from lens_hpc.reporting.results import Survey, evaluate_scores
from tests.metrics.rankings import Ranking, binormal, rankings
from tests.test_how_to import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from interval_grid import Cell, compare, coverage, truths

SEED = 16
TRIALS = 150
NORMAL_QUANTILE = 1.959963984540054


# ---- area under the ROC curve ----


@given(rankings())
def test_the_auc_s_interval_is_all_values_that_it_is_not_far_from(ranking: Ranking) -> None:
    """By trying values of t, with the variance of Newcombe 2006 as it stands there."""
    sample = ScoredSample(*ranking)
    area, variance = metrics.delong(sample.curve)
    m, n = int(sample.curve.lenses), int(sample.curve.non_lenses)
    size = (m + n) / 2

    def supposed(t: np.ndarray) -> np.ndarray:
        return t * (1 - t) / (m * n) * (1 + (size - 1) * ((1 - t) / (2 - t) + t / (1 + t)))

    inside = np.clip(area, 0.5 / (m * n), 1 - 0.5 / (m * n))
    t = np.linspace(0, 1, 20_001)
    factor = max(1, variance / supposed(inside))
    near = t[abs(inside - t) <= NORMAL_QUANTILE * np.sqrt(factor * supposed(t))]
    low, high = metrics.auc_interval(sample)
    assert 0 <= low <= high <= 1
    np.testing.assert_allclose((low, high), (min(near[0], area), max(near[-1], area)), atol=1e-4)


@given(rankings())
def test_the_other_way_round_an_interval_is_its_mirror(ranking: Ranking) -> None:
    labels, scores = ranking
    for groups in (None, np.arange(len(labels)) // 3):
        low, high = metrics.auc_interval(ScoredSample(labels, scores, groups))
        mirrored = metrics.auc_interval(ScoredSample(labels, -scores, groups))
        np.testing.assert_allclose((1 - high, 1 - low), mirrored, atol=1e-9)


@pytest.mark.parametrize("rows", [1, 3], ids=["alone", "grouped"])
@pytest.mark.parametrize("lenses", [5, 30, 300])
def test_almost_perfect_and_almost_tied_samples_do_not_jump(lenses: int, rows: int) -> None:
    labels = np.repeat([1, 0], [lenses, 500])
    perfect = np.arange(len(labels))[::-1].astype(float)
    almost = perfect.copy()
    almost[[lenses - 1, lenses]] = almost[[lenses, lenses - 1]]
    tied = np.zeros(len(labels))
    almost_tied = tied.copy()
    almost_tied[0] = 1

    def interval(scores: np.ndarray) -> np.ndarray:
        groups = np.repeat(np.arange(len(labels)), rows) if rows > 1 else None
        return np.array(
            metrics.auc_interval(
                ScoredSample(np.repeat(labels, rows), np.repeat(scores, rows), groups)
            )
        )

    widths = np.ptp(interval(perfect)), np.ptp(interval(tied))
    assert abs(interval(perfect) - interval(almost)).max() < 0.15 * widths[0]
    # A lens above all others moves the area by half of its share.
    moved = abs(interval(tied) - interval(almost_tied)).max()
    assert moved < 0.75 / lenses + 0.15 * widths[1]
    assert interval(perfect)[1] == 1


def test_no_sample_is_certain() -> None:
    perfect = metrics.auc_interval(ScoredSample(np.array([1, 0, 0]), np.array([1.0, 0, 0])))
    assert perfect[0] < 0.5
    assert perfect[1] == 1


# ---- completeness ----


@pytest.mark.parametrize(("found", "lenses"), [(0, 10), (1, 300), (25, 50), (99, 100), (7, 7)])
def test_wilson_is_scipys(found: int, lenses: int) -> None:
    expected = binomtest(found, lenses).proportion_ci(method="wilson")
    low, high = metrics.wilson(found / lenses, lenses, NORMAL_QUANTILE)
    np.testing.assert_allclose((low, high), expected, atol=1e-9)


def test_one_lens_of_300_before_the_first_false_positive_is_known_to_be_few() -> None:
    labels = np.repeat([1, 0], [300, 2000])
    scores = np.concatenate([[9.0], np.zeros(299), np.linspace(0, 1, 2000)])
    tpr0 = evaluate_scores(labels, scores, Survey(1e-3, 10**6, (0.5,))).quantities["tpr0"]
    assert tpr0.value == 1 / 300
    expected = binomtest(1, 300).proportion_ci(method="wilson")
    np.testing.assert_allclose(tpr0.ci95, expected, atol=1e-9)


def test_a_rate_s_interval_is_wider_than_that_of_its_threshold() -> None:
    sample = ScoredSample(*binormal(200, 3000, apart=2.5))
    value = float(metrics.completeness_at_rate(sample.curve, 0.01))
    low, high = metrics.completeness_at_rate_interval(sample, 0.01)
    lower, higher = metrics.completeness_interval(sample, 31)
    assert 0 <= low < lower < value < higher < high <= 1


# ---- average precision ----


def test_the_variance_of_the_average_precision_is_the_bootstrap_s() -> None:
    sample = ScoredSample(*binormal(400, 600, apart=1.0))
    replicates = np.concatenate(
        [metrics.average_precision(curve) for curve in metrics.bootstrap_samples(sample.curve)]
    )
    variance = metrics.average_precision_moments(sample)[1]
    assert variance == pytest.approx(replicates.var(), rel=0.12)

    copies = [np.repeat(values, 4) for values in (*binormal(400, 600, apart=1.0), np.arange(1000))]
    grouped = metrics.average_precision_moments(ScoredSample(*copies))
    assert grouped[1] == pytest.approx(variance, rel=0.02)


@given(rankings())
def test_the_interval_of_the_average_precision_holds_it(ranking: Ranking) -> None:
    sample = ScoredSample(*ranking)
    low, high = metrics.average_precision_interval(sample)
    assert 0 <= low <= float(metrics.average_precision(sample.curve)) <= high <= 1


# ---- coverage: a slice of `python benchmarks/evaluate.py coverage=all` ----

CELLS = [
    Cell(0.97, 10, 200),
    Cell(0.99, 20, 2000, unrecognisable=0.05),
    Cell(0.8, 50, 1000, grouped=True),
    Cell(0.97, 20, 200, grouped=True, unrecognisable=0.05),
]


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_intervals_of_a_report_hold_the_truth(cell: Cell) -> None:
    found = coverage(cell, TRIALS, SEED)
    print("seed", SEED, found)
    chance = 3 * np.sqrt(0.92 * 0.08 / TRIALS)
    assert {"auc", "tpr0", "tpr10", "average_precision", "purity at 0.5"} <= found.keys()
    assert min(found.values()) >= 0.92 - chance


@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "grouped"])
def test_a_true_null_is_seldom_rejected_and_a_difference_is_found(grouped: bool) -> None:
    found = compare(Cell(0.8, 50, 200, grouped), 0.9, TRIALS, SEED)
    print("seed", SEED, found)
    assert found.rejected <= 0.07 + 3 * np.sqrt(0.07 * 0.93 / TRIALS)
    assert found.held >= 0.92 - 3 * np.sqrt(0.92 * 0.08 / (2 * TRIALS))
    assert found.power > 0.8


def test_the_benchmark_knows_the_truth_of_every_interval() -> None:
    cell = Cell(0.97, 50, 100_000)
    sample = cell.draw(np.random.default_rng(SEED))
    results = evaluate_scores(sample.labels, sample.scores, Survey(1e-3, 10**6, (0.5,)))
    shown = {quantity.metric.key for quantity in results.shown if quantity.ci95}
    assert shown <= truths(cell, sample).keys()


@pytest.mark.parametrize("trials", [10, 20, 50, 300])
def test_agresti_and_coull_hold_any_fraction_often_enough(trials: int) -> None:
    """By the sum over all that can be found, at each true fraction: Wilson's holds some in 84%."""
    found = np.arange(trials + 1)
    low, high = np.array(
        [metrics.agresti_coull(number / trials, trials, NORMAL_QUANTILE) for number in found]
    ).T
    for number in found:
        wilson = binomtest(int(number), trials).proportion_ci(method="wilson")
        assert low[number] <= wilson.low + 1e-6
        assert high[number] >= wilson.high - 1e-6

    true = np.linspace(0.0005, 0.9995, 1000)
    holds = (low[:, None] <= true) & (true <= high[:, None])
    coverage = (binom.pmf(found[:, None], trials, true) * holds).sum(axis=0)
    assert coverage.min() > 0.92
    assert coverage.mean() < 0.97
