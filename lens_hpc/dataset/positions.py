"""Positions on the sky: which kept columns hold them, and how far apart they are."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

RIGHT_ASCENSIONS = ("ra", "rightascension", "alpha")
DECLINATIONS = ("dec", "de", "decl", "declination", "delta")
ARCSEC_PER_RADIAN = 3600 * 180 / np.pi
DECORATIONS = re.compile(r"degrees|deg|j?2000|icrs|win|world|mean|targ|obj|[^a-z]")
"""What catalogues add to these names: RA_deg, RAJ2000, RA_ICRS, ALPHA_J2000, RA [deg], RAMean."""


def find_position_columns(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the names of right ascension and declination among columns; None if not both are."""
    right_ascension = declination = None
    for name in names:
        plain = _plain_name(name)
        if plain in RIGHT_ASCENSIONS and right_ascension is None:
            right_ascension = name
        if plain in DECLINATIONS and declination is None:
            declination = name
    if right_ascension is None or declination is None:
        return None
    return right_ascension, declination


def _plain_name(name: str) -> str:
    lower = name.lower()
    # These would lose their own end as if it were a unit.
    if lower in RIGHT_ASCENSIONS + DECLINATIONS:
        return lower
    return DECORATIONS.sub("", lower)


def positions_of(columns: "pd.DataFrame") -> np.ndarray:
    """Return right ascension and declination of the rows of a table, (N, 2). *Unit: degrees*

    They are NaN where the table has none, or no number that is one.
    """
    import pandas as pd

    positions = np.full((len(columns), 2), np.nan)
    found = find_position_columns(columns.columns)
    if found is None:
        return positions

    for number, name in enumerate(found):
        numbers = pd.to_numeric(columns[name].astype(object), errors="coerce")
        positions[:, number] = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    is_wrong = ~(np.abs(positions[:, 1]) <= 90) | ~(np.abs(positions[:, 0]) <= 360)
    positions[is_wrong] = np.nan
    return positions


def unit_vectors(positions: np.ndarray) -> np.ndarray:
    """Return points on the unit sphere, (N, 3), of right ascension and declination in degrees."""
    right_ascension, declination = np.radians(positions).T
    x = np.cos(declination) * np.cos(right_ascension)
    y = np.cos(declination) * np.sin(right_ascension)
    return np.stack([x, y, np.sin(declination)], axis=1)


def find_nearest(
    positions: np.ndarray, others: np.ndarray, within_arcsec: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of the nearest of `others` to each position, and how far it is, (N,) each.

    Both are in degrees, (N, 2) and (M, 2), the result in arcsec. Where none is within that limit,
    the number is M and the distance infinite.
    """
    from scipy.spatial import KDTree

    chord = 2 * np.sin(min(within_arcsec / ARCSEC_PER_RADIAN, np.pi) / 2)
    # A little more than the chord, so that rounding leaves nothing out.
    limit = chord * (1 + 1e-9)
    chords, numbers = KDTree(unit_vectors(others)).query(
        unit_vectors(positions), distance_upper_bound=limit
    )
    is_found = np.isfinite(chords)
    separations = np.full(len(positions), np.inf)
    half_chords = np.minimum(chords[is_found] / 2, 1)
    separations[is_found] = 2 * np.arcsin(half_chords) * ARCSEC_PER_RADIAN
    return numbers, separations


def first_of_each_place(positions: np.ndarray, within_arcsec: float) -> np.ndarray:
    """Return the numbers of those positions that are not near an earlier one, in their order."""
    from scipy.spatial import KDTree

    tree = KDTree(unit_vectors(positions))
    # The chord of a small angle is the angle.
    pairs = tree.query_pairs(within_arcsec / ARCSEC_PER_RADIAN, output_type="ndarray")
    is_later = np.zeros(len(positions), dtype=bool)
    is_later[pairs[:, 1]] = True
    return np.flatnonzero(~is_later)
