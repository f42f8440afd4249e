from functools import partial
from itertools import islice

import numpy as np
import pytest
from scipy.stats import norm

from lens_hpc import metrics
from lens_hpc.metrics import resampling
from tests.metrics.rankings import binormal

STATISTICS = {
    "auc": metrics.auc,
    "tpr10": partial(metrics.completeness_before, false_positives=10),
    "average_precision": metrics.average_precision,
}


def test_the_bootstrap_agrees_with_delong_and_holds_the_value() -> None:
    curve = metrics.rank(*binormal(400, 600))
    found = metrics.bootstrap(curve, metrics.bootstrap_samples(curve), STATISTICS)

    by_delong = metrics.interval(*metrics.delong(curve), 400)
    np.testing.assert_allclose(found["auc"], by_delong, atol=5e-3)
    for name, statistic in STATISTICS.items():
        low, high = found[name]
        assert low < statistic(curve) < high


def test_the_bootstrap_of_a_large_ranking_is_that_of_all_its_positions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    curve = metrics.rank(*binormal(3000, 3000))
    of_all = metrics.bootstrap(curve, metrics.bootstrap_samples(curve), STATISTICS)

    monkeypatch.setattr(resampling, "POSITIONS_KEPT", 200)
    coarse = metrics.coarsen(curve)
    assert len(coarse.thresholds) <= 401
    assert metrics.auc(coarse) == pytest.approx(metrics.auc(curve), abs=1e-4)
    of_some = metrics.bootstrap(curve, metrics.bootstrap_samples(curve), STATISTICS)
    for name, interval in of_some.items():
        np.testing.assert_allclose(interval, of_all[name], atol=0.02)


def test_groups_make_intervals_wider() -> None:
    """Each sample eight times over: as many rows, an eighth of the knowledge."""
    labels, scores = (np.repeat(values, 8) for values in binormal(60, 60))
    groups = np.repeat(np.arange(120), 8)
    curve = metrics.rank(labels, scores)

    of_samples = metrics.bootstrap_samples(curve)
    of_groups = metrics.bootstrap_groups(curve, labels, scores, groups)
    narrow = metrics.bootstrap(curve, of_samples, STATISTICS)["auc"]
    wide = metrics.bootstrap(curve, of_groups, STATISTICS)["auc"]
    ratio = (wide[1] - wide[0]) / (narrow[1] - narrow[0])
    assert ratio == pytest.approx(np.sqrt(8), rel=0.15)


def test_the_intervals_cover_the_truth() -> None:
    truth = norm.cdf(1.5 / np.sqrt(2))
    covered = np.zeros(2)
    for seed in range(300):
        curve = metrics.rank(*binormal(60, 90, seed=seed))
        replicates = islice(metrics.bootstrap_samples(curve, seed), 4)
        drawn = metrics.bootstrap(curve, replicates, {"auc": metrics.auc})["auc"]
        by_delong = metrics.interval(*metrics.delong(curve), 60)
        covered += [low <= truth <= high for low, high in (by_delong, drawn)]

    assert (covered / 300 >= 0.91).all()
    assert (covered / 300 <= 0.98).all()


def test_what_cannot_be_said_has_no_interval() -> None:
    curve = metrics.rank(*binormal(20, 5))
    found = metrics.bootstrap(curve, metrics.bootstrap_samples(curve), STATISTICS)
    assert found["tpr10"] is None
    assert found["auc"] is not None
