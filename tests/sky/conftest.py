import numpy as np
import pytest

from lens_hpc.sky.camera import Camera, draw_camera


@pytest.fixture
def camera() -> Camera:
    return draw_camera(np.random.default_rng(0), ("g", "r", "i"), 64, 0.168)
