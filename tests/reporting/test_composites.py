import numpy as np
import pytest

from lens_hpc.reporting.composites import Stretch, composite


@pytest.mark.parametrize("bands", [1, 2, 3, 5])
def test_composites_keep_colour_and_show_the_faint(bands: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(0, 1, size=(bands, 40, 40))
    image[:, 18:22, 18:22] += 500
    image[-1, 5:8, 5:8] += 30  # the reddest
    picture = composite(image, tuple("grizy"[:bands]))
    assert picture.shape == (40, 40, 3)
    assert picture.min() >= 0
    assert picture.max() <= 1
    assert picture[19, 19].mean() > 0.5

    sky = picture[25:].mean()
    if bands >= 3:
        assert picture[6, 6, 0] > 3 * sky
        assert picture[6, 6, 0] > 2 * picture[6, 6, 2]


def test_pictures_of_8_bits_stay_as_they_are() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    picture = composite(image, ("r", "g", "b"))
    np.testing.assert_array_equal(picture * 255, np.moveaxis(image, 0, -1))


@pytest.mark.parametrize("curve", [np.arcsinh, np.log1p, np.sqrt])
def test_every_curve_goes_from_black_to_white_and_keeps_colours(curve: np.ufunc) -> None:
    # A ramp of one colour on a sky without noise.
    ramp = np.zeros((3, 30, 20))
    ramp[:, 20, :] = np.array([1, 2, 3])[:, np.newaxis] * np.linspace(0, 50, 20)
    picture = composite(ramp, ("g", "r", "i"), Stretch(4.0, 100, curve))
    row = picture[20]
    assert (np.diff(row[:, 1]) > 0).all()
    np.testing.assert_allclose(picture[25:], 0)
    np.testing.assert_allclose(row[-1, 1], 1)
    np.testing.assert_allclose(row[1:10, 2] / row[1:10, 1], 1 / 2)
