import numpy as np
import pytest
from scipy.ndimage import rotate

from lens_hpc.auditing.duplicates import DuplicatePair
from lens_hpc.auditing.same_sky import MINIMUM_ROWS, find_same_sky, sky_signatures
from tests.auditing.test_duplicates import galaxies, smooth_galaxies

SIZE = 48
MARGIN = 20


@pytest.fixture(scope="module")
def wide() -> np.ndarray:
    """Pieces of sky that are wider than the cutouts."""
    return galaxies(60, size=SIZE + 2 * MARGIN)


def cut(wide: np.ndarray, up: int = 0, right: int = 0) -> np.ndarray:
    rows = slice(MARGIN + up, MARGIN + up + SIZE)
    columns = slice(MARGIN + right, MARGIN + right + SIZE)
    return wide[..., rows, columns]


def find(images: np.ndarray) -> list[DuplicatePair]:
    """Look for pairs of the first half and the second."""
    splits = np.arange(len(images)) * 2 // len(images)
    return find_same_sky(sky_signatures(images), splits)


@pytest.mark.parametrize(("up", "right"), [(0, 1), (1, 0), (5, 0), (-3, 4)])
def test_a_shifted_piece_is_found(wide: np.ndarray, up: int, right: int) -> None:
    images = cut(wide).copy()
    images[47] = cut(wide, up, right)[11]
    assert find(images) == [DuplicatePair(11, 47)]


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("degrees", [3, 10, 45, 100])
def test_a_turned_piece_is_found(wide: np.ndarray, degrees: float, order: int) -> None:
    images = cut(wide).copy()
    turned = rotate(wide[11], degrees, axes=(-2, -1), reshape=False, order=order)
    images[47] = cut(turned, 1, -2)[..., ::-1] * 3 + 5
    assert find(images) == [DuplicatePair(11, 47)]


def test_pairs_of_one_split_are_left_out(wide: np.ndarray) -> None:
    images = cut(wide).copy()
    images[12] = cut(wide, 1)[11]
    assert find(images) == []


@pytest.mark.slow
@pytest.mark.parametrize("size", [5, 8, 16, 24, 32, 64])
def test_other_galaxies_are_not_the_same_sky(size: int) -> None:
    assert find(galaxies(400, size=size, seed=size)) == []


def test_correlations_of_unrelated_cutouts_are_normal() -> None:
    signatures = sky_signatures(galaxies(300, size=40))
    signatures = signatures[:, signatures.std(axis=0) > 0]
    vectors = (signatures - signatures.mean(axis=0)) / signatures.std(axis=0)
    correlations = np.corrcoef(vectors)
    sigmas = correlations[np.triu_indices(300, 1)]
    sigmas /= sigmas.std()
    assert abs((abs(sigmas) > 3).mean() - 0.0027) < 0.001
    assert abs(sigmas).max() < 6


@pytest.mark.parametrize("flattening", [1 / 400, 1 / 40])
def test_cutouts_without_noise_do_not_confuse_it(flattening: float) -> None:
    assert find(smooth_galaxies(100, flattening)) == []


def test_constant_and_few_cutouts_have_no_pairs() -> None:
    assert find(np.zeros((40, 2, 32, 32), np.uint8)) == []
    assert find(np.tile(galaxies(1), (MINIMUM_ROWS - 1, 1, 1, 1))) == []


@pytest.mark.parametrize("size", [1, 2, 3, 8, 64])
def test_no_cutouts_have_as_many_numbers_as_some(size: int) -> None:
    some = sky_signatures(np.ones((3, 2, size, size), np.float32))
    none = sky_signatures(np.ones((0, 2, size, size), np.float32))
    assert none.shape == (0, some.shape[1])
