import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from lens_hpc import metrics
from lens_hpc.metrics import ScoredSample
from tests.metrics.rankings import Ranking, binormal, fractions_right, rankings
from tests.test_how_to import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from interval_grid import Cell
from seed_grid import compare_recipes

TRIALS = 100


@given(rankings(), st.randoms(use_true_random=False))
def test_the_paired_interval_is_the_direct_computation(ranking: Ranking, random: object) -> None:
    labels, one = ranking
    other = np.array([random.choice([-1.0, 0.0, 0.5, 2.0]) for _ in labels])  # type: ignore[attr-defined]
    found = metrics.compare_aucs(labels, one, other)

    one_right, other_right = fractions_right(labels, one), fractions_right(labels, other)
    sums = [
        np.cov(pair) / len(pair[0]) if len(pair[0]) > 1 else np.zeros((2, 2))
        for pair in zip(one_right, other_right, strict=True)
    ]
    covariance = sums[0] + sums[1]
    scale = np.sqrt(covariance[0, 0] * covariance[1, 1])
    correlation = covariance[0, 1] / scale if scale > 0 else 0.0

    quantile = t.ppf(0.975, max(min(labels.sum(), (1 - labels).sum()) - 1, 1))
    areas = [right[0].mean() for right in (one_right, other_right)]
    limits = [metrics.auc_interval(ScoredSample(labels, s), quantile, 0.5) for s in (one, other)]
    below, above = areas[0] - limits[0][0], limits[1][1] - areas[1]
    reach = below**2 + above**2 - 2 * correlation * below * above
    of_difference = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    reach = max(reach, quantile**2 * of_difference)
    assert found.difference == pytest.approx(areas[0] - areas[1], abs=1e-12)
    assert found.ci95[0] == pytest.approx(found.difference - np.sqrt(max(reach, 0)), abs=1e-6)


@given(rankings(), st.randoms(use_true_random=False))
def test_a_p_value_below_5_percent_is_an_interval_without_0(
    ranking: Ranking, random: object
) -> None:
    labels, one = ranking
    other = np.array([random.choice([-1.0, 0.0, 0.5, 2.0]) for _ in labels])  # type: ignore[attr-defined]
    groups = np.array([random.randrange(9) for _ in labels])  # type: ignore[attr-defined]
    for grouping in (None, groups):
        found = metrics.compare_aucs(labels, one, other, grouping)
        low, high = found.ci95
        assert low <= found.difference <= high
        if not np.isnan(found.p_value) and abs(found.p_value - 0.05) > 1e-9:
            assert (found.p_value < 0.05) == (low > 0 or high < 0)

        swapped = metrics.compare_aucs(labels, other, one, grouping)
        np.testing.assert_allclose(swapped.ci95, (-high, -low), atol=1e-9)


def test_a_ranking_does_not_differ_from_itself() -> None:
    labels, scores = binormal(30, 40)
    same = metrics.compare_aucs(labels, scores, scores)
    assert (same.difference, same.p_value) == (0.0, 1.0)

    better = metrics.compare_aucs(labels, labels + 0.01 * scores, scores)
    assert better.difference > 0
    assert better.p_value < 0.01


def test_copies_of_the_rows_make_no_difference_significant() -> None:
    labels, one = binormal(30, 60)
    other = one + np.random.default_rng(1).normal(size=90)
    once = metrics.compare_aucs(labels, one, other)
    copies = [np.repeat(values, 9) for values in (labels, one, other, np.arange(90))]
    of_rows = metrics.compare_aucs(*copies[:3])
    of_groups = metrics.compare_aucs(*copies)
    assert of_rows.p_value < 0.2 * once.p_value
    assert of_groups.p_value == pytest.approx(once.p_value, rel=0.3)


@pytest.mark.parametrize(
    ("p_value", "shown"), [(np.nan, "unknown"), (1e-13, "< 1e-12"), (0.01234, "0.012")]
)
def test_a_p_value_is_shown_as_far_as_it_means_anything(p_value: float, shown: str) -> None:
    assert metrics.Difference(0.1, (0.0, 0.2), p_value).shown_p == shown


# ---- arms of several seeds ----


