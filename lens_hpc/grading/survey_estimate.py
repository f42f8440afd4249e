"""What the grades of a top and of a random slice tell of the whole survey."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from lens_hpc.grading.choosing import RANDOM
from lens_hpc.grading.graders import LENS_LETTERS
from lens_hpc.metrics import estimate_survey

NO_SLICE = (
    "no random slice was drawn beside the top, such as with random=500 of lens-hpc predict, so "
    "nothing is known of what lies below"
)
ENOUGH_GRADERS = 3
"""A lens of the slice stands for many, and so does an error. Graders who are wrong in 5 % of cases
spoil the completeness when one or two of them decide; three who agree do not."""
NO_CHANCE = (
    "limit left out candidates that had no chance to be graded; without limit, or with a random "
    "share in choose, as in {top: 0.7, random: 0.3}, all have one"
)


def describe_survey(table: pd.DataFrame, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return completeness, purity and number of lenses of the survey, as JSON has them.

    `table` has the candidates as `rank_candidates` returns them, and `settings` are those by which
    they were chosen. A lens is one of grade A or B, and what is judged is the selection of those
    that were sure to be looked at. `to_confirm` has the ids of lenses of the slice that too few
    graders have seen. Where nothing can be told, `why_not` says why.
    """
    chances = table["inclusion_probability"].to_numpy(dtype=np.float64)
    if not (chances < 1).any():
        return {"why_not": NO_SLICE}
    if settings["limit"] is not None and RANDOM not in settings["choose"]:
        return {"why_not": NO_CHANCE}
    if np.isnan(chances).any():
        return {"why_not": "some candidates were chosen with an unknown probability"}

    # Those that are left are no random ones: what looks dull is put off.
    ungraded = int(table["grade"].isna().sum())
    if ungraded:
        return {"why_not": f"{ungraded:,} of {len(table):,} candidates have no grade yet"}

    is_lens = table["grade"].isin(LENS_LETTERS).to_numpy()
    by_few = is_lens & (chances < 1) & (table["n_grades"].to_numpy() < ENOUGH_GRADERS)
    estimate = asdict(estimate_survey(is_lens, chances == 1, chances))
    return estimate | {"to_confirm": table["id"][by_few].tolist()}
