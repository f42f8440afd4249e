import json

import numpy as np
import pytest
from scipy.stats import binomtest

from lens_hpc import metrics
from lens_hpc.metrics import table
from lens_hpc.reporting.breakdown import Column
from lens_hpc.reporting.results import Survey, evaluate_scores
from lens_hpc.scoring import calibration
from tests.metrics.rankings import binormal

SURVEY = Survey(prevalence=1e-3, size=10**6, completeness=(0.5, 0.9))


def test_metrics_json_holds_what_the_design_says_and_plain_values() -> None:
    tree = json.loads(json.dumps(evaluate_scores(*binormal(300, 1200), SURVEY).as_dict()))
    low, high = tree["auc_ci95"]
    assert low < tree["auc"] < high
    assert {"n", "n_lenses", "tpr0", "tpr10", "average_precision", "tpr_at_fpr_1e-2"} <= tree.keys()
    assert tree["tpr0_ci95"][0] <= tree["tpr0"] <= tree["tpr10"] <= tree["tpr_at_fpr_1e-2"]
    assert tree["tpr_at_fpr_1e-3"] is None
    assert tree["not_said"]["tpr_at_fpr_1e-3"] == "too few non-lenses: 1,200 of the 10,000 needed"
    assert [row["completeness"] for row in tree["selections"]] == pytest.approx([0.5, 0.9])


@pytest.mark.parametrize(
    ("label", "lenses", "why"),
    [
        (1, 5, "every labelled sample is a lens"),
        (0, 0, "no labelled sample is a lens"),
        (-1, 0, "no sample has a label"),
    ],
)
def test_one_class_alone_has_an_answer_but_no_ranking(label: int, lenses: int, why: str) -> None:
    tree = evaluate_scores(np.full(5, label), np.arange(-1.0, 4.0), SURVEY).as_dict()
    assert tree["n"] + tree["n_unlabelled"] == 5
    assert (tree["n_lenses"], tree["auc"]) == (lenses, None)
    assert tree["not_said"]["auc"] == why
    assert tree["counts_above"] == {"0.5": 3, "0.9": 1, "0.99": 0}


def test_unlabelled_samples_count_in_nothing() -> None:
    labels, scores = binormal(50, 60)
    more, noise = np.append(labels, [-1] * 40), np.append(scores, np.full(40, 99.0))
    found = evaluate_scores(more, noise, SURVEY).as_dict()
    alone = evaluate_scores(labels, scores, SURVEY).as_dict()
    assert found.pop("n_unlabelled") == 40
    assert alone.pop("n_unlabelled") == 0
    assert found == alone


def test_completeness_at_this_threshold_is_binomial() -> None:
    """Another sample has another threshold: that is said, and not part of the interval."""
    labels, scores = binormal(100, 1000, apart=4)
    scores[150] = 99.0
    tpr0 = evaluate_scores(labels, scores, SURVEY).quantities["tpr0"]
    assert tpr0.value == 0
    np.testing.assert_allclose(tpr0.ci95, binomtest(0, 100).proportion_ci(method="wilson"))
    assert "at this threshold" in tpr0.metric.title


FEW = {
    "9 lenses": (9, 60, None, "too few lenses: 9 of the 10 needed"),
    "4 non-lenses": (20, 4, None, "too few non-lenses: 4 of the 5 needed"),
    "8 groups": (50, 60, 8, "too few groups with lenses: 8 of the 10 needed"),
}


@pytest.mark.parametrize(("lenses", "others", "groups", "said"), FEW.values(), ids=FEW)
def test_few_lenses_or_groups_have_no_interval_but_a_reason(
    lenses: int, others: int, groups: int | None, said: str
) -> None:
    labels, scores = binormal(lenses, others)
    numbers = None if groups is None else np.arange(len(labels)) % groups
    results = evaluate_scores(labels, scores, SURVEY, numbers)
    tpr0 = results.quantities["tpr0"]
    assert (tpr0.ci95, tpr0.why_no_interval) == (None, said)
    assert results.as_dict()["no_interval"]["tpr0"] == said


