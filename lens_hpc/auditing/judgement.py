"""Verdicts: how much of the label a number may tell before it is worth a look, or a leak.

Catalogues and galaxies may well tell something about lenses. The exposure, the sky and the file
have no business to.
"""

from typing import NamedTuple

from lens_hpc.auditing.shortcuts import Power
from lens_hpc.dataset.verdict import Finding

# A ranking that is all but perfect leaks, however few samples there are to prove it.
PERFECT_AUC = 0.999


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


def judge_power(check: str, power: Power | None, limits: Limits) -> Finding:
    """Return the finding of a check whose numbers tell the classes with this power."""
    if power is None:
        return Finding(verdict="look", check=check, found="too few lenses or non-lenses to tell")

    surely_reached, _ = power.ci95
    if power.auc >= PERFECT_AUC or surely_reached >= limits.leak:
        verdict = "leak"
    elif surely_reached >= limits.look:
        verdict = "look"
    else:
        verdict = "fine"
    return Finding(verdict=verdict, check=check, found=str(power))
