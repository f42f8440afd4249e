import numpy as np
import pytest
from scipy.integrate import dblquad

from lens_hpc.errors import UserError
from lens_hpc.sky.psf import check_stamp, moffat_stamp, pad_stamps


@pytest.mark.parametrize(("fwhm", "pixel_scale"), [(0.6, 0.168), (0.16, 0.1), (1.2, 0.2)])
def test_a_moffat_stamp_averages_its_profile_over_pixels(fwhm: float, pixel_scale: float) -> None:
    stamp = moffat_stamp(fwhm, pixel_scale)
    check_stamp(stamp, "moffat")
    middle = len(stamp) // 2

    # With beta = 3, alpha is FWHM / (2 sqrt(2^(1/3) - 1)) and the integral is pi alpha^2 / 2.
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / 3) - 1))

    def profile(y: float, x: float) -> float:
        return 2 / (np.pi * alpha**2) * (1 + (x**2 + y**2) / alpha**2) ** -3

    for row, column in [(0, 0), (1, 0), (1, 2)]:
        x, y = column * pixel_scale, row * pixel_scale
        half = pixel_scale / 2
        expected, _ = dblquad(profile, x - half, x + half, y - half, y + half)
        found = stamp[middle + row, middle + column]
        # A thousandth of the light lies outside of the stamp.
        assert found == pytest.approx(expected, rel=3e-3)


def test_stamps_of_several_sizes_are_stacked_around_their_middles() -> None:
    small, large = moffat_stamp(0.5, 0.2), moffat_stamp(1.5, 0.2)
    stamps = pad_stamps([small, large])
    assert stamps.shape == (2, len(large), len(large))
    np.testing.assert_allclose(stamps.sum(axis=(1, 2)), 1)
    for stamp in stamps:
        check_stamp(stamp, "stack")


def shifted(by: int) -> np.ndarray:
    stamp = np.pad(moffat_stamp(0.5, 0.2), 3)
    return np.roll(stamp, by, axis=1)


@pytest.mark.parametrize(
    ("stamp", "told"),
    [
        (np.full((4, 4), 1 / 16), "must be of odd size"),
        (np.full((3, 5), 1 / 15), "must be a square image"),
        (np.full((1, 3, 3), 1 / 9), "must be a square image"),
        (np.full((3, 3), np.nan), "not finite"),
        (moffat_stamp(0.5, 0.2) * 1.1, "sums to 1.1, not 1; divide"),
        (np.zeros((3, 3)), "sums to 0"),
        (shifted(1), r"x = 1.00 and y = 0.00 px"),
    ],
)
def test_an_image_that_is_no_psf_is_refused(stamp: np.ndarray, told: str) -> None:
    with pytest.raises(UserError, match=rf"psf\.fits: .*{told}"):
        check_stamp(stamp, "psf.fits")
