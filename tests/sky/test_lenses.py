import numpy as np
import pytest

from lens_hpc.errors import UserError
from lens_hpc.sky import lenses
from lens_hpc.sky.camera import Camera, draw_camera
from lens_hpc.sky.lenses import MINIMUM_MAGNIFICATION, draw_lens


def test_lenses_are_magnified(camera: Camera) -> None:
    scene = draw_lens(np.random.default_rng(2), camera)
    assert scene.lens is not None
    arcs = camera.expose(scene.sources, scene.lens).sum()
    unlensed = sum(float(part.flux(camera.bands).sum()) for part in scene.sources)
    assert arcs >= MINIMUM_MAGNIFICATION * unlensed


def test_cutouts_that_can_show_no_lens_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lenses, "MAXIMUM_ATTEMPTS", 20)
    rng = np.random.default_rng(2)
    camera = draw_camera(rng, ("i",), 10, 0.2)
    with pytest.raises(UserError, match=r"no visible lens in 20 draws with cutouts of 10 px"):
        draw_lens(rng, camera)
