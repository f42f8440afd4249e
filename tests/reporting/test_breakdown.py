from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from lens_hpc import metrics
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.metrics import ScoredSample
from lens_hpc.reporting.breakdown import Column, break_down, choose_columns, make_column
from tests.conftest import pack_survey, write_survey
from tests.metrics.rankings import binormal

# ---- columns ----


def test_numbers_of_many_values_are_bins_of_equal_count() -> None:
    values = np.append(np.random.default_rng(0).permutation(np.arange(1000.0)), [np.nan, np.inf])
    column = make_column(pd.Series(values))
    assert column.names[:2] == ["0 to 199.8", "199.8 to 399.6"]
    assert column.names[5:] == ["missing"]
    assert np.bincount(column.codes).tolist() == [200, 200, 200, 200, 200, 2]
    assert (column.codes[values < 199.8] == 0).all()


def test_few_numbers_are_values_in_their_order() -> None:
    column = make_column(pd.Series([10, 2, None, 10], dtype="int64[pyarrow]"))
    assert column.names == ["2", "10", "missing"]
    assert column.codes.tolist() == [1, 0, 2, 1]


def test_texts_come_by_frequency_and_the_rarest_as_one() -> None:
    texts = [f"field{n:02d}" for n in range(20) for _ in range(30 - n)] + [None]
    column = make_column(pd.Series(texts, dtype="string[pyarrow]"))
    assert column.names[:2] == ["field00", "field01"]
    assert column.names[10:] == ["field10", "9 others", "missing"]
    assert np.bincount(column.codes)[[0, 11, 12]].tolist() == [30, sum(range(11, 20)), 1]


def test_booleans_are_texts() -> None:
    column = make_column(pd.Series([True, False, True], dtype="bool[pyarrow]"))
    assert column.names == ["True", "False"]


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder = tmp_path_factory.mktemp("breakdown")
    columns = {
        "kind": [("spiral", "merger", "ring", "")[i % 4] for i in range(40)],
        "truth": [("no", "yes")[i % 2] for i in range(40)],
        "field": ["W1"] * 40,
        "ra": [str(i % 3) for i in range(40)],
        "dec": [str(i % 3) for i in range(40)],
        "redshift": [f"{i / 40}" for i in range(40)],
    }
    survey = write_survey(folder / "survey", **columns)
    recipe = survey / "recipe.yaml"
    kept = f"features: [radius, colour], keep: [{', '.join(columns)}]"
    recipe.write_text(recipe.read_text().replace("features: [radius, colour]", kept))
    return Split(pack_survey(survey, folder / "dataset", "splits={test: 1.0}"), "test")


def test_kept_columns_of_few_values_are_chosen_unless_they_are_the_label(split: Split) -> None:
    chosen = choose_columns(split)
    assert list(chosen) == ["kind"]
    assert chosen["kind"].names == ["merger", "ring", "spiral", "missing"]
    ids = split.ids()
    assert ids[chosen["kind"].codes == 0].tolist() == [
        name for name in ids if int(name.removeprefix("obj")) % 4 == 1
    ]


def test_any_kept_column_or_feature_can_be_named_or_none(split: Split) -> None:
    chosen = choose_columns(split, ["redshift", "radius"])
    assert [len(column.names) for column in chosen.values()] == [5, 5]
    assert choose_columns(split, []) == {}


def test_another_name_is_an_error_that_lists_what_there_is(split: Split) -> None:
    with pytest.raises(UserError, match=r"'class' is no column of .* kind, truth, .*keep"):
        choose_columns(split, ["class"])


def test_a_dataset_without_kept_columns_has_no_breakdown(dataset: Path) -> None:
    assert choose_columns(Split(dataset, "train")) == {}


# ---- parts ----