def test_ten_lenses_or_groups_have_intervals_and_five_one_of_the_auc() -> None:
    labels, scores = binormal(50, 60)
    thirty_groups = evaluate_scores(labels, scores, SURVEY, np.arange(110) % 30)
    ten_lenses = evaluate_scores(labels[40:], scores[40:], SURVEY)
    five_lenses = evaluate_scores(labels[45:], scores[45:], SURVEY)
    four_lenses = evaluate_scores(labels[46:], scores[46:], SURVEY)
    for results in (thirty_groups, ten_lenses):
        assert results.quantities["tpr0"].ci95 is not None
        assert "no_interval" in results.as_dict()
    assert five_lenses.quantities["tpr0"].ci95 is None
    assert five_lenses.quantities["auc"].ci95 is not None
    assert four_lenses.quantities["auc"].why_no_interval == "too few lenses: 4 of the 5 needed"


def test_the_headline_interval_counts_groups() -> None:
    labels, scores, groups = (
        np.repeat(values, 8) for values in (*binormal(60, 60), np.arange(120))
    )
    of_rows = evaluate_scores(labels, scores, SURVEY).quantities["auc"]
    of_groups = evaluate_scores(labels, scores, SURVEY, groups).quantities["auc"]
    assert np.ptp(of_groups.ci95) == pytest.approx(np.sqrt(8) * np.ptp(of_rows.ci95), rel=0.1)


def test_the_bootstrapped_auc_of_earlier_versions_is_the_auc_and_not_shown_twice() -> None:
    results = evaluate_scores(*binormal(50, 60), SURVEY)
    tree = results.as_dict()
    assert tree["auc_bootstrap"] == tree["auc"]
    assert tree["auc_bootstrap_ci95"] == tree["auc_ci95"]
    assert "auc_bootstrap" not in [quantity.metric.key for quantity in results.shown]


def test_a_metric_is_one_entry_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    half = metrics.Metric("tpr5", "completeness before the fifth", before_fifth, headline=True)
    monkeypatch.setattr(table, "METRICS", (*table.METRICS, half))
    results = evaluate_scores(*binormal(300, 1200), SURVEY)
    assert results.headlines[-1].metric.name == "completeness before the fifth"

    tree = results.as_dict()
    assert tree["tpr0"] <= tree["tpr5"] <= tree["tpr10"]
    low, high = tree["tpr5_ci95"]
    assert low < tree["tpr5"] < high


def before_fifth(curve: metrics.Curve) -> np.ndarray:
    return metrics.completeness_before(curve, 5)


def test_the_keys_of_metrics_json_are_in_their_order() -> None:
    besides = ("purity_at_completeness_0.5", "purity_at_completeness_0.5_at_least")
    besides += ("inspection", "breakdown", "recovery", "counts_above")
    of_both = list(evaluate_scores(*binormal(30, 30), SURVEY).as_dict())
    assert of_both == [
        *("n", "n_lenses", "n_unlabelled", "auc", "auc_ci95", "auc_bootstrap"),
        *("auc_bootstrap_ci95", "tpr0", "tpr0_ci95", "tpr10", "tpr10_ci95", "tpr_at_fpr_1e-2"),
        *("tpr_at_fpr_1e-3", "tpr_at_fpr_1e-4", "average_precision", "average_precision_ci95"),
        *("partial_auc", "calibration", "survey", "selections", *besides, "not_said"),
        "no_interval",
    ]
    of_one = list(evaluate_scores(np.ones(3), np.arange(3.0), SURVEY).as_dict())
    assert of_one == [
        *("n", "n_lenses", "n_unlabelled", "auc", "tpr0", "tpr10", "tpr_at_fpr_1e-2"),
        *("tpr_at_fpr_1e-3", "tpr_at_fpr_1e-4", "average_precision", "partial_auc"),
        *("calibration", "survey", "selections", *besides, "not_said", "no_interval"),
    ]


def test_nan_scores_are_an_error() -> None:
    with pytest.raises(ValueError, match="NaN"):
        evaluate_scores(np.array([0, 1]), np.array([np.nan, 1]), SURVEY)


