"""Which candidates are graded next: the top of the ranking, uncertain, diverse or random ones.

Given the candidates, a rule chooses for certain, and chance with a known probability. Multiplied by
the chance with which the candidate itself came out of the survey, that is its inclusion probability
(two-phase sampling: Sarndal, Swensson & Wretman 1992, Model Assisted Survey Sampling, chapter 9).
With a random share, no candidate has none, and estimates over the whole survey have no bias.

Objects that the model was trained on were graded before: they come last, when nothing else is left,
and such estimates are of all others.
"""

from collections.abc import Mapping
from typing import NamedTuple, get_args

import numpy as np
import pandas as pd
from scipy.special import logit

from lens_hpc.errors import UserError
from lens_hpc.grading.grade_settings import Rule

TOP, UNCERTAIN, DIVERSE, RANDOM = "top", "uncertain", "diverse", "random"
RULES: tuple[Rule, ...] = get_args(Rule)
"""In the order in which they choose: chance comes last, among all that is left."""


class ChosenCandidates(NamedTuple):
    """The candidates that are graded, n of them, in the order in which they were chosen."""

    rows: np.ndarray
    """(n,) their row numbers."""
    drawn: np.ndarray
    """(n,) the rule that chose each; random, too, where the prediction had drawn it by chance."""
    inclusion_probability: np.ndarray
    """(n,) the chance with which it came out of the survey into this list."""


class _Candidates(NamedTuple):
    """What the rules look at, of N candidates."""

    kept: pd.DataFrame
    embeddings: np.ndarray | None
    rng: np.random.Generator


def choose(
    kept: pd.DataFrame,
    count: int,
    how: Rule | Mapping[Rule, float],
    embeddings: np.ndarray | None = None,
    seed: int = 0,
) -> ChosenCandidates:
    """Choose `count` of N candidates, all if they are fewer, by one rule or by shares of several.

    `kept` are the columns beside them, best first, as a prediction keeps them: probability, spread,
    trained_on, drawn, inclusion_probability. `embeddings` (N, D) are those of a model. Raises
    UserError for uncertain without probabilities, and diverse without embeddings.
    """
    candidates = _Candidates(kept, embeddings, np.random.default_rng(seed))
    new, seen = _split_seen(kept)
    counts = _share_out(min(count, len(new)), how)

    rows = np.empty(0, np.int64)
    drawn: list[str] = []
    chances: list[float] = []
    for rule, wanted in counts.items():
        left = np.setdiff1d(new, rows)
        found = _choose_by(rule, wanted, left, rows, candidates)
        rows = np.concatenate([rows, found])
        drawn += [rule] * wanted
        chances += [wanted / len(left) if rule == RANDOM else 1.0] * wanted

    again = seen[: max(count - len(rows), 0)]
    rows = np.concatenate([rows, again])
    drawn += [TOP] * len(again)
    chances += [1.0] * len(again)
    return _described(kept, rows, np.array(drawn, object), np.array(chances))


def _split_seen(kept: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that no model was trained on, and the others."""
    if "trained_on" not in kept:
        return np.arange(len(kept)), np.empty(0, np.int64)
    is_seen = kept["trained_on"].to_numpy(bool, na_value=False)
    return np.flatnonzero(~is_seen), np.flatnonzero(is_seen)


def _share_out(count: int, how: Rule | Mapping[Rule, float]) -> dict[Rule, int]:
    """Return how many each rule chooses, at least 1, in the order of RULES.

    A random share is never rounded to none: without it, some candidates would have no chance.
    """
    shares: Mapping[Rule, float] = {how: 1.0} if isinstance(how, str) else how
    named = [rule for rule in RULES if shares.get(rule, 0) > 0]
    up_to = np.cumsum([shares[rule] for rule in named])
    ends = np.rint(count * up_to / up_to[-1]).astype(int)
    if RANDOM in named:
        # It is the last one.
        ends[:-1] = np.minimum(ends[:-1], max(count - 1, 0))
    counts = np.diff(ends, prepend=0).tolist()
    return {rule: number for rule, number in zip(named, counts, strict=True) if number}


def _choose_by(
    rule: Rule, wanted: int, left: np.ndarray, chosen: np.ndarray, candidates: _Candidates
) -> np.ndarray:
    """Return the rows that a rule chooses among those that are left."""
    if rule == TOP:
        return left[:wanted]
    if rule == UNCERTAIN:
        nearest_first = np.argsort(_margins(candidates.kept)[left], kind="stable")
        return left[nearest_first[:wanted]]
    if rule == DIVERSE:
        return _farthest(candidates.embeddings, wanted, left, chosen)
    return candidates.rng.permutation(left)[:wanted]


def _described(
    kept: pd.DataFrame, rows: np.ndarray, drawn: np.ndarray, chances: np.ndarray
) -> ChosenCandidates:
    """Return the choice, with what the prediction's own draw says of its rows."""
    of_rows = kept.iloc[rows]
    if "inclusion_probability" in kept:
        chances = chances * of_rows["inclusion_probability"].to_numpy(np.float64)
    if "drawn" in kept:
        drawn = np.where(of_rows["drawn"].to_numpy(object) == RANDOM, RANDOM, drawn)
    return ChosenCandidates(rows, drawn, chances)


# ---- rules ----


def _margins(kept: pd.DataFrame) -> np.ndarray:
    """Return how far each candidate is from an even chance to be a lens, (N,).

    This is the distance of the logit of its calibrated probability from 0, and for an ensemble in
    units of the spread of its members: U of Echard, Gayton & Lemaire 2011, Structural Safety 33,
    145. The smallest ones are the most uncertain.
    """
    columns = {
        name: kept[name].to_numpy(np.float64, na_value=np.nan)
        for name in ("probability", "spread")
        if name in kept
    }
    probability = columns.get("probability", np.full(len(kept), np.nan))
    if not np.isfinite(probability).all():
        raise UserError(
            "choose = uncertain: the candidates have no probabilities; predict them again, by a "
            "run that keeps its calibration, or choose top, diverse or random"
        )

    # One model alone has no spread.
    spread = columns.get("spread", np.full(len(kept), np.nan))
    return np.abs(logit(probability)) / np.where(spread > 0, spread, 1)


def _farthest(
    embeddings: np.ndarray | None, wanted: int, left: np.ndarray, chosen: np.ndarray
) -> np.ndarray:
    """Return rows that lie far from each other and from those that are chosen already.

    Each is the farthest from all before it: k-center-greedy of Sener & Savarese 2018 (arXiv
    1708.00489), which begins with the best candidate where nothing is chosen.
    """
    if embeddings is None:
        raise UserError("choose = diverse: needs a model that embeds the candidates; give run=RUN")
    points = embeddings[left].astype(np.float64)
    nearest = np.full(len(left), np.inf)
    for row in chosen:
        nearest = np.minimum(nearest, _squared_distances(points, embeddings[row]))

    found: list[int] = []
    for _ in range(wanted):
        farthest = int(np.argmax(nearest))
        nearest = np.minimum(nearest, _squared_distances(points, points[farthest]))
        nearest[farthest] = -np.inf
        found.append(farthest)
    return left[found]


def _squared_distances(points: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return the squared distance of each point (N, D) from another (D,), (N,)."""
    return ((points - centre) ** 2).sum(axis=1)
