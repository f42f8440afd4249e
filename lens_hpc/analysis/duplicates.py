"""Cutouts that show the same pixels, also turned or mirrored, also encoded anew.

What tells two pictures of the same pixels from two galaxies that look alike is their noise. So a cutout is described by
the sign of its second differences, where each bit stands for the eight places that rotations and flips exchange: copies
have the same bits, or nearly. Candidates share 16 bits somewhere (Indyk & Motwani 1998, STOC 30, 604), and are then
compared pixel by pixel in all eight positions.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

MOST_BITS = 512
BAND_BITS = 16
# Copies of noisy cutouts differ in few bits; unrelated ones in half of them.
MOST_DIFFERENT = 0.25
ALIKE_SIGNS = 0.5
ALIKE_PIXELS = 0.98
NEIGHBOURS = 8
MOST_PAIRS = 20_000
TOGETHER = 256


@dataclass(frozen=True)
class Pair:
    """Two rows that show the same."""

    one: int
    other: int
    exact: bool
    """Equal pixel by pixel, perhaps after a rotation or a flip."""


def fingerprint(images: np.ndarray) -> np.ndarray:
    """Bits of cutouts (B, bands, height, width), packed, (B, up to 64) uint8; the same for all eight positions."""
    differences = _differences(images)
    symmetric = np.sum([position(differences) for position in POSITIONS], axis=0)
    side = differences.shape[-1]
    rows, columns = np.triu_indices(-(-side // 2))
    rng = np.random.default_rng(0)  # spread, so that the bits of a band are not neighbours
    chosen = rng.permutation(len(rows))[:MOST_BITS]
    return np.packbits(symmetric[:, rows[chosen], columns[chosen]] > 0, axis=-1)


def find(
    fingerprints: np.ndarray, checksums: np.ndarray, read: Callable[[np.ndarray], np.ndarray]
) -> tuple[list[Pair], int]:
    """Pairs among (N, bytes) fingerprints and (N,) checksums, confirmed on the cutouts that `read` gives for rows.

    And how many more may be pairs: of those without equal checksums, MOST_PAIRS are looked at.
    """
    order = np.argsort(checksums, kind="stable")
    same = checksums[order][1:] == checksums[order][:-1]
    equal = np.sort(np.column_stack([order[:-1][same], order[1:][same]]), axis=1)
    similar = np.unique(np.concatenate([np.empty((0, 2), dtype=np.int64), *_candidates(fingerprints)]), axis=0)
    candidates = np.concatenate([equal, np.random.default_rng(0).permutation(similar)[:MOST_PAIRS]])
    found = set()
    for start in range(0, len(candidates), TOGETHER):
        pairs = candidates[start : start + TOGETHER]
        alike, exact = _compare(read(pairs[:, 0]), read(pairs[:, 1]))
        found |= {Pair(int(a), int(b), bool(e)) for (a, b), yes, e in zip(pairs, alike, exact, strict=True) if yes}
    return sorted(found, key=lambda pair: (pair.one, pair.other)), max(len(similar) - MOST_PAIRS, 0)


def _candidates(fingerprints: np.ndarray) -> Iterator[np.ndarray]:
    """(pairs, 2) rows that agree in one band of bits at least, and in most bits."""
    size = fingerprints.shape[1]
    bits = 8 * size
    for start in range(0, size - 1, BAND_BITS // 8):
        keys = fingerprints[:, start].astype(np.uint16) << 8 | fingerprints[:, start + 1]
        order = np.lexsort((fingerprints[:, (start + 2) % size], keys))
        for ahead in range(1, NEIGHBOURS + 1):
            here, there = order[:-ahead], order[ahead:]
            same = keys[here] == keys[there]
            pairs = np.sort(np.column_stack([here[same], there[same]]), axis=1)
            different = np.bitwise_count(fingerprints[pairs[:, 0]] ^ fingerprints[pairs[:, 1]]).sum(axis=1)
            yield pairs[different <= MOST_DIFFERENT * bits]


POSITIONS: tuple[Callable[[np.ndarray], np.ndarray], ...] = tuple(
    lambda images, turns=turns, mirror=mirror: np.rot90(  # type: ignore[misc]
        images[..., ::-1] if mirror else images, turns, axes=(-2, -1)
    )
    for turns in range(4)
    for mirror in (False, True)
)


def _compare(ones: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether cutouts (B, bands, height, width) show the same pixels, and whether exactly so."""
    signs, other_signs = np.sign(_differences(ones)), np.sign(_differences(others))
    square, other_square = _square(ones), _square(others)
    flat = _standardised(square)
    alike, exact = np.zeros(len(ones), dtype=bool), np.zeros(len(ones), dtype=bool)
    for position in POSITIONS:
        agreement = (signs * position(other_signs)).sum(axis=(1, 2)) / np.maximum(abs(signs).sum(axis=(1, 2)), 1)
        correlation = (flat * _standardised(position(other_square))).mean(axis=1)
        alike |= (agreement >= ALIKE_SIGNS) & (correlation >= ALIKE_PIXELS)
        exact |= (square == position(other_square)).all(axis=(1, 2, 3))
    return alike | exact, exact


def _square(images: np.ndarray) -> np.ndarray:
    """The central square, which can be turned."""
    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return images[..., top : top + side, left : left + side]


def _differences(images: np.ndarray) -> np.ndarray:
    """Second differences of the bands' sum, (B, side - 2, side - 2), each band in units of its own spread."""
    square = _square(images).astype(np.float32)
    spread = square.std(axis=(-2, -1), keepdims=True)
    plane = (square / np.where(spread > 0, spread, 1)).sum(axis=1)
    return (
        4 * plane[:, 1:-1, 1:-1] - plane[:, :-2, 1:-1] - plane[:, 2:, 1:-1] - plane[:, 1:-1, :-2] - plane[:, 1:-1, 2:]
    )


def _standardised(images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    spread = flat.std(axis=1, keepdims=True)
    return flat / np.where(spread > 0, spread, 1)
