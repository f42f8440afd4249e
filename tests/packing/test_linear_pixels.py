"""Pictures that were made to be looked at are known by their values."""

import numpy as np
import pytest

from lens_hpc.packing.linear_pixels import reason_against_fluxes


def pictures(stretched: np.ndarray) -> list[np.ndarray]:
    """Return 20 cutouts of whole numbers from 0 to 255."""
    return [np.clip(np.round(picture), 0, 255) for picture in stretched]


def test_8_bit_pictures_stored_as_floats_are_known() -> None:
    rng = np.random.default_rng(0)
    # With a common peak, and without one.
    noise = rng.normal(60, 30, (20, 3, 32, 32))
    assert "256 different values" in reason_against_fluxes(pictures(noise * 2))
    divided = [picture / 255 for picture in pictures(noise)]
    assert "different values" in reason_against_fluxes(divided)


def test_stretched_pictures_are_known_by_their_common_end() -> None:
    rng = np.random.default_rng(0)
    stretched = np.clip(rng.normal(0.5, 0.3, (20, 3, 32, 32)), 0, 1)
    assert "end at 1 in most cutouts" in reason_against_fluxes([*stretched])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_fluxes_are_fluxes(dtype: type) -> None:
    rng = np.random.default_rng(0)
    fluxes = rng.normal(0.5, 0.3, (20, 3, 32, 32)).astype(dtype)
    assert reason_against_fluxes([*fluxes]) == ""
