"""Verdicts: how much of the label a number may tell before it is worth a look, or a leak.

Catalogues and galaxies may well tell something about lenses. The exposure, the sky and the file
have no business to.

An audit tries many numbers, of which one might stand out by chance. The limits see to that: of two
classes of 30 rows, the smallest that are judged, the AUC of a number that says nothing has a
standard error of 0.075 (Mann & Whitney 1947, Ann. Math. Stat. 18, 50). For its interval to begin at
0.7, it must be about 0.83: 4.4 standard errors from 0.5, which happens once in 100,000 numbers.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import betabinom

from lens_hpc.auditing.shortcuts import Power
from lens_hpc.dataset.verdict import Finding

# A ranking that is all but perfect leaks, however few samples there are to prove it.
PERFECT_AUC = 0.999
# Rows of one class that a number tells from all of the other are worth a look from this share on,
# if chance would do that in one of a thousand audits with a thousand such numbers.
LARGEST_SHARE_TOLD = 0.1
CHANCE_OF_SHARE_TOLD = 1e-6


class Limits(NamedTuple):
    """AUCs from which on the verdict is `look` or `leak`.

    An AUC has reached a limit when the lower end of its confidence interval has.
    """

    look: float
    leak: float


OBJECT_LIMITS = Limits(look=0.85, leak=0.95)
"""For what an object is like: its features, its light."""

EXPOSURE_LIMITS = Limits(look=0.7, leak=0.8)
"""For what its exposure is like: the sky, the file."""

CENTRE_LIMITS = Limits(look=0.85, leak=float("inf"))
"""For how far the light is off the centre: a bright arc may honestly move it."""

NAME_LIMITS = Limits(look=0.7, leak=float("inf"))
"""For names of rows, which no model is shown: they may say where a shortcut comes from."""


def judge_power(check: str, power: Power | None, limits: Limits) -> Finding:
    """Return the finding of a check whose numbers tell the classes with this power."""
    if power is None:
        return Finding(verdict="look", check=check, found="too few lenses or non-lenses to tell")

    surely_reached, _ = power.ci95
    is_perfect = power.auc >= PERFECT_AUC
    if surely_reached >= limits.leak or (is_perfect and limits.leak <= 1):
        verdict = "leak"
    elif surely_reached >= limits.look or is_perfect:
        verdict = "look"
    else:
        verdict = "fine"
    return Finding(verdict=verdict, check=check, found=str(power))


class ToldApart(NamedTuple):
    """How many rows of a class a number tells from all rows of the other."""

    share: float
    chance: float
    """How probable so many are where the number has nothing to do with the class."""

    @property
    def is_notable(self) -> bool:
        """Say whether they are many, and not by chance."""
        return self.share >= LARGEST_SHARE_TOLD and self.chance < CHANCE_OF_SHARE_TOLD


def tell_apart(one_class: np.ndarray, other_class: np.ndarray) -> ToldApart:
    """Count the values of `one_class` below or above all of `other_class`, the end with more.

    NaN is left out. Where both classes are alike, the share of all values below the least of m is
    distributed as Beta(1, m) (the first order statistic), so the count has a beta-binomial
    distribution.
    """
    ones = one_class[~np.isnan(one_class)]
    others = other_class[~np.isnan(other_class)]
    if not len(ones) or not len(others):
        return ToldApart(share=0, chance=1)

    told = max((ones < others.min()).sum(), (ones > others.max()).sum())
    chance = betabinom.sf(told - 1, len(ones), 1, len(others))
    return ToldApart(share=float(told / len(ones)), chance=float(chance))
