"""Cutouts that show the same pixels, also turned or mirrored, also encoded anew.

Two pictures of the same pixels differ from two galaxies that look alike by their noise. So a cutout
is described by the signs of its second differences. Each bit stands for the eight pixels that
rotations and flips exchange, so that copies have the same bits, or nearly. Candidates share 16 bits
somewhere (Indyk & Motwani 1998, STOC 30, 604), and are then compared pixel by pixel in all eight
orientations.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

FINGERPRINT_BITS = 512
BAND_BYTES = 2
# Copies of noisy cutouts differ in few bits; unrelated ones in half of them.
LARGEST_SHARE_OF_DIFFERENT_BITS = 0.25
# Two cutouts show the same when the signs of their noise agree and their pixels correlate so well.
MINIMUM_SIGN_AGREEMENT = 0.5
MINIMUM_PIXEL_CORRELATION = 0.98
# With how many of its neighbours in sorted order a fingerprint is compared.
NEIGHBOURS = 8
MAXIMUM_PAIRS = 20_000
PAIRS_PER_BLOCK = 256

HEIGHT_AND_WIDTH = (-2, -1)


@dataclass(frozen=True, order=True)
class DuplicatePair:
    """Two rows whose cutouts show the same."""

    one: int
    other: int
    exact: bool = False
    """Whether they are equal pixel by pixel, perhaps after a rotation or a flip."""


class Orientation(NamedTuple):
    """One of the eight ways in which a square can lie."""

    quarter_turns: int
    mirrored: bool


ORIENTATIONS = tuple(
    Orientation(quarter_turns, mirrored) for quarter_turns in range(4) for mirrored in (False, True)
)


def orient(images: np.ndarray, orientation: Orientation) -> np.ndarray:
    """Return a view of images (..., side, side) mirrored and turned."""
    if orientation.mirrored:
        images = images[..., ::-1]
    return np.rot90(images, orientation.quarter_turns, axes=HEIGHT_AND_WIDTH)


# ---- candidates ----


def cutout_fingerprints(images: np.ndarray) -> np.ndarray:
    """Return the packed bits of cutouts (B, bands, height, width): (B, up to 64) uint8.

    The bits are the same in all eight orientations of a cutout.
    """
    differences = _second_differences(images)
    oriented = [orient(differences, orientation) for orientation in ORIENTATIONS]
    symmetric = np.sum(oriented, axis=0)

    # An eighth of a symmetric image holds all of it.
    side = differences.shape[-1]
    half_side = (side + 1) // 2
    rows, columns = np.triu_indices(half_side)
    eighth = symmetric[:, rows, columns]

    # Shuffled, so that the bits in two bytes are not of neighbouring pixels.
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(rows))[:FINGERPRINT_BITS]
    bits = eighth[:, chosen] > 0
    return np.packbits(bits, axis=-1)


def find_duplicates(
    fingerprints: np.ndarray,
    checksums: np.ndarray,
    read_images: Callable[[np.ndarray], np.ndarray],
) -> tuple[list[DuplicatePair], int]:
    """Find the pairs of N cutouts that show the same pixels, and count the pairs left out.

    `fingerprints` are (N, bytes) uint8, `checksums` (N,). Pairs with equal checksums or similar
    fingerprints are compared pixel by pixel; `read_images(row_numbers)` returns their cutouts
    (B, bands, height, width). Of the pairs with similar fingerprints, whose checksums may be equal,
    at most MAXIMUM_PAIRS are compared, drawn at random, and the others counted as left out.
    """
    equal = _pairs_of_equal(checksums)
    similar = _pairs_of_similar(fingerprints)
    rng = np.random.default_rng(0)
    drawn = rng.permutation(similar)[:MAXIMUM_PAIRS]
    candidates = np.concatenate([equal, drawn])

    # A pair may be a candidate twice, by its checksum and by its fingerprint.
    found = set()
    for start in range(0, len(candidates), PAIRS_PER_BLOCK):
        end = start + PAIRS_PER_BLOCK
        block = candidates[start:end]
        first_rows, second_rows = block.T
        is_pair, is_exact = _compare(read_images(first_rows), read_images(second_rows))

        pairs_of_rows = block[is_pair].tolist()
        for (one, other), exact in zip(pairs_of_rows, is_exact[is_pair].tolist(), strict=True):
            found.add(DuplicatePair(one, other, exact))

    pairs = sorted(found)
    pairs_left_out = max(len(similar) - MAXIMUM_PAIRS, 0)
    return pairs, pairs_left_out


def _pairs_of_equal(checksums: np.ndarray) -> np.ndarray:
    """Return (pairs, 2) row numbers of equal checksums, each with the next of its kind."""
    order = np.argsort(checksums, kind="stable")
    ones = order[:-1]
    others = order[1:]
    is_same = checksums[ones] == checksums[others]
    return _make_pairs(ones[is_same], others[is_same])


def _pairs_of_similar(fingerprints: np.ndarray) -> np.ndarray:
    """Return (pairs, 2) row numbers of fingerprints that agree in two bytes, and in most bits."""
    size = fingerprints.shape[1]
    largest_distance = LARGEST_SHARE_OF_DIFFERENT_BITS * 8 * size

    no_pairs = np.empty((0, 2), dtype=np.int64)
    found = [no_pairs]
    for pairs in _neighbours(fingerprints):
        ones, others = pairs.T
        differing = fingerprints[ones] ^ fingerprints[others]
        bit_counts = np.bitwise_count(differing)
        distance = bit_counts.sum(axis=1)
        found.append(pairs[distance <= largest_distance])
    return np.unique(np.concatenate(found), axis=0)


def _neighbours(fingerprints: np.ndarray) -> Iterator[np.ndarray]:
    """Yield (pairs, 2) row numbers of fingerprints that agree in two bytes.

    When the rows with the same two bytes are sorted by the byte behind those, each row is paired
    with the NEIGHBOURS next ones.
    """
    size = fingerprints.shape[1]
    for start in range(0, size - 1, BAND_BYTES):
        high_byte = fingerprints[:, start].astype(np.uint16)
        low_byte = fingerprints[:, start + 1]
        keys = high_byte << 8 | low_byte

        end = start + BAND_BYTES
        next_byte = fingerprints[:, end % size]
        order = np.lexsort((next_byte, keys))

        for steps in range(1, NEIGHBOURS + 1):
            ones = order[:-steps]
            others = order[steps:]
            is_same = keys[ones] == keys[others]
            yield _make_pairs(ones[is_same], others[is_same])


def _make_pairs(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return (pairs, 2) row numbers, the smaller one of a pair first."""
    pairs = np.column_stack([ones, others])
    return np.sort(pairs, axis=1)