def test_each_value_has_its_auc_and_its_false_alarms() -> None:
    """Candidates are hard and field stamps easy, as in CFHTLS."""
    lenses, scores = binormal(400, 2000)
    field = np.arange(2400) >= 1400
    scores = np.where(field, scores - 2, scores)
    sample = ScoredSample(lenses, scores)
    threshold = metrics.select(sample, 0.5, 1e-3, 10**6).threshold

    column = Column(field.astype(np.int16), ["candidate", "field", "never"])
    candidate, stamp = break_down(sample, column, threshold)
    assert (candidate.value, candidate.lenses, candidate.non_lenses) == ("candidate", 400, 1000)
    assert candidate.auc == metrics.auc(metrics.rank(lenses[~field], scores[~field]))
    assert candidate.against == ""
    assert candidate.auc_ci95 is not None

    assert (stamp.lenses, stamp.non_lenses, stamp.against) == (0, 1000, "all lenses")
    assert stamp.auc > candidate.auc
    assert (stamp.auc + candidate.auc) / 2 == pytest.approx(metrics.auc(sample.curve))
    assert stamp.found is None
    assert stamp.found_at_rate is None

    assert candidate.found.share == 0.5
    above = int((scores[(lenses == 0) & ~field] >= threshold).sum())
    assert (candidate.false_alarms.above, candidate.false_alarms.total) == (above, 1000)
    wilson = binomtest(above, 1000).proportion_ci(method="wilson")
    np.testing.assert_allclose(candidate.false_alarms.ci95, wilson, atol=0.002)
    assert candidate.found_at_rate.share == metrics.completeness_at_rate(sample.curve, 1e-2)


def test_lenses_alone_are_compared_with_all_non_lenses() -> None:
    labels, scores = binormal(40, 2000)
    column = Column((labels == 0).astype(np.int16), ["lens", "star"])
    lens, star = break_down(ScoredSample(labels, scores), column, 0.0)
    assert (lens.against, star.against) == ("all non-lenses", "all lenses")
    assert lens.auc == star.auc == metrics.auc(metrics.rank(labels, scores))
    assert lens.false_alarms is None


def test_too_few_are_said_and_have_no_interval() -> None:
    labels, scores = binormal(30, 300)
    is_rare = np.arange(330) % 110 == 0
    column = Column(is_rare.astype(np.int16), ["often", "rarely"])
    often, rarely = break_down(ScoredSample(labels, scores), column, 1.0)
    assert (rarely.lenses, rarely.non_lenses) == (1, 2)
    assert rarely.why_no_interval == "too few lenses: 1 of the 5 needed"
    assert rarely.auc_ci95 is rarely.found.ci95 is rarely.false_alarms.ci95 is None
    assert often.found.ci95 is not None
    assert often.found_at_rate is None, "1,000 non-lenses are needed"


def test_a_rate_that_no_score_reaches_finds_nothing() -> None:
    labels = np.repeat([1, 0], [50, 1000])
    sample = ScoredSample(labels, np.zeros(1050))
    part = break_down(sample, Column(np.zeros(1050, np.int16), ["all"]), 0.0)[0]
    assert (part.found.above, part.found_at_rate.above) == (50, 0)
    assert part.auc == 0.5


def test_groups_are_counted_within_a_value() -> None:
    labels, scores = binormal(60, 600)
    codes = np.arange(660) % 2
    alone = break_down(ScoredSample(labels, scores), Column(codes, ["a", "b"]), 1.0)[1]
    copies = [np.repeat(values, 3) for values in (labels, scores, np.arange(660) + 5)]
    column = Column(np.repeat(codes, 3), ["a", "b"])
    grouped = break_down(ScoredSample(*copies), column, 1.0)[1]
    assert grouped.auc == pytest.approx(alone.auc)
    assert np.ptp(grouped.auc_ci95) == pytest.approx(np.ptp(alone.auc_ci95), rel=0.15)
    assert np.ptp(grouped.found.ci95) == pytest.approx(np.ptp(alone.found.ci95), rel=0.15)
