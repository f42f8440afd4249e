"""How many lenses somebody finds who inspects a ranking from its top."""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from lens_hpc.metrics.intervals import agresti_coull
from lens_hpc.metrics.ranking import TAIL, Curve, Interval
from lens_hpc.metrics.samples import ScoredSample

# So many objects are inspected, or this fraction of all.
OBJECTS = (100, 500, 1000)
FRACTION = 0.01
FEWEST_OBJECTS = 10


@dataclass(frozen=True)
class Inspection:
    """What is found by inspecting the objects with the highest scores."""

    objects: int
    """So many of them."""
    lenses: int
    """Found among them."""
    share: float
    """Of all lenses."""
    share_ci95: Interval | None
    """Of the share of lenses above this threshold; None where it would say nothing."""


def inspect_top(sample: ScoredSample, has_intervals: bool = True) -> list[Inspection]:
    """Return what is found in the first 100, 500, 1,000 objects and in 1%, where there are more.

    The score of the last one is the threshold. Given that, the lenses above it are binomial.
    Another sample has another threshold.
    """
    curve = sample.curve
    count = int(curve.lenses + curve.non_lenses)
    objects = np.unique([*OBJECTS, first_percent(count)])
    objects = objects[(objects > 0) & (objects < count)]

    inspections = []
    for number, lenses in zip(objects, lenses_in_top(curve, objects), strict=True):
        interval = share_interval(sample, int(lenses)) if has_intervals else None
        share = float(lenses / curve.lenses)
        inspections.append(Inspection(int(number), int(lenses), share, interval))
    return inspections


def first_percent(count: int) -> int:
    """Return how many objects are 1% of all; 0 where that is too few to inspect."""
    number = int(FRACTION * count)
    return number if number >= FEWEST_OBJECTS else 0


def lenses_in_top(curve: Curve, objects: np.ndarray) -> np.ndarray:
    """Return how many lenses are among the first so many objects, (K,), of a single ranking.

    Ties count against us: of objects with the same score, the non-lenses are inspected first.
    """
    inspected = curve.true_positives + curve.false_positives
    positions = np.searchsorted(inspected, objects)
    with_higher_scores = np.where(positions > 0, curve.true_positives[positions - 1], 0)
    return np.maximum(with_higher_scores, objects - curve.false_positives[positions])


def share_interval(sample: ScoredSample, number_above: int, label: int = 1) -> Interval:
    """Return the interval of the share of the lenses of which `number_above` exceed a threshold.

    With a label of 0, that of the non-lenses. It is that of Agresti & Coull, with as many trials as
    the groups tell, and Student's t with one degree of freedom less than there are groups.
    """
    number_of_class = 0 if label == 1 else 1
    sizes = sample.sizes_by_number_above[number_of_class]
    degrees = np.inf if sample.groups is None else max(sample.independent[number_of_class] - 1, 1)
    quantile = float(stdtrit(degrees, 1 - TAIL))
    return agresti_coull(number_above / (len(sizes) - 1), float(sizes[number_above]), quantile)
