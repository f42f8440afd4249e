"""The noise of the sky, as a cutout itself shows it."""

import math

import numpy as np

# Of a normal distribution, sigma over the median of absolute values.
SIGMA_PER_MEDIAN = 1.4826


def sky_noise(cutout: np.ndarray) -> np.ndarray:
    """Return the standard deviation of a pixel in each band, (bands,), of (bands, height, width).

    It comes of the differences of neighbours, most of which show no edge. Noise that is correlated
    between neighbours, as resampling leaves it, counts as less than it is. A band without finite
    pixels has 0.
    """
    return np.array([_noise(band) for band in cutout])


def _noise(picture: np.ndarray) -> float:
    differences = np.diff(picture.astype(float), axis=-1)
    finite = differences[np.isfinite(differences)]
    if not len(finite):
        return 0.0
    return SIGMA_PER_MEDIAN * float(np.median(np.abs(finite))) / math.sqrt(2)