def test_the_same_scores_give_the_same_results_to_the_bit() -> None:
    one = evaluate_scores(*binormal(100, 100), SURVEY).as_dict()
    other = evaluate_scores(*binormal(100, 100), SURVEY).as_dict()
    assert json.dumps(one) == json.dumps(other)


def test_calibration_mends_overconfident_scores() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, 4000)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-logits))).astype(int)
    loud = 4 * logits
    fitted = calibration.fit_calibration(labels[:2000], loud[:2000])
    assert fitted is not None
    assert fitted.temperature == pytest.approx(4, rel=0.1)
    found = evaluate_scores(labels[2000:], loud[2000:], SURVEY, calibration=fitted).probabilities
    for name in ("probability_temperature", "probability_isotonic"):
        assert found[name].brier < found["probability"].brier
        error = found[name].reliability.expected_calibration_error
        assert error < 0.05 < found["probability"].reliability.expected_calibration_error


def test_one_class_calibrates_nothing_and_a_perfect_ranking_stays_finite() -> None:
    assert calibration.fit_calibration(np.ones(3), np.arange(3.0)) is None
    perfect = calibration.fit_calibration(np.array([0, 0, 1, 1]), np.array([-2.0, -1, 1, 2]))
    assert perfect is not None
    assert perfect.temperature >= calibration.COLDEST
    assert np.isfinite(perfect.by_temperature(np.array([-99.0, 99]))).all()


def test_half_of_the_lenses_have_a_purity_whatever_is_asked_for() -> None:
    labels, scores = binormal(300, 1200)
    results = evaluate_scores(labels, scores, Survey(1e-3, 10**6, (0.9,)))
    half = metrics.select(metrics.ScoredSample(labels, scores), 0.5, 1e-3, 10**6)
    tree = results.as_dict()
    assert tree["purity_at_completeness_0.5"] == half.purity
    assert tree["purity_at_completeness_0.5_at_least"] == half.purity_at_least
    name, told = results.told_besides[0]
    assert (name, told) == (
        "purity at 50%",
        f"{half.purity:.4f}  at least {half.purity_at_least:.4f} with 95% confidence, "
        "where one lens in 1,000",
    )


def test_what_is_found_in_the_first_hundred_is_in_metrics_json() -> None:
    tree = json.loads(json.dumps(evaluate_scores(*binormal(300, 1200), SURVEY).as_dict()))
    assert [row["objects"] for row in tree["inspection"]] == [15, 100, 500, 1000]
    for row in tree["inspection"]:
        low, high = row["share_ci95"]
        assert low < row["share"] == row["lenses"] / 300 < high

    few = evaluate_scores(*binormal(9, 1200), SURVEY)
    assert all(row.share_ci95 is None for row in few.inspections)


def test_unlabelled_samples_are_in_no_part_of_a_breakdown() -> None:
    labels, scores = binormal(50, 60)
    codes = np.arange(110) % 2
    alone = evaluate_scores(labels, scores, SURVEY, columns={"field": Column(codes, ["a", "b"])})
    more = evaluate_scores(
        np.append(labels, [-1] * 40),
        np.append(scores, np.full(40, 99.0)),
        SURVEY,
        columns={"field": Column(np.append(codes, np.arange(40) % 2), ["a", "b"])},
    )
    assert more.breakdown == alone.breakdown
    tree = json.loads(json.dumps(more.as_dict()))["breakdown"]["field"]
    assert [part["value"] for part in tree] == ["a", "b"]
    assert sum(part["n_lenses"] for part in tree) == 50
    assert tree[0]["tpr_at_fpr_1e-2"] is None


def test_the_rate_of_one_in_ten_thousand_is_shown_where_it_is_known() -> None:
    few = evaluate_scores(*binormal(50, 99_999), SURVEY).as_dict()
    assert few["not_said"]["tpr_at_fpr_1e-4"] == "too few non-lenses: 99,999 of the 100,000 needed"
    enough = evaluate_scores(*binormal(50, 100_000, apart=4), SURVEY)
    [quantity] = [each for each in enough.shown if each.metric.key == "tpr_at_fpr_1e-4"]
    low, high = quantity.ci95
    assert low < quantity.value < high
