"""Rankings that tests of metrics share."""

import numpy as np
from hypothesis import strategies as st

Ranking = tuple[np.ndarray, np.ndarray]


@st.composite
def rankings(draw: st.DrawFn) -> Ranking:
    """Labels of both classes, and scores with or without ties."""
    one_label = st.integers(0, 1)
    some_labels = st.lists(one_label, min_size=2, max_size=60)
    labels = np.array(draw(some_labels.filter(lambda some: 0 < sum(some) < len(some))))

    one_score = st.integers(-3, 3) if draw(st.booleans()) else st.floats(-5, 5)
    scores = draw(st.lists(one_score, min_size=len(labels), max_size=len(labels)))
    return labels, np.array(scores, dtype=np.float64)


def binormal(lenses: int, others: int, apart: float = 1.5, seed: int = 0) -> Ranking:
    """Normal scores of unit variance, those of lenses higher by `apart`."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [lenses, others])
    scores = [rng.normal(apart, 1, lenses), rng.normal(0, 1, others)]
    return labels, np.concatenate(scores)


def fractions_right(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fraction of the other class that each lens, and each non-lens, is ranked right against.

    By comparing all pairs.
    """
    lenses = scores[labels == 1][:, None]
    non_lenses = scores[labels == 0]
    right = (lenses > non_lenses) + 0.5 * (lenses == non_lenses)
    return right.mean(axis=1), right.mean(axis=0)


def variance_of_mean(values: np.ndarray) -> float:
    return float(values.var(ddof=1) / len(values)) if len(values) > 1 else 0.0
