import math

import pytest
import torch

from lens_hpc.sky.camera import Camera
from lens_hpc.sky.deflection import Lens, einstein_radius
from tests.sky.components import light


def test_the_einstein_radius_is_the_textbooks() -> None:
    # sigma_v = 250 km/s at z = 0.5, source at z = 2: D_ls/D_s from an independent integration
    # is 0.636
    expected = 4 * math.pi * (250 / 299792.458) ** 2 * 0.636 * 206265
    assert einstein_radius(250, 0.5, 2.0) == pytest.approx(expected, rel=0.005)


def test_a_source_behind_the_centre_of_a_round_lens_becomes_a_ring(camera: Camera) -> None:
    lens = Lens(x=0, y=0, q=0.999, phi=0, theta_e=2.0, gamma_1=0, gamma_2=0)
    source = light(q=1.0, radius=0.1)
    arcs = camera.expose([source], lens)[2]
    axis = torch.arange(64) - 31.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    radius = torch.hypot(x, y) * 0.168
    mean_radius = float((arcs * radius).sum() / arcs.sum())
    assert mean_radius == pytest.approx(2.0, abs=0.15)
    assert arcs.sum() > 3 * camera.expose([source])[2].sum()
