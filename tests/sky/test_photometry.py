import math

import numpy as np
import pytest

from lens_hpc.sky.galaxies import Scene
from lens_hpc.sky.photometry import PHOTO_Z_SCATTER, Measured, draw_photo_z, measure
from tests.sky.components import light


def measurements(scene: Scene, count: int) -> list[Measured]:
    rng = np.random.default_rng(4)
    return [measure(rng, scene) for _ in range(count)]


def test_a_compact_galaxy_has_the_magnitudes_that_it_was_given() -> None:
    galaxy = light(mag_i=20.0, color_gi=2.0, bend=0.1, radius=0.2, q=1.0)
    measured = measurements(Scene(0.5, (galaxy,)), 30)
    assert np.mean([one.mag_i for one in measured]) == pytest.approx(20.0, abs=0.1)
    assert np.mean([one.color_gi_inner for one in measured]) == pytest.approx(2.0, abs=0.02)
    assert np.mean([one.color_gi_outer for one in measured]) == pytest.approx(2.0, abs=0.03)
    assert np.mean([one.color_ri for one in measured]) == pytest.approx(0.35 * 2 + 0.1, abs=0.02)
    assert 0.01 < np.std([one.color_gi_inner for one in measured]) < 0.06


def test_light_around_a_galaxy_changes_the_outer_color_most() -> None:
    galaxy = light(mag_i=20.0, color_gi=2.5, radius=0.2, q=1.0)
    ring = light(mag_i=21.0, color_gi=0.5, radius=1.5, ring_width=0.2, q=1.0)
    measured = measurements(Scene(0.5, (galaxy, ring)), 10)
    inner = np.mean([one.color_gi_inner for one in measured])
    outer = np.mean([one.color_gi_outer for one in measured])
    assert outer < inner - 0.5


def test_what_is_too_faint_is_missing() -> None:
    measured = measurements(Scene(0.5, (light(mag_i=32.0),)), 20)
    assert any(math.isnan(one.color_gi_outer) for one in measured)


def test_photometric_redshifts_scatter_fail_and_are_missing() -> None:
    rng = np.random.default_rng(4)
    photo_z = np.array([draw_photo_z(rng, 0.5) for _ in range(5000)])
    is_missing = np.isnan(photo_z)
    assert is_missing.mean() == pytest.approx(0.03, abs=0.01)
    error = (photo_z[~is_missing] - 0.5) / 1.5
    is_far_off = np.abs(error) > 5 * PHOTO_Z_SCATTER
    # Some of the failures land near the truth.
    assert 0.01 < is_far_off.mean() < 0.05
    spread = np.subtract(*np.percentile(error, [84, 16])) / 2
    assert spread == pytest.approx(PHOTO_Z_SCATTER, rel=0.15)
