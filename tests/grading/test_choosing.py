"""Candidates are chosen by rules, and the inclusion probabilities are those of the choice."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_hpc.errors import UserError
from lens_hpc.grading.choosing import RULES, choose

PROBABILITIES = [0.99, 0.9, 0.6, 0.52, 0.3, 0.1, 0.01, 0.001]


def candidates(probabilities: list[float] = PROBABILITIES, **columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"probability": probabilities} | columns)


def test_the_top_are_the_first_ones() -> None:
    choice = choose(candidates(), 3, "top")
    assert choice.rows.tolist() == [0, 1, 2]
    assert choice.drawn.tolist() == ["top"] * 3
    assert choice.inclusion_probability.tolist() == [1] * 3
    assert choose(candidates(), 99, "top").rows.tolist() == [*range(8)]


def test_the_uncertain_ones_are_nearest_to_an_even_chance() -> None:
    assert choose(candidates(), 3, "uncertain").rows.tolist() == [3, 2, 4]

    # One of which the members of an ensemble know nothing may be anything.
    spread = [0.1, 0.1, 0.1, 0.1, 0.1, 9.0, 0.1, 0.1]
    assert choose(candidates(spread=spread), 2, "uncertain").rows.tolist() == [5, 3]
    alone = pd.array([None] * 8, "Float32")
    assert choose(candidates(spread=alone), 2, "uncertain").rows.tolist() == [3, 2]


def test_diverse_ones_come_of_all_clusters_before_any_gives_a_second() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [50, 0], [0, 50], [50, 50], [99, 99]])
    of_cluster = np.arange(40) % 5
    embeddings = centres[of_cluster] + rng.normal(size=(40, 2))
    kept = candidates([0.5] * 40)
    rows = choose(kept, 5, "diverse", embeddings).rows
    assert rows[0] == 0
    assert set(of_cluster[rows]) == {*range(5)}

    # What is chosen before needs no other like it.
    after_top = choose(kept, 5, {"top": 0.2, "diverse": 0.8}, embeddings)
    assert after_top.drawn.tolist() == ["top", *["diverse"] * 4]
    assert set(of_cluster[after_top.rows]) == {*range(5)}


def test_the_farthest_point_is_that_of_all_distances() -> None:
    embeddings = np.random.default_rng(1).normal(size=(60, 4))
    rows = choose(candidates([0.5] * 60), 20, "diverse", embeddings).rows
    distances = np.linalg.norm(embeddings[:, None] - embeddings, axis=2)
    for number in range(1, 20):
        to_chosen = distances[:, rows[:number]].min(axis=1)
        assert to_chosen[rows[number]] == to_chosen.max()


@given(
    sizes=st.tuples(st.integers(0, 12), st.integers(0, 12)),
    count=st.integers(0, 30),
    shares=st.dictionaries(st.sampled_from(RULES), st.floats(0.05, 1), min_size=1),
    seed=st.integers(0, 99),
)
def test_a_mix_chooses_each_once_and_as_many_as_asked(
    sizes: tuple[int, int], count: int, shares: dict[Any, float], seed: int
) -> None:
    top, by_chance = sizes
    kept = candidates(
        np.linspace(0.9, 0.1, top + by_chance).tolist(),
        drawn=["top"] * top + ["random"] * by_chance,
        inclusion_probability=[1.0] * top + [0.01] * by_chance,
    )
    embeddings = np.random.default_rng(seed).normal(size=(len(kept), 3))
    choice = choose(kept, count, shares, embeddings, seed)

    assert len(choice.rows) == min(count, len(kept))
    assert len({*choice.rows.tolist()}) == len(choice.rows)
    assert set(choice.drawn) <= {*shares, "random"}
    assert (choice.drawn[choice.rows >= top] == "random").all()
    assert (choice.inclusion_probability > 0).all()
    assert (choice.inclusion_probability <= np.where(choice.rows < top, 1, 0.01)).all()
    again = choose(kept, count, shares, embeddings, seed)
    assert again.rows.tolist() == choice.rows.tolist()


def test_what_was_trained_on_comes_last() -> None:
    kept = candidates(trained_on=[True, False, False, True, False, False, False, False])
    assert choose(kept, 3, "top").rows.tolist() == [1, 2, 4]
    assert choose(kept, 2, "uncertain").rows.tolist() == [2, 4]
    assert sorted(choose(kept, 6, "random").rows) == [1, 2, 4, 5, 6, 7]
    everything = choose(kept, 99, "top")
    assert everything.rows.tolist() == [1, 2, 4, 5, 6, 7, 0, 3]
    assert everything.inclusion_probability.tolist() == [1] * 8
    assert choose(kept, 3, "random").inclusion_probability.tolist() == [3 / 6] * 3


def test_a_small_random_share_is_one_candidate_at_least() -> None:
    kept = candidates()
    for shares in ({"top": 0.99, "random": 0.01}, {"top": 1, "uncertain": 0.3, "random": 0.01}):
        choice = choose(kept, 5, shares)
        assert len(choice.rows) == 5
        assert choice.drawn.tolist().count("random") == 1
        assert choice.inclusion_probability.tolist() == [1] * 4 + [1 / 4]
    assert choose(kept, 1, {"top": 0.99, "random": 0.01}).drawn.tolist() == ["random"]


def test_weighted_counts_of_a_mix_are_those_of_the_survey() -> None:
    """A survey of 1,000 objects: its top and a random slice are candidates, and a mix is graded."""
    rng = np.random.default_rng(2)
    is_lens = np.zeros(1000, bool)
    is_lens[:60:2] = is_lens[100::90] = True
    estimates = []
    for seed in range(300):
        survey_rows = np.concatenate([np.arange(50), 50 + rng.permutation(950)[:100]])
        kept = candidates(
            [0.5] * 150,
            drawn=["top"] * 50 + ["random"] * 100,
            inclusion_probability=[1.0] * 50 + [100 / 950] * 100,
        )
        choice = choose(kept, 60, {"top": 0.5, "random": 0.5}, seed=seed)
        found = is_lens[survey_rows[choice.rows]]
        estimates.append((found / choice.inclusion_probability).sum())

    # Five standard errors of the mean: one in two million without a bias.
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - is_lens.sum()) < 5 * error


def test_a_rule_without_what_it_needs_is_told() -> None:
    with pytest.raises(UserError, match=r"choose = diverse: needs a model .* give run=RUN"):
        choose(candidates(), 3, "diverse")
    with pytest.raises(UserError, match="choose = uncertain: the candidates have no probabilities"):
        choose(pd.DataFrame({"logit": [1.0, 2.0]}), 1, "uncertain")
