"""Cutouts that show the same sky, shifted by a few pixels or turned by any angle.

Noise is what tells one piece of sky from another. The amplitudes of its Fourier transform stay as
they are when it is shifted. In polar coordinates, a rotation shifts them along the angle, which the
amplitudes of a second transform, along the angle, do not feel (Casasent & Psaltis 1976, Appl. Opt.
15, 1795). The light of galaxies makes these smooth, so each is divided by the mean of those beside
it. What is left of unrelated cutouts is uncorrelated: their correlations are normal, about 0.
"""

from collections.abc import Iterator
from math import prod

import numpy as np
from scipy import fft
from scipy.ndimage import uniform_filter, uniform_filter1d
from scipy.special import ndtri

from lens_hpc.auditing.duplicates import DuplicatePair, central_square
from lens_hpc.auditing.shortcuts import SIGMA_PER_DEVIATION

# Noise is what a pixel differs by from its neighbourhood of this width. Where it differs by more
# than so many sigmas, something shines.
NEIGHBOURHOOD_PIXELS = 5
BRIGHT_SIGMAS = 3
# The window is flat up to this radius, and falls to 0 at the edge of the cutout.
FLAT_RADIUS = 0.7
# In units of the highest frequency: below it are galaxies, above it what a rotation blurs.
FREQUENCIES = (0.1, 0.9)
# So many times more frequencies than pixels, so that the nearest one is near enough.
OVERSAMPLING = 3
# The first harmonics along the angle are a galaxy's; the highest ones grow with the frequency.
FIRST_HARMONIC = 2
HARMONICS_PER_RADIUS = 2.5
NEIGHBOUR_HARMONICS = 11
SIGNATURE_NUMBERS = 1024
# With fewer numbers or rows, nothing is known of how unrelated cutouts correlate.
MINIMUM_NUMBERS = 32
MINIMUM_ROWS = 20
# Two cutouts show the same sky when chance would let any two of an audit correlate so well in one
# of a thousand audits, and better than those of a real survey that were merely made alike.
CHANCE_OF_ANY_PAIR = 1e-3
MINIMUM_CORRELATION = 0.25
ROWS_PER_BLOCK = 1_000


# ---- signatures ----


def sky_signatures(images: np.ndarray) -> np.ndarray:
    """Return numbers that shifts and rotations hardly change, (B, up to 1024) float32.

    Images are (B, bands, height, width). Each number is the amplitude of a harmonic of a ring.
    """
    numbers = []
    for radius, ring in _rings(_noise(images)):
        highest = max(int(radius * HARMONICS_PER_RADIUS), FIRST_HARMONIC)
        amplitudes = abs(fft.rfft(ring, axis=-1))[..., FIRST_HARMONIC:highest]

        # A galaxy makes all amplitudes beside each other larger, noise only single ones.
        typical = uniform_filter1d(amplitudes, NEIGHBOUR_HARMONICS, axis=-1, mode="nearest")
        numbers.append(amplitudes / np.where(typical > 0, typical, 1))

    of_bands = np.concatenate(numbers, axis=-1)
    signatures = of_bands.reshape(len(images), prod(of_bands.shape[1:]))
    rng = np.random.default_rng(0)
    chosen = rng.permutation(signatures.shape[1])[:SIGNATURE_NUMBERS]
    return signatures[:, chosen].astype(np.float32)


def _noise(images: np.ndarray) -> np.ndarray:
    """Return the noise of each band in units of its sigma, 0 where something shines."""
    pixels = central_square(images).astype(np.float32)
    size = (1, 1, NEIGHBOURHOOD_PIXELS, NEIGHBOURHOOD_PIXELS)
    noise = pixels - uniform_filter(pixels, size)

    # As one line of pixels, since NumPy has no median of two axes of nothing.
    in_a_line = noise.reshape(*noise.shape[:2], prod(noise.shape[2:]))
    sigma = SIGMA_PER_DEVIATION * np.median(abs(in_a_line), axis=-1)[..., None, None]
    noise /= np.where(sigma > 0, sigma, 1)
    noise[abs(noise) > BRIGHT_SIGMAS] = 0
    return noise


