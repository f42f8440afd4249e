import zlib

import numpy as np
import pytest

from lens_hpc.auditing import duplicates
from lens_hpc.auditing.duplicates import (
    ORIENTATIONS,
    DuplicatePair,
    Orientation,
    cutout_fingerprints,
    find_duplicates,
    orient,
)


def galaxies(count: int, size: int = 40, bands: int = 2, seed: int = 0) -> np.ndarray:
    """Much alike, each with its own noise."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((size, size)) - (size - 1) / 2
    widths = rng.uniform(4, 5, (count, 1, 1))
    profiles = np.exp(-np.hypot(x, y) / widths)
    light = profiles[:, None] * np.linspace(20, 30, bands)[:, None, None]
    noise = rng.normal(size=(count, bands, size, size))
    return (light + noise).astype(np.float32)


def smooth_galaxies(count: int, flattening: float) -> np.ndarray:
    """Much alike, without noise; each is a little flatter than the one before."""
    y, x = np.indices((32, 32)) - 15.5
    profiles = [np.exp(-np.hypot(x, y * (1 + n * flattening)) / 5) for n in range(count)]
    return np.stack(profiles)[:, None].astype(np.float32)


def find_all(images: np.ndarray) -> tuple[list[DuplicatePair], int]:
    checksums = np.array([zlib.crc32(np.ascontiguousarray(image)) for image in images])
    return find_duplicates(cutout_fingerprints(images), checksums, lambda rows: images[rows])


def find(images: np.ndarray) -> list[DuplicatePair]:
    return find_all(images)[0]


def test_galaxies_that_look_alike_are_no_duplicates() -> None:
    assert find(galaxies(500)) == []


def test_there_are_eight_orientations() -> None:
    square = np.arange(9).reshape(3, 3)
    assert len({orient(square, orientation).tobytes() for orientation in ORIENTATIONS}) == 8


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_copy_is_found_however_it_lies(orientation: Orientation) -> None:
    images = galaxies(60)
    images[47] = orient(images[11], orientation)
    assert find(images) == [DuplicatePair(11, 47, exact=True)]


def test_a_copy_that_was_scaled_and_encoded_anew_is_near() -> None:
    images = galaxies(60)
    again = np.rot90(images[5], 1, axes=(-2, -1)) * 3
    images[50] = np.round(again * 4) / 4
    assert find(images) == [DuplicatePair(5, 50, exact=False)]


@pytest.mark.parametrize(
    "images", [galaxies(30, size=8), galaxies(30, size=9)[..., :7], galaxies(30, size=3)]
)
def test_equal_bytes_are_found_in_cutouts_of_any_size(images: np.ndarray) -> None:
    images[29] = images[3]
    assert find(images) == [DuplicatePair(3, 29, exact=True)]


def test_copies_are_found_among_many_that_look_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MAXIMUM_PAIRS", 10)
    images = smooth_galaxies(100, flattening=1 / 400)
    images[99] = images[98]
    found, pairs_left_out = find_all(images)
    assert DuplicatePair(98, 99, exact=True) in found
    assert pairs_left_out > 0


def test_noiseless_and_blank_cutouts_do_not_confuse_it() -> None:
    images = smooth_galaxies(40, flattening=1 / 40)
    images[30] = images[4]
    exact = [pair for pair in find(images) if pair.exact]
    assert exact == [DuplicatePair(4, 30, exact=True)]
