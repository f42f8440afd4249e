"""Catalogue features as a model sees them: scaled, with an indicator where values are missing.

A model has an input for each feature and, behind these, one for each that training had missing
values of: 1 where the value is missing, else 0. All of it follows from the settings of the model
and the manifest of the dataset that it is trained on, so that a run keeps what it needs.
"""

from collections.abc import Iterator

import numpy as np

from lens_hpc import config
from lens_hpc.dataset.manifest import Distribution, Manifest, Statistics

CLIP_SIGMAS = 5.0
"""Robust scaling cuts what lies farther from the median. Of a normal distribution that is 1 value
in 1.7 million; of an exponential one 0.8 %, of a log-normal one (sigma 1) 2.7 %, which stay the
largest. A share f of outliers adds at most f x 25 to the variance, which is near 1 else."""

NARROW = 0.05
"""Min-max scaling is doubted where the middle 68 % of training have a smaller share of the range.
It is 0.2 for a million normal values and 0.11 for as many exponential ones, but 0.004 for redshifts
with a 99 among them, and 0.02 to 0.04 for magnitudes with -99 or 99."""


def indicated_features(settings: config.Model, manifest: Manifest) -> list[int]:
    """Return the numbers of the features that have an indicator of missing values.

    It is those of which training had missing values: the weights of an indicator that was always 0
    there would stay random, and disturb the score of the first object that lacks the value.
    """
    if not settings.missing_indicator or manifest.statistics is None:
        return []
    described = enumerate(manifest.statistics.features)
    return [number for number, feature in described if feature.missing]


def feature_width(settings: config.Model, manifest: Manifest) -> int:
    """Return the number of inputs of a model that catalogue features give."""
    return len(manifest.features) + len(indicated_features(settings, manifest))


class FeatureScaler:
    """Makes a model's inputs of catalogue features, with the statistics of training.

    A missing value is taken to be the training's median. `robust` is (x - median) / spread, within
    CLIP_SIGMAS; what was constant in training is always 0. `minmax` is (x - min) / (max - min),
    with 1 for a denominator of 0.
    """

    def __init__(self, settings: config.Model, manifest: Manifest) -> None:
        statistics = manifest.statistics
        assert statistics is not None
        self.indicated = indicated_features(settings, manifest)
        self.median = np.array(statistics.feature_median, dtype=np.float32)

        self.clip = _is_robust(settings, statistics)
        if self.clip:
            spreads = np.array([spread(one) for one in statistics.features], dtype=np.float32)
            self.centre = self.median
            self.unit = np.where(spreads > 0, spreads, np.float32(np.inf))
        else:
            low = np.array(statistics.feature_min, dtype=np.float32)
            high = np.array(statistics.feature_max, dtype=np.float32)
            self.centre = low
            self.unit = np.where(high > low, high - low, np.float32(1))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return the inputs (B, F + indicators) float32 of raw features (B, F) float32."""
        missing = np.isnan(features)
        filled = np.where(missing, self.median, features)
        with np.errstate(over="ignore"):  # what overflows is clipped
            scaled = (filled - self.centre) / self.unit
        if self.clip:
            scaled = scaled.clip(-CLIP_SIGMAS, CLIP_SIGMAS)
        return np.hstack([scaled, missing[:, self.indicated].astype(np.float32)])


def _is_robust(settings: config.Model, statistics: Statistics) -> bool:
    """Whether robust scaling is asked for and possible: schema 2 keeps no percentiles."""
    return settings.feature_scaling == "robust" and bool(statistics.features)


def spread(feature: Distribution) -> float:
    """Return half of the width between the percentiles 16 and 84: 1 sigma of normal values.

    Where they are equal, as of a flag that few objects have, wider ones take their place: 1 and 99,
    0.1 and 99.9, the extremes. It is 0 for a constant feature alone.
    """
    at = feature.percentiles
    bounds = [(at["16"], at["84"]), (at["1"], at["99"]), (at["0.1"], at["99.9"])]
    bounds.append((feature.min, feature.max))
    return next(((high - low) / 2 for low, high in bounds if high > low), 0.0)


def doubts(settings: config.Model, manifest: Manifest) -> Iterator[str]:
    """Say what is doubtful about the scaling of features, for a user who is about to train."""
    statistics = manifest.statistics
    if settings.inputs == "image" or not manifest.features or statistics is None:
        return

    if _is_robust(settings, statistics):
        return
    if settings.feature_scaling == "robust":
        yield (
            "model.feature_scaling = robust: the dataset keeps no percentiles, as a version before "
            "0.2 packed it, so its features are scaled by minmax; pack it anew for robust scaling"
        )
    for name, feature in zip(manifest.features, statistics.features, strict=False):
        width = 2 * spread(feature)
        if width < NARROW * (feature.max - feature.min):
            yield _describe_narrow(name, feature, width)


def _describe_narrow(name: str, feature: Distribution, width: float) -> str:
    median = feature.percentiles["50"]
    extreme = max(feature.min, feature.max, key=lambda value: abs(value - median))
    share = width / (feature.max - feature.min)
    return (
        f"model.feature_scaling = minmax: {extreme:g} makes the range of the feature {name}: most "
        f"of training lies within {share:.1%} of it, and looks alike to the model; choose "
        f"model.feature_scaling=robust, or pack anew with columns.missing if {extreme:g} stands "
        "for no measurement"
    )
