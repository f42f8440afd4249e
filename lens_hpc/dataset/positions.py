"""Positions on the sky: which kept columns hold them, and how far apart they are."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

RIGHT_ASCENSIONS = ("ra", "rightascension", "alpha")
DECLINATIONS = ("dec", "de", "decl", "declination", "delta")
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
