import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from lens_hpc.auditing.textures import TEXTURE_NUMBERS, border_pixels, measure_textures

COARSE, REPEATED, FLOOR, ALONG_X, ALONG_Y, LINES = range(len(TEXTURE_NUMBERS))


def noise(rows: int = 20, size: int = 40, level: float = 0) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(level, 1, (rows, 2, size, size)).astype(np.float32)


def measure(images: np.ndarray) -> np.ndarray:
    """Return the mean of each number over cutouts and bands."""
    return np.asarray(measure_textures(images).mean(axis=(0, 1)))


def test_independent_noise_is_as_it_should_be() -> None:
    # A random mantissa ends with 1 zero on average: half of 1, a quarter of 2, ...
    pixels_of_frame = 40**2 - 30**2
    expected = [1, 0, 1 / pixels_of_frame, 1, 1, 0]
    np.testing.assert_allclose(measure(noise()), expected, atol=0.02)


def test_coarse_and_repeated_values() -> None:
    once_float16 = noise().astype(np.float16).astype(np.float32)
    assert measure(once_float16)[COARSE] == pytest.approx(14, abs=0.1)  # 23 - 10 bits, and 1
    assert measure(np.round(noise() * 10) * 0.1)[REPEATED] > 0.8
    assert measure((noise() * 10).astype(np.int16))[REPEATED] > 0.8


def test_a_clipped_sky() -> None:
    assert measure(np.maximum(noise(), 0))[FLOOR] == pytest.approx(0.5, abs=0.03)


def test_noise_that_is_correlated_along_one_axis() -> None:
    # Of AR(1) noise, neighbours differ by (1 - r) and second ones by (1 - r^2) in variance.
    rng = np.random.default_rng(0)
    r = 0.6
    rows = [rng.normal(size=(20, 2, 40))]
    for _ in range(39):
        rows.append(r * rows[-1] + np.sqrt(1 - r**2) * rng.normal(size=(20, 2, 40)))
    numbers = measure(np.stack(rows, axis=-1))
    assert numbers[ALONG_X] == pytest.approx(np.sqrt(1 + r), abs=0.03)
    assert numbers[ALONG_Y] == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("mode", ["edge", "symmetric", "reflect"])
def test_padding_repeats_lines(mode: str) -> None:
    padded = np.pad(noise(), ((0, 0), (0, 0), (0, 0), (3, 0)), mode)
    assert measure(padded)[LINES] > 0.05
    for sound in (noise(), np.maximum(noise(), 0), np.round(noise() * 4), np.maximum(noise(), 3)):
        assert measure(sound)[LINES] == 0


def test_a_galaxy_in_the_middle_changes_nothing() -> None:
    y, x = np.indices((40, 40)) - 19.5
    galaxy = 100 * np.exp(-np.hypot(x, y) / 2)
    with_galaxy = (noise() + galaxy).astype(np.float32)
    np.testing.assert_allclose(measure(with_galaxy), measure(noise()), atol=0.1)


@pytest.mark.parametrize("shape", [(3, 1, 1, 1), (3, 2, 2, 2), (3, 1, 5, 40), (0, 1, 8, 8)])
def test_cutouts_of_any_size_and_constant_ones(shape: tuple[int, ...]) -> None:
    for dtype in (np.uint8, np.float16, np.float32):
        numbers = measure_textures(np.zeros(shape, dtype))
        assert numbers.shape == (*shape[:2], len(TEXTURE_NUMBERS))
        assert len(border_pixels(np.zeros(shape, dtype), np.zeros((*shape[:2], 2)))) == shape[0]


def test_the_border_is_in_sigmas_above_the_sky() -> None:
    images = noise(level=5)
    images[0, 1, 0, 0] = 1e6
    sky = np.tile(np.float32([5, 2]), (20, 2, 1))
    border = border_pixels(images, sky)
    assert border.shape == (20, 2 * (4 * 40 - 4))
    assert border[1:].std() == pytest.approx(0.5, abs=0.02)
    assert border.max() == 20


def test_a_smoothed_cutout_has_correlated_noise_in_both_directions() -> None:
    smoothed = gaussian_filter(noise(), (0, 0, 1, 1))
    assert (measure(smoothed)[[ALONG_X, ALONG_Y]] > 1.3).all()