@pytest.mark.parametrize("grouped", [False, True])
def test_an_arm_s_interval_is_the_direct_computation(grouped: bool) -> None:
    """Readers nested within tests, as Obuchowski & Rockette 1995 have them: by covariances."""
    rng = np.random.default_rng(0)
    labels, scores = binormal(300, 500)
    groups = rng.integers(0, 900, 800) if grouped else None
    own = [scores + 0.5 * rng.normal(size=800) for _ in range(3)]
    other = [scores + spread * rng.normal(size=800) for spread in (0.2, 0.8)]
    found = metrics.compare_arms(labels, own, other, groups)
    assert found.over_seeds

    sample = ScoredSample(labels, scores, groups)
    right = [fractions_right(labels, each) for each in (*own, *other)]
    areas = np.array([by_lens.mean() for by_lens, _ in right])
    covariance = np.empty((5, 5))
    for i, j in np.ndindex(5, 5):
        # By the polarisation of the variance.
        plus, minus = (
            [one + sign * two for one, two in zip(right[i], right[j], strict=True)]
            for sign in (1, -1)
        )
        sums = sample.variance_of_means(*plus), sample.variance_of_means(*minus)
        covariance[i, j] = (sums[0] - sums[1]) / 4

    def between(rows: slice, columns: slice) -> float:
        block = covariance[rows, columns]
        off_diagonal = ~np.eye(*block.shape, dtype=bool) if rows == columns else block == block
        return float(block[off_diagonal].mean())

    arms = slice(0, 3), slice(3, 5)
    shared = sum(between(arm, arm) for arm in arms) - 2 * between(*arms)
    found_in = []
    for arm in arms:
        by_samples = np.diag(covariance)[arm].mean() - between(arm, arm)
        found_in.append(max(areas[arm].var(ddof=1), by_samples) / len(areas[arm]))
    total = shared + sum(found_in)
    most = sample.degrees_of_freedom
    degrees = total**2 / (shared**2 / most + found_in[0] ** 2 / 2 + found_in[1] ** 2 / 1)

    half_width = t.ppf(0.975, min(degrees, most)) * np.sqrt(total)
    assert found.difference == pytest.approx(areas[:3].mean() - areas[3:].mean(), abs=1e-12)
    # MOVER's is no less.
    below, above = np.abs(np.array(found.ci95) - found.difference)
    assert half_width * (1 - 1e-9) <= min(below, above)
    assert max(below, above) < 1.1 * half_width


def test_arms_of_one_run_thrice_differ_as_the_runs() -> None:
    labels, one = binormal(30, 60)
    other = one + np.random.default_rng(1).normal(size=90)
    runs = metrics.compare_aucs(labels, one, other)
    arms = metrics.compare_arms(labels, [one] * 3, [other] * 3)
    assert not runs.over_seeds
    assert arms.over_seeds
    np.testing.assert_allclose(arms.ci95, runs.ci95, atol=1e-9)
    assert not metrics.compare_arms(labels, [one] * 3, [other]).over_seeds


@pytest.mark.slow
@given(rankings(), st.randoms(use_true_random=False))
def test_arms_the_other_way_round_are_the_mirror(ranking: Ranking, random: object) -> None:
    labels, one = ranking

    def draw() -> np.ndarray:
        return np.array([random.choice([-1.0, 0.0, 0.5, 2.0]) for _ in labels])  # type: ignore[attr-defined]

    own, other = [one, draw()], [draw(), draw(), draw()]
    for groups in (None, np.arange(len(labels)) // 3):
        found = metrics.compare_arms(labels, own, other, groups)
        mirror = metrics.compare_arms(labels, other, own, groups)
        low, high = found.ci95
        np.testing.assert_allclose((-high, -low), mirror.ci95, atol=1e-9)
        assert found.is_shown == (low > 0 or high < 0) == mirror.is_shown


@pytest.mark.slow
@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "grouped"])
def test_one_recipe_is_seldom_better_than_itself(grouped: bool) -> None:
    """A slice of `python benchmarks/evaluate.py seeds=all`: where one seed an arm is misled."""
    found = compare_recipes(Cell(0.97, 300, 600, grouped), 0.01, 3, TRIALS)
    print(found)
    assert found.pair_rejected > 0.3
    assert found.pair_rejected_far > 0.1
    assert found.rejected <= 0.07 + 3 * np.sqrt(0.07 * 0.93 / TRIALS)
    assert found.rejected_far < 3 / TRIALS


def test_a_better_recipe_is_found_by_its_seeds() -> None:
    found = compare_recipes(Cell(0.9, 300, 600), 0.003, 3, TRIALS // 2)
    assert found.power > 0.8
