from collections import Counter
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from lens_hpc.metrics import cohen_kappa, fleiss_kappa

GRADES = st.sampled_from("ABCX")

# Table 1 of Fleiss 1971: how many of six psychiatrists gave each of 30 patients each diagnosis
# (depression, personality disorder, schizophrenia, neurosis, other).
DIAGNOSES = """
00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031
00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006
"""


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(GRADES, GRADES), min_size=1, max_size=60))
def test_cohens_kappa_is_that_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    first, second = np.array(pairs).T
    assume(len(np.unique([first, second])) > 1)
    assert cohen_kappa(first, second) == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)


def test_the_kappa_of_graders_who_gave_one_grade_alone_is_unknown() -> None:
    same = np.full(3, "X")
    assert np.isnan(cohen_kappa(same, same))
    assert np.isnan(cohen_kappa(same[:0], same[:0]))
    # Its shares do not add up to 1 exactly.
    assert np.isnan(fleiss_kappa(np.array([[3, 0], [2, 0], [7, 0]])))
    assert np.isnan(fleiss_kappa(np.array([[1, 0], [0, 1]])))


def test_fleiss_kappa_is_that_of_his_own_example() -> None:
    counts = np.array([list(map(int, row)) for row in DIAGNOSES.split()])
    assert counts.shape == (30, 5)
    assert (counts.sum(axis=1) == 6).all()

    # As he has them: the shares of the diagnoses, kappa, and the kappa of each diagnosis alone.
    np.testing.assert_allclose(
        counts.mean(axis=0) / 6, [0.144, 0.144, 0.167, 0.306, 0.239], atol=6e-4
    )
    assert fleiss_kappa(counts) == pytest.approx(0.430, abs=5e-4)
    alone = [fleiss_kappa(np.stack([one, 6 - one], axis=1)) for one in counts.T]
    np.testing.assert_allclose(alone, [0.245, 0.245, 0.520, 0.471, 0.566], atol=6e-4)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(GRADES, min_size=1, max_size=5), min_size=1, max_size=12))
def test_fleiss_kappa_counts_pairs_of_graders(grades: list[list[str]]) -> None:
    categories = sorted({grade for item in grades for grade in item})
    with_pairs = [list(combinations(item, 2)) for item in grades if len(item) > 1]
    assume(len(categories) > 1 and with_pairs)

    # Pair by pair, in exact fractions.
    agreement = [Fraction(sum(a == b for a, b in pairs), len(pairs)) for pairs in with_pairs]
    observed = sum(agreement) / len(agreement)
    by_chance = Fraction(0)
    for category in categories:
        share = sum(Fraction(item.count(category), len(item)) for item in grades) / len(grades)
        by_chance += share**2
    expected = (observed - by_chance) / (1 - by_chance)

    counts = np.array([[Counter(item)[category] for category in categories] for item in grades])
    assert fleiss_kappa(counts) == pytest.approx(float(expected), abs=1e-12)
