import numpy as np
import pytest

from lens_hpc.sky.camera import Camera
from lens_hpc.sky.light import ZERO_POINT
from tests.sky.components import light


@pytest.mark.parametrize(
    "changes",
    [{}, {"n": 2.0}, {"arms": 0.8, "q": 1.0}, {"ring_width": 0.15, "radius": 1.5}],
)
def test_a_component_has_the_flux_of_its_magnitude(
    camera: Camera, changes: dict[str, float]
) -> None:
    flux = camera.expose([light(**changes)]).sum(dim=(1, 2))
    expected = [10 ** (-0.4 * (magnitude - ZERO_POINT)) for magnitude in (21.0, 20.35, 20.0)]
    np.testing.assert_allclose(flux.numpy(), expected, rtol=0.05)
