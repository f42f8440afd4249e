"""Calibration: logits become probabilities that come true on samples like those it was fitted
to."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from lens_hpc import files
from lens_hpc.errors import UserError
from lens_hpc.layout import CALIBRATION
from lens_hpc.model.trained import TrainedModel

Method = Literal["temperature", "isotonic"]

COLDEST, HOTTEST = 0.01, 100.0


@dataclass(frozen=True)
class Calibration:
    """Two maps from a logit to a probability, and the split that they were fitted to."""

    temperature: float
    """Logits are divided by it (Guo et al. 2017, ICML 70, 1321)."""
    isotonic_logits: tuple[float, ...]
    isotonic_probabilities: tuple[float, ...]
    """Corners of the monotonic map that fits best (Zadrozny & Elkan 2002, KDD 8, 694); linear
    between them. Files of earlier versions may hold 0 and 1, those of today lie between."""
    prevalence: float
    """Share of lenses in the split that both were fitted to."""

    def by_temperature(self, logits: np.ndarray) -> np.ndarray:
        """Return probabilities, (N,) float64, by the temperature."""
        return expit(logits / np.float64(self.temperature))

    def by_isotonic(self, logits: np.ndarray) -> np.ndarray:
        """Return probabilities, (N,) float64, by the isotonic map."""
        return np.interp(logits, self.isotonic_logits, self.isotonic_probabilities)


def probability(logits: np.ndarray) -> np.ndarray:
    """Return what the model itself says, probabilities (N,) float64."""
    return expit(logits.astype(np.float64))


Maps = dict[str, Callable[[np.ndarray], np.ndarray]]


def probability_maps(calibration: Calibration | None) -> Maps:
    """Return every map from logits to probabilities by the name of its column, the model's
    first."""
    maps: Maps = {"probability": probability}
    if calibration is not None:
        maps["probability_temperature"] = calibration.by_temperature
        maps["probability_isotonic"] = calibration.by_isotonic
    return maps


def fit_calibration(labels: np.ndarray, logits: np.ndarray) -> Calibration | None:
    """Fit labels (N,) of 0 and 1 and logits (N,) of samples that were not trained on.

    Returns None where one of the classes is missing.
    """
    if len(np.unique(labels)) < 2:
        return None

    def log_loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        return float((np.logaddexp(0, scaled) - labels * scaled).mean())

    best = minimize_scalar(log_loss, bounds=np.log([COLDEST, HOTTEST]), method="bounded")
    isotonic = _fit_isotonic(labels, logits)
    return Calibration(
        temperature=float(np.exp(best.x)),
        isotonic_logits=tuple(isotonic.X_thresholds_.tolist()),
        isotonic_probabilities=tuple(isotonic.y_thresholds_.tolist()),
        prevalence=float(np.mean(labels)),
    )


def _fit_isotonic(labels: np.ndarray, logits: np.ndarray) -> IsotonicRegression:
    """Fit a monotonic map that is never certain.

    The samples alone would give exactly 0 below their lowest lens, and 1 above their highest
    non-lens, however few lie there. So one more lens counts at the lowest logit, and one more
    non-lens at the highest.
    """
    more_logits = np.append(logits, [logits.min(), logits.max()])
    more_labels = np.append(labels, [1, 0])
    return IsotonicRegression().fit(more_logits, more_labels)


def shift_prevalence(probabilities: np.ndarray, fitted: float, wanted: float) -> np.ndarray:
    """Return probabilities (N,) for a survey whose share of lenses is `wanted`, not `fitted`.

    Lenses and non-lenses are taken to look alike in both, so the odds change by one factor
    (Saerens et al. 2002, Neural Computation 14, 21, equation 2.4).
    """
    with np.errstate(divide="ignore"):
        return expit(logit(probabilities) + logit(wanted) - logit(fitted))


def calibrated_probability(
    calibrations: Sequence[Calibration],
    logits: np.ndarray,
    prevalence: float | None = None,
    method: Method = "temperature",
) -> np.ndarray:
    """Return the mean probability, (N,) float64, of models with logits (models, N).

    `prevalence` is the share of lenses among the N objects; None: that of each calibration.
    """
    probabilities = []
    for calibration, own_logits in zip(calibrations, logits, strict=True):
        if method == "temperature":
            own = calibration.by_temperature(own_logits)
        else:
            own = calibration.by_isotonic(own_logits)
        if prevalence is not None:
            own = shift_prevalence(own, calibration.prevalence, prevalence)
        probabilities.append(own)
    return np.mean(probabilities, axis=0)


# ---- on disk ----


def write_calibration(folder: Path, calibration: Calibration | None, step: str = "") -> None:
    """Keep a calibration beside the weights that it belongs to; None takes an older one away.

    `step` is that of the weights' metadata: whoever reads them while they are replaced, one file
    after the other, can tell that they do not belong together.
    """
    file = folder / CALIBRATION
    if calibration is None:
        file.unlink(missing_ok=True)
        return
    files.make_folder(folder)
    tree = asdict(calibration) | {"step": step}
    files.write_text(file, json.dumps(tree, indent=1) + "\n")


def read_calibration(folder: Path, step: str = "") -> Calibration | None:
    """Read the calibration beside the weights of a step; None where they have none."""
    file = folder / CALIBRATION
    if not file.is_file():
        return None
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        if tree["step"] != step:
            return None
        calibration = Calibration(
            temperature=float(tree["temperature"]),
            isotonic_logits=tuple(map(float, tree["isotonic_logits"])),
            isotonic_probabilities=tuple(map(float, tree["isotonic_probabilities"])),
            prevalence=float(tree["prevalence"]),
        )
        _check(calibration)
        return calibration
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{file}: is damaged ({error}); remove it to score without probabilities, or train anew"
        ) from error


def read_calibrations(members: Sequence[TrainedModel]) -> list[Calibration | None]:
    """Return the calibration of each trained model; None for one that has none."""
    return [read_calibration(member.folder, member.facts.get("step", "")) for member in members]


def _check(calibration: Calibration) -> None:
    """Raise ValueError for numbers that no fit gives."""
    logits = np.array(calibration.isotonic_logits)
    probabilities = np.array(calibration.isotonic_probabilities)
    is_map = 0 < len(logits) == len(probabilities) and np.isfinite(logits).all()
    is_map = is_map and (np.diff(logits) >= 0).all()
    if not is_map or not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("the isotonic map is none")
    if not 0 < calibration.temperature < np.inf or not 0 < calibration.prevalence < 1:
        raise ValueError("temperature or prevalence is out of its range")
