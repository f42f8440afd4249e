"""Whether stated probabilities come true.

`labels` are (N,) of 1 (lens) and 0 (non-lens), `probabilities` (N,) from 0 to 1.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from lens_hpc.metrics.intervals import wilson

CALIBRATION_BINS = 15

# For figures: so many bins, unless they would hold fewer samples each; they are put together of
# cells of equal width, so that nothing is sorted.
MOST_BINS = 10
FEWEST_IN_BIN = 20
CELLS = 4096
QUANTILE_95 = float(ndtri(0.975))


def brier(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean squared difference of probability and label (Brier 1950, MWR 78, 1)."""
    return float(np.square(probabilities - labels).mean())


@dataclass(frozen=True)
class Reliability:
    """Bins of equal width over the probabilities from 0 to 1, each array (bins,)."""

    counts: np.ndarray
    """Number of samples."""
    probability: np.ndarray
    """Mean stated probability; NaN in an empty bin."""
    lenses: np.ndarray
    """Fraction of lenses; NaN in an empty bin."""

    @property
    def expected_calibration_error(self) -> float:
        """Mean distance of the two, weighted by the samples of each bin.

        Naeini et al. 2015 (AAAI 29, 2901). It is of these bins of equal width, as it ever was; the
        figure's bins are others (`reliability_in_bins`).
        """
        filled = self.counts > 0
        gaps = abs(self.probability - self.lenses)[filled]
        return float((gaps * self.counts[filled]).sum() / self.counts.sum())


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> Reliability:
    """Compare stated probabilities with the fraction of lenses, in bins."""
    bins = np.minimum((probabilities * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)

    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    stated = np.bincount(bins, weights=probabilities, minlength=CALIBRATION_BINS)
    lenses = np.bincount(bins, weights=labels, minlength=CALIBRATION_BINS)

    # Empty bins are NaN: 0 / 0.
    with np.errstate(invalid="ignore"):
        return Reliability(counts, stated / counts, lenses / counts)


@dataclass(frozen=True)
class ReliabilityBins:
    """Bins of equal count, each array (bins,)."""

    counts: np.ndarray
    """Number of samples, at least one."""
    probability: np.ndarray
    """Mean stated probability."""
    lenses: np.ndarray
    """Fraction of lenses."""
    low: np.ndarray
    high: np.ndarray
    """Its 95% interval (Wilson 1927)."""


def reliability_in_bins(labels: np.ndarray, probabilities: np.ndarray) -> ReliabilityBins:
    """Compare stated probabilities with the fraction of lenses, in bins of equal count.

    What is counted are expected lenses and expected non-lenses, as if there were as many of both:
    where lenses are rare, one bin of equal count would hold them all. Samples of one cell of 1/4096
    are never parted, so that equal probabilities share a bin.
    """
    cells = np.minimum((probabilities * CELLS).astype(np.int64), CELLS - 1)
    counts = np.bincount(cells, minlength=CELLS)
    stated = np.bincount(cells, weights=probabilities, minlength=CELLS)
    lenses = np.bincount(cells, weights=labels, minlength=CELLS)

    bins = _bins_of_cells(counts, stated)
    in_bins = np.array([np.bincount(bins, sums) for sums in (counts, stated, lenses)])
    filled = in_bins[0] > 0
    size, stated, lenses = in_bins[:, filled]

    fractions = lenses / size
    intervals = [
        wilson(fraction, trials, QUANTILE_95)
        for fraction, trials in zip(fractions, size, strict=True)
    ]
    low, high = np.array(intervals).T
    return ReliabilityBins(size.astype(np.int64), stated / size, fractions, low, high)


def _bins_of_cells(counts: np.ndarray, stated: np.ndarray) -> np.ndarray:
    """Return the number of the bin of each cell, all (cells,)."""
    size = counts.sum()
    expected_lenses = stated.sum()
    expected_others = size - expected_lenses
    shares = stated / max(expected_lenses, 1e-300)
    shares += (counts - stated) / max(expected_others, 1e-300)

    bins = int(np.clip(size // FEWEST_IN_BIN, 1, MOST_BINS))
    full = (1 - 1e-9) * shares.sum() / bins
    return _fill_bins(shares, full)


def _fill_bins(shares: np.ndarray, full: float) -> np.ndarray:
    """Return the number of the bin of each cell: the next begins where one is full."""
    numbers = np.empty(len(shares), dtype=np.int64)
    number, filled = 0, 0.0
    for cell, share in enumerate(shares.tolist()):
        numbers[cell] = number
        filled += share
        if filled >= full:
            number, filled = number + 1, 0.0

    # What is left at the end is no bin of its own.
    if number and filled < full / 2:
        numbers[numbers == number] = number - 1
    return numbers
