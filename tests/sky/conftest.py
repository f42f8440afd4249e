import numpy as np
import pytest

from lens_hpc.sky.camera import Camera, draw_camera
from lens_hpc.sky.lenses import VisibleLens, draw_lens
from lens_hpc.sky.surveys import EUCLID, HSC


@pytest.fixture
def camera() -> Camera:
    return draw_camera(np.random.default_rng(0), HSC, ("g", "r", "i"), 64, 0.168)


@pytest.fixture(scope="session")
def lens() -> VisibleLens:
    rng = np.random.default_rng(2)
    camera = draw_camera(rng, EUCLID, EUCLID.bands, EUCLID.size, EUCLID.pixel_scale)
    return draw_lens(rng, camera, EUCLID)
