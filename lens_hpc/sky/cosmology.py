"""Distances in a flat universe with H0 = 70 km/s/Mpc and Omega_m = 0.3."""

from functools import cache

import numpy as np
from astropy.cosmology import FlatLambdaCDM

MAXIMUM_Z = 20
GRID_POINTS = 2001


def comoving_distance_mpc(z: float) -> float:
    """Return the comoving distance of a redshift up to 20, Mpc."""
    redshifts, distances = _comoving_distances()
    return float(np.interp(z, redshifts, distances))


@cache
def _comoving_distances() -> tuple[np.ndarray, np.ndarray]:
    """Return a grid of redshifts and their distances: to integrate for each object is slow."""
    redshifts = np.linspace(0, MAXIMUM_Z, GRID_POINTS)
    universe = FlatLambdaCDM(H0=70, Om0=0.3)
    return redshifts, universe.comoving_distance(redshifts).value
