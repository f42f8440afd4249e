"""Objects of one place are found whatever their order, and known lenses at the right distance."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_hpc.errors import UserError
from lens_hpc.grading.sky_matches import match_known, number_places
from lens_hpc.reporting.recovery import KnownLenses

ARCSEC = 1 / 3600
NOWHERE = (np.nan, np.nan)


def at(*arcsec: float, dec: float = 60.0) -> np.ndarray:
    """Positions so far along a circle of declination, across 0 degrees."""
    east = np.array(arcsec) * ARCSEC / np.cos(np.radians(dec))
    return np.stack([(359.9999 + east) % 360, np.full(len(arcsec), dec)], axis=1)


def test_friends_of_friends_share_a_place() -> None:
    positions = at(0, 1.9, 3.8, 10, 12.1)
    places = number_places(np.vstack([NOWHERE, positions, NOWHERE]), 2.0)
    assert places.tolist() == [0, 1, 1, 1, 2, 3, 4]


def test_there_may_be_no_position() -> None:
    assert number_places(np.full((3, 2), np.nan), 2.0).tolist() == [0, 1, 2]
    assert number_places(np.empty((0, 2)), 2.0).tolist() == []


@given(st.lists(st.floats(0, 40), min_size=1, max_size=30))
def test_places_are_chains_with_links_of_two_arcsec(arcsec: list[float]) -> None:
    """Along a line, a place ends where the next position is too far."""
    places = number_places(at(*arcsec, dec=0.0), 2.0)
    in_order = np.argsort(arcsec)
    gaps = np.diff(np.array(arcsec)[in_order])
    # Rounding decides what is as near as that.
    clear = abs(gaps - 2.0) > 1e-6
    joined = np.diff(places[in_order]) == 0
    assert (joined == (gaps < 2.0))[clear].all()


def known_lenses(*arcsec: float) -> KnownLenses:
    names = [f"L{offset:g}" for offset in arcsec]
    return KnownLenses(Path("known.csv"), names, at(*arcsec))


def test_the_nearest_known_lens_within_two_arcsec_is_told() -> None:
    positions = np.vstack([at(0, 8.5, 100), NOWHERE])
    found = match_known(positions, known_lenses(-1.5, 9, 7, 97.9))
    assert found["known"].fillna("").tolist() == ["known", "known", "new", ""]
    assert found["known_name"].fillna("").tolist() == ["L-1.5", "L9", "", ""]
    assert found["known_arcsec"].tolist() == pytest.approx(
        [1.5, 0.5, np.nan, np.nan], abs=1e-6, nan_ok=True
    )


def test_without_a_list_nothing_is_known_or_new() -> None:
    found = match_known(at(0, 5), None)
    assert found.isna().all(axis=None)
    assert found["known_arcsec"].dtype == float


def test_a_list_of_known_lenses_needs_positions() -> None:
    with pytest.raises(UserError, match="known: no candidate has a position"):
        match_known(np.full((3, 2), np.nan), known_lenses(0))
