"""How well graders agree, beyond what chance alone would bring about."""

import numpy as np


def cohen_kappa(first: np.ndarray, second: np.ndarray) -> float:
    """Return the kappa of two graders of the same items (Cohen 1960, Educ. Psychol. Meas. 20, 37).

    `first` and `second` are the categories that each gave, (N,), of any type that sorts. Kappa is 1
    where they always agree, and 0 where they agree as often as chance would have it. It is NaN
    without items, and where both gave all items the same category, which tells nothing.
    """
    if not len(first):
        return float("nan")
    categories, codes = np.unique([first, second], return_inverse=True)
    of_first, of_second = codes.reshape(2, -1)
    observed = float((of_first == of_second).mean())

    size = len(categories)
    shares_of_first = np.bincount(of_first, minlength=size) / len(first)
    shares_of_second = np.bincount(of_second, minlength=size) / len(first)
    return _beyond_chance(observed, float(shares_of_first @ shares_of_second))


def fleiss_kappa(counts: np.ndarray) -> float:
    """Return the kappa of several graders (Fleiss 1971, Psychol. Bull. 76, 378).

    `counts` (N, categories) tells how many graders gave each item each category. Where some items
    have fewer grades than others, the share of a category is the mean of its shares by item, and
    only items with two grades or more tell how often graders agree (Gwet 2014, Handbook of
    Inter-Rater Reliability, 4th ed., ch. 2). It is NaN where no item has two grades, and where all
    grades are the same.
    """
    counts = counts[counts.sum(axis=1) > 0].astype(np.float64)
    graders = counts.sum(axis=1)
    has_two = graders >= 2
    if not has_two.any():
        return float("nan")

    # Of all pairs of graders of an item, the share that agree.
    pairs = graders * (graders - 1)
    agreeing = (counts * (counts - 1)).sum(axis=1)
    share_agreeing = agreeing[has_two] / pairs[has_two]
    observed = float(share_agreeing.mean())

    shares_by_item = counts / graders[:, np.newaxis]
    shares = shares_by_item.mean(axis=0)
    return _beyond_chance(observed, float(shares @ shares))


def _beyond_chance(observed: float, by_chance: float) -> float:
    """Return the kappa of an observed agreement; NaN where chance alone makes all agree."""
    # The shares of a single category add up to 1 but for rounding.
    if by_chance > 1 - 1e-12:
        return float("nan")
    return (observed - by_chance) / (1 - by_chance)
