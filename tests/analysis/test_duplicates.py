import zlib

import numpy as np
import pytest

from lens_hpc.analysis import duplicates
from lens_hpc.analysis.duplicates import POSITIONS, Pair


def galaxies(count: int, size: int = 40, bands: int = 2, seed: int = 0) -> np.ndarray:
    """Much alike, each with its own noise."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((size, size)) - (size - 1) / 2
    widths = rng.uniform(4, 5, (count, 1, 1))
    light = np.exp(-np.hypot(x, y) / widths)[:, None] * np.linspace(20, 30, bands)[:, None, None]
    return (light + rng.normal(size=(count, bands, size, size))).astype(np.float32)


def find(images: np.ndarray) -> list[Pair]:
    sums = np.array([zlib.crc32(np.ascontiguousarray(image)) for image in images])
    return duplicates.find(duplicates.fingerprint(images), sums, lambda rows: images[rows])[0]


def test_galaxies_that_look_alike_are_no_duplicates() -> None:
    assert find(galaxies(500)) == []


@pytest.mark.parametrize("position", POSITIONS)
def test_a_copy_is_found_however_it_lies(position: object) -> None:
    images = galaxies(60)
    images[47] = position(images[11])  # type: ignore[operator]
    assert find(images) == [Pair(11, 47, exact=True)]


def test_a_copy_that_was_scaled_and_encoded_anew_is_near() -> None:
    images = galaxies(60)
    again = np.rot90(images[5], 1, axes=(-2, -1)) * 3
    images[50] = np.round(again * 4) / 4
    assert find(images) == [Pair(5, 50, exact=False)]


@pytest.mark.parametrize("images", [galaxies(30, size=8), galaxies(30, size=9)[..., :7], galaxies(30, size=3)])
def test_equal_bytes_are_found_in_cutouts_of_any_size(images: np.ndarray) -> None:
    images[29] = images[3]
    assert find(images) == [Pair(3, 29, exact=True)]


def test_copies_are_found_among_many_that_look_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MOST_PAIRS", 10)
    y, x = np.indices((32, 32)) - 15.5
    smooth = np.stack([np.exp(-np.hypot(x, y * (1 + n / 400)) / 5) for n in range(100)])[:, None].astype(np.float32)
    smooth[99] = smooth[98]
    sums = np.array([zlib.crc32(np.ascontiguousarray(image)) for image in smooth])
    found, left_out = duplicates.find(duplicates.fingerprint(smooth), sums, lambda rows: smooth[rows])
    assert Pair(98, 99, exact=True) in found
    assert left_out > 0


def test_noiseless_and_blank_cutouts_do_not_confuse_it() -> None:
    y, x = np.indices((32, 32)) - 15.5
    smooth = np.stack([np.exp(-np.hypot(x, y * (1 + n / 40)) / 5) for n in range(40)])[:, None].astype(np.float32)
    smooth[30] = smooth[4]
    assert [pair for pair in find(smooth) if pair.exact] == [Pair(4, 30, exact=True)]