# ---- comparing pixel by pixel ----


def _compare(ones: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return whether cutouts (B, bands, height, width) show the same, and whether exactly, (B,)."""
    signs = np.sign(_second_differences(ones))
    other_signs = np.sign(_second_differences(others))
    number_of_signs = abs(signs).sum(axis=HEIGHT_AND_WIDTH)

    square = central_square(ones)
    other_square = central_square(others)
    pixels = _standardise(square)

    alike = np.zeros(len(ones), dtype=bool)
    exact = np.zeros(len(ones), dtype=bool)
    for orientation in ORIENTATIONS:
        products = signs * orient(other_signs, orientation)
        sum_of_products = products.sum(axis=HEIGHT_AND_WIDTH)
        agreement = sum_of_products / np.maximum(number_of_signs, 1)

        oriented = orient(other_square, orientation)
        correlation = (pixels * _standardise(oriented)).mean(axis=1)

        is_same_noise = agreement >= MINIMUM_SIGN_AGREEMENT
        is_same_light = correlation >= MINIMUM_PIXEL_CORRELATION
        alike |= is_same_noise & is_same_light
        is_equal = square == oriented
        exact |= is_equal.all(axis=(1, 2, 3))
    return alike | exact, exact


def central_square(images: np.ndarray) -> np.ndarray:
    """Return the largest central square, which can be turned."""
    height, width = images.shape[-2:]
    side = min(height, width)
    top = (height - side) // 2
    left = (width - side) // 2
    bottom = top + side
    right = left + side
    return images[..., top:bottom, left:right]


def _second_differences(images: np.ndarray) -> np.ndarray:
    """Return second differences of the sum of all bands, (B, side - 2, side - 2).

    Each band counts in units of its own standard deviation.
    """
    square = central_square(images).astype(np.float32)
    spread = square.std(axis=HEIGHT_AND_WIDTH, keepdims=True)
    bands = square / np.where(spread > 0, spread, 1)
    plane = bands.sum(axis=1)

    here = slice(1, -1)
    before = slice(None, -2)
    behind = slice(2, None)
    centre = plane[:, here, here]
    above = plane[:, before, here]
    below = plane[:, behind, here]
    left = plane[:, here, before]
    right = plane[:, here, behind]
    return 4 * centre - above - below - left - right


def _standardise(images: np.ndarray) -> np.ndarray:
    """Return the pixels of each image with mean 0 and standard deviation 1, (B, pixels) float64."""
    flat = images.reshape(len(images), -1)
    pixels = flat.astype(np.float64)
    pixels -= pixels.mean(axis=1, keepdims=True)
    spread = pixels.std(axis=1, keepdims=True)
    return pixels / np.where(spread > 0, spread, 1)
