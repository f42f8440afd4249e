"""Calibration: logits become probabilities that come true, as far as the samples to fit on are like those to score."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

COLDEST, HOTTEST = 0.01, 100.0


@dataclass(frozen=True)
class Calibration:
    """Two maps from a logit to a probability."""

    temperature: float
    """Logits are divided by it (Guo et al. 2017, ICML 70, 1321)."""
    isotonic_logits: tuple[float, ...]
    isotonic_probabilities: tuple[float, ...]
    """Corners of the monotonic map that fits best (Zadrozny & Elkan 2002, KDD 8, 694); linear between them."""

    def by_temperature(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, (N,) float64."""
        return expit(logits / np.float64(self.temperature))

    def by_isotonic(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, (N,) float64."""
        return np.interp(logits, self.isotonic_logits, self.isotonic_probabilities)


def probability(logits: np.ndarray) -> np.ndarray:
    """What the model itself says, (N,) float64."""
    return expit(logits.astype(np.float64))


Maps = dict[str, Callable[[np.ndarray], np.ndarray]]


def maps(calibration: Calibration | None) -> Maps:
    """Every map from logits to probabilities by the name of its column, the model's own first."""
    own: Maps = {"probability": probability}
    if calibration is None:
        return own
    return own | {
        "probability_temperature": calibration.by_temperature,
        "probability_isotonic": calibration.by_isotonic,
    }


def fit(labels: np.ndarray, logits: np.ndarray) -> Calibration | None:
    """The calibration by samples of both classes that were not trained on; None where one class has none."""
    if len(np.unique(labels)) < 2:
        return None

    def log_loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        return float((np.logaddexp(0, scaled) - labels * scaled).mean())

    best = minimize_scalar(log_loss, bounds=np.log([COLDEST, HOTTEST]), method="bounded")
    isotonic = IsotonicRegression(y_min=0, y_max=1).fit(logits, labels)
    corners = isotonic.X_thresholds_, isotonic.y_thresholds_
    return Calibration(float(np.exp(best.x)), *(tuple(corner.tolist()) for corner in corners))
