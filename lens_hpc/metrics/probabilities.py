"""Whether stated probabilities come true.

`labels` are (N,) of 1 (lens) and 0 (non-lens), `probabilities` (N,) from 0 to 1.
"""

from dataclasses import dataclass

import numpy as np

CALIBRATION_BINS = 15


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

        Naeini et al. 2015 (AAAI 29, 2901).
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