def _rings(noise: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the radius of each ring of frequencies, and its amplitudes, (B, bands, angles)."""
    side = noise.shape[-1]
    padded = OVERSAMPLING * side
    shape = (padded, padded)
    amplitudes = abs(fft.rfft2(noise * _window(side), s=shape))

    # Half a turn is enough: the other half has the same amplitudes.
    lowest, highest = (frequency * side / 2 for frequency in FREQUENCIES)
    number_of_angles = 2 * int(np.ceil(highest * np.pi / 2))
    angles = np.pi * (np.arange(number_of_angles) + 0.5) / number_of_angles - np.pi / 2

    for radius in np.arange(lowest, highest):
        y = np.rint(OVERSAMPLING * radius * np.sin(angles)).astype(int)
        x = np.rint(OVERSAMPLING * radius * np.cos(angles)).astype(int)
        ring = amplitudes[..., y, x]
        mean = ring.mean(axis=-1, keepdims=True)
        yield radius, ring / np.where(mean > 0, mean, 1)


def _window(side: int) -> np.ndarray:
    """Return a round window, (side, side), that looks the same from all angles."""
    distances = (np.arange(side) - (side - 1) / 2) / (side / 2)
    radius = np.hypot(distances[:, None], distances)
    fall = np.clip((radius - FLAT_RADIUS) / (1 - FLAT_RADIUS), 0, 1)
    return np.cos(fall * np.pi / 2).astype(np.float32)


# ---- pairs ----


def find_same_sky(signatures: np.ndarray, split_numbers: np.ndarray) -> list[DuplicatePair]:
    """Return pairs of different splits whose (N, numbers) signatures correlate, best first.

    `split_numbers` are (N,). The pairs hold numbers from 0 to N - 1, the smaller one first.
    """
    rows, numbers = signatures.shape
    if rows < MINIMUM_ROWS or numbers < MINIMUM_NUMBERS:
        return []

    vectors = _standardise(signatures)
    threshold = _threshold(vectors)
    found = []
    for start in range(0, rows, ROWS_PER_BLOCK):
        block = vectors[start : start + ROWS_PER_BLOCK]
        correlations = block @ vectors[start:].T
        ones, others = np.nonzero(np.triu(correlations, 1) >= threshold)
        for one, other in zip(ones.tolist(), others.tolist(), strict=True):
            pair = DuplicatePair(start + one, start + other)
            if split_numbers[pair.one] != split_numbers[pair.other]:
                found.append((-correlations[one, other], pair))
    return [pair for _, pair in sorted(found)]


def _standardise(signatures: np.ndarray) -> np.ndarray:
    """Return vectors of length 1 in which each number varies as much as any other."""
    vectors = signatures - signatures.mean(axis=0)
    spread = vectors.std(axis=0)
    vectors /= np.where(spread > 0, spread, 1)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def _threshold(vectors: np.ndarray) -> float:
    """Return a correlation that unrelated (N, numbers) vectors do not reach.

    The spread of correlations is that of the first rows, of which few are pairs; its normal
    distribution is cut where as many pairs as there are would reach it with CHANCE_OF_ANY_PAIR.
    """
    first_rows = vectors[:ROWS_PER_BLOCK]
    correlations = first_rows @ first_rows.T
    unrelated = correlations[np.triu_indices(len(first_rows), 1)]
    spread = SIGMA_PER_DEVIATION * np.median(abs(unrelated))

    number_of_pairs = len(vectors) * (len(vectors) - 1) / 2
    sigmas = -ndtri(CHANCE_OF_ANY_PAIR / number_of_pairs)
    return max(sigmas * spread, MINIMUM_CORRELATION)
