"""When there are too few lenses or non-lenses to say how certain a number is."""

from lens_hpc.metrics import ScoredSample

# With fewer samples of a class, or fewer groups that have some, a share of them has no interval.
FEWEST_FOR_SHARE = 10
# With fewer non-lenses, or fewer groups that have some, nothing is known of how they vary.
FEWEST_NON_LENSES = 5


def too_few_for_interval(
    sample: ScoredSample, lenses_needed: int, non_lenses_needed: int = FEWEST_NON_LENSES
) -> str:
    """Return what a sample lacks for an interval, or an empty text."""
    lenses, non_lenses = sample.independent
    unit = "" if sample.groups is None else "groups with "
    if lenses < lenses_needed:
        return f"too few {unit}lenses: {lenses} of the {lenses_needed} needed"
    if non_lenses < non_lenses_needed:
        return f"too few {unit}non-lenses: {non_lenses} of the {non_lenses_needed} needed"
    return ""
