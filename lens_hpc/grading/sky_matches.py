"""Which candidates are one object of the sky, and which are known lenses."""

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from lens_hpc.dataset.positions import ARCSEC_PER_RADIAN, find_nearest, unit_vectors
from lens_hpc.errors import UserError
from lens_hpc.reporting.recovery import SAME_LENS_ARCSEC, KnownLenses

KNOWN, NEW = "known", "new"


def number_places(positions: np.ndarray, within_arcsec: float) -> np.ndarray:
    """Number the places on the sky: friends of friends share one (Huchra & Geller 1982).

    Two positions are friends when they are at most `within_arcsec` apart. `positions` are right
    ascension and declination in degrees, (N, 2); one that is NaN is a place of its own. Returns
    integers, (N,).
    """
    placed = np.flatnonzero(np.isfinite(positions).all(axis=1))
    tree = KDTree(unit_vectors(positions[placed]))
    # The chord of a small angle is the angle.
    friends = tree.query_pairs(within_arcsec / ARCSEC_PER_RADIAN, output_type="ndarray")
    first, second = placed[friends].T

    count = len(positions)
    are_friends = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    return connected_components(are_friends, directed=False)[1]


def match_known(positions: np.ndarray, known: KnownLenses | None) -> pd.DataFrame:
    """Say of each position, (N, 2) in degrees, whether a lens of the list lies there.

    The columns are `known` (known or new; None where the position or the list is missing), the
    lens's `known_name`, and how far it is, `known_arcsec`. It is looked for within 2 arcsec, as by
    `lens-hpc evaluate`. Raises UserError where there is a list, and no position at all.
    """
    matches = pd.DataFrame(index=range(len(positions)))
    matches["known"] = pd.Series(None, index=matches.index, dtype=object)
    matches["known_name"] = pd.Series(None, index=matches.index, dtype=object)
    matches["known_arcsec"] = np.nan
    if known is None:
        return matches

    placed = np.flatnonzero(np.isfinite(positions).all(axis=1))
    if not len(placed):
        raise UserError(
            "known: no candidate has a position; name the columns of right ascension and "
            "declination in columns.keep of the survey's recipe, and predict it again"
        )
    numbers, separations = find_nearest(positions[placed], known.positions, SAME_LENS_ARCSEC)
    is_near = np.isfinite(separations)
    near = placed[is_near]
    matches.loc[placed, "known"] = NEW
    matches.loc[near, "known"] = KNOWN
    matches.loc[near, "known_name"] = [known.names[number] for number in numbers[is_near]]
    matches.loc[near, "known_arcsec"] = separations[is_near]
    return matches
