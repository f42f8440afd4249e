"""How a lens bends light. Angles are in arcsec, position angles in radians."""

import math
from dataclasses import dataclass

import torch
from caustics.lenses.func import (
    reduced_deflection_angle_external_shear,
    reduced_deflection_angle_sie,
)

from lens_hpc.sky.cosmology import comoving_distance_mpc

SPEED_OF_LIGHT_KM_S = 299_792.458
ARCSEC_PER_RADIAN = math.degrees(1) * 3600
CORE_ARCSEC = 1e-3
"""Softens the cusp in the lens's centre, for coordinates of single precision."""


@dataclass(frozen=True)
class Lens:
    """A singular isothermal ellipsoid with external shear."""

    x: float
    y: float
    q: float
    """Axis ratio."""
    phi: float
    """Position angle."""
    theta_e: float
    """Einstein radius."""
    gamma_1: float
    gamma_2: float
    core: float = CORE_ARCSEC
    """The Einstein radius becomes smaller by about as much as the core is wide."""

    def source_position(
        self, x: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return where the line of sight (x, y) meets the source plane."""
        q = torch.tensor(self.q)
        phi = torch.tensor(self.phi)
        bend_x, bend_y = reduced_deflection_angle_sie(
            self.x, self.y, q, phi, self.theta_e, x, y, s=self.core
        )
        shear_x, shear_y = reduced_deflection_angle_external_shear(
            self.x, self.y, self.gamma_1, self.gamma_2, x, y
        )
        return x - bend_x - shear_x, y - bend_y - shear_y


def einstein_radius(sigma_v: float, z_lens: float, z_source: float) -> float:
    """Return the Einstein radius of an isothermal sphere, arcsec.

    It is 4 pi (sigma_v / c)^2 D_ls / D_s (Narayan & Bartelmann 1996, astro-ph/9606001), with the
    velocity dispersion sigma_v in km/s.
    """
    beta = sigma_v / SPEED_OF_LIGHT_KM_S
    return 4 * math.pi * beta**2 * _distance_ratio(z_lens, z_source) * ARCSEC_PER_RADIAN


def velocity_dispersion(theta_e: float, z_lens: float, z_source: float) -> float:
    """Return the velocity dispersion of an isothermal sphere of that Einstein radius, km/s."""
    radians = theta_e / ARCSEC_PER_RADIAN
    beta = math.sqrt(radians / (4 * math.pi * _distance_ratio(z_lens, z_source)))
    return beta * SPEED_OF_LIGHT_KM_S


def _distance_ratio(z_lens: float, z_source: float) -> float:
    """Return D_ls / D_s in a flat universe."""
    return 1 - comoving_distance_mpc(z_lens) / comoving_distance_mpc(z_source)
