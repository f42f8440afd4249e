import math

import numpy as np
import pytest

from lens_hpc.errors import UserError
from lens_hpc.sky import lenses
from lens_hpc.sky.camera import draw_camera
from lens_hpc.sky.deflection import einstein_radius
from lens_hpc.sky.lenses import MINIMUM_MAGNIFICATION, VisibleLens, draw_lens
from lens_hpc.sky.surveys import EUCLID, HSC


def test_a_lens_is_what_its_numbers_say(lens: VisibleLens) -> None:
    assert lens.z_source > lens.galaxy.z
    expected = einstein_radius(lens.galaxy.sigma_v, lens.galaxy.z, lens.z_source)
    assert lens.mass.theta_e == pytest.approx(expected)
    assert lens.mass.theta_e > EUCLID.smallest_einstein_radius
    assert lens.signal_to_noise > EUCLID.least_signal_to_noise

    # An exposure without noise, by another camera.
    rng = np.random.default_rng(3)
    camera = draw_camera(rng, EUCLID, ("vis",), 128, 0.1)
    arcs = float(camera.expose(lens.sources, lens.mass).sum())
    unlensed = float(camera.expose(lens.sources).sum())
    assert lens.magnification == pytest.approx(arcs / unlensed, rel=0.05)
    assert lens.magnification >= MINIMUM_MAGNIFICATION
    assert lens.arcs_mag_i() == pytest.approx(
        lens.source_mag_i() - 2.5 * math.log10(lens.magnification)
    )
    assert lens.source_mag_i() < lens.sources[0].mag_i


def test_cutouts_that_can_show_no_lens_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lenses, "MAXIMUM_ATTEMPTS", 20)
    rng = np.random.default_rng(2)
    camera = draw_camera(rng, HSC, ("i",), 10, 0.2)
    with pytest.raises(UserError, match=r"no visible lens in 20 draws with cutouts of 10 px"):
        draw_lens(rng, camera, HSC)
