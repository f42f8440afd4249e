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
# Softens the cusp in the lens's centre, arcsec.
CORE_ARCSEC = 1e-3


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

    def source_position(
        self, x: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return where the line of sight (x, y) meets the source plane."""
        q = torch.tensor(self.q)
        phi = torch.tensor(self.phi)
        bend_x, bend_y = reduced_deflection_angle_sie(
            self.x, self.y, q, phi, self.theta_e, x, y, s=CORE_ARCSEC
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
    lens_distance = comoving_distance_mpc(z_lens)
    source_distance = comoving_distance_mpc(z_source)
    distance_ratio = 1 - lens_distance / source_distance
    beta = sigma_v / SPEED_OF_LIGHT_KM_S
    return 4 * math.pi * beta**2 * distance_ratio * ARCSEC_PER_RADIAN
