"""The velocity dispersion of an elliptical of which only the brightness is known."""

import math

import numpy as np

from lens_hpc.sky.cosmology import comoving_distance_mpc

# Ellipticals of one luminosity scatter around log sigma = constant - 0.102 M by 0.07 (Bernardi et
# al. 2003, AJ 125, 1849). The constant is such that M = -22.4 in i goes with 200 km/s, as in
# `sky.galaxies`.
DEX_PER_MAGNITUDE = -0.102
SCATTER_DEX = 0.07
MAGNITUDE_AT_200 = -22.4
# Magnitudes by which i becomes fainter a unit of redshift, for an old population: an estimate.
K_CORRECTION = 0.9


def draw_velocity_dispersion(rng: np.random.Generator, mag_i: float, z: float) -> float:
    """Draw the velocity dispersion of an elliptical of magnitude i (AB) at a redshift, km/s."""
    luminosity_distance_mpc = comoving_distance_mpc(z) * (1 + z)
    distance_modulus = 5 * math.log10(luminosity_distance_mpc) + 25
    absolute_magnitude = mag_i - distance_modulus - K_CORRECTION * z

    dex = DEX_PER_MAGNITUDE * (absolute_magnitude - MAGNITUDE_AT_200)
    return 200 * 10 ** (dex + rng.normal(0, SCATTER_DEX))
