from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from lens_hpc import config
from lens_hpc.dataset.feature_scaling import (
    FeatureScaler,
    doubts,
    feature_width,
    indicated_features,
    spread,
)
from lens_hpc.dataset.manifest import PERCENTILES, Distribution, Manifest, Statistics, read_manifest
from lens_hpc.model.build import build_model
from tests.conftest import pack_survey, write_survey

ROBUST = config.Model(inputs="features", feature_channels=(32, 32))
MINMAX = ROBUST.model_copy(update=config.MODEL_OF_OLDER_RUNS)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("scaling")
    return read_manifest(pack_survey(write_survey(folder / "s"), folder / "d"))


def distribution(column: np.ndarray) -> Distribution:
    values = column[~np.isnan(column)].astype(float)
    at = {f"{p:g}": float(np.percentile(values, p)) for p in PERCENTILES}
    missing = int(np.isnan(column).sum())
    return Distribution(min=values.min(), max=values.max(), percentiles=at, missing=missing)


def with_training(manifest: Manifest, features: np.ndarray) -> Manifest:
    """A manifest as of a dataset whose training split has these features (N, F)."""
    statistics = Statistics(
        feature_min=tuple(np.nanmin(features, axis=0).tolist()),
        feature_max=tuple(np.nanmax(features, axis=0).tolist()),
        feature_median=tuple(np.nanmedian(features, axis=0).tolist()),
        image_max=1,
        features=tuple(distribution(column) for column in features.T),
    )
    names = tuple(f"f{number}" for number in range(features.shape[1]))
    return manifest.model_copy(update={"features": names, "statistics": statistics})


# ---- scaling ----


def test_minmax_is_the_authors_to_the_bit(packed: Manifest) -> None:
    rng = np.random.default_rng(0)
    train = rng.normal(20, 3, (500, 3)).astype(np.float32)
    train[:, 2] = 7
    low, high, median = train.min(0), train.max(0), np.median(train, axis=0)
    scaler = FeatureScaler(MINMAX, with_training(packed, train))

    span = np.array([*(high - low)[:2], 1], np.float32)  # the last is constant
    np.testing.assert_array_equal(scaler(train), (train - low) / span)
    missing = np.full((1, 3), np.nan, np.float32)
    np.testing.assert_array_equal(scaler(missing)[0], (median - low) / span)
    assert scaler(np.array([[0, 0, 9]], np.float32))[0, 2] == 2


def test_robust_scaling_has_median_and_spread_of_training_and_is_clipped(packed: Manifest) -> None:
    train = np.linspace(-100, 300, 401, dtype=np.float32)[:, None]
    scaler = FeatureScaler(ROBUST, with_training(packed, train))
    sigma = 0.34 * 400  # half of the width from 16 to 84 %
    raw = np.array([[100], [100 + sigma], [100 - 2 * sigma], [1e6], [-3e38], [np.nan]], np.float32)
    np.testing.assert_allclose(scaler(raw)[:, 0], [0, 1, -2, 5, -5, 0], rtol=1e-6)


def test_robust_scaling_is_that_of_another_implementation(packed: Manifest) -> None:
    from sklearn.preprocessing import RobustScaler

    train = np.random.default_rng(1).lognormal(0, 1, (1000, 2)).astype(np.float32)
    theirs = RobustScaler(quantile_range=(16, 84)).fit(train)
    ours = FeatureScaler(ROBUST, with_training(packed, train))(train)
    expected = (2 * theirs.transform(train)).clip(-5, 5)  # theirs is by the whole width
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_a_constant_feature_is_zero_even_where_it_is_not_constant(packed: Manifest) -> None:
    train = np.full((50, 1), 21.3, np.float32)
    scaler = FeatureScaler(ROBUST, with_training(packed, train))
    assert scaler(np.array([[21.3], [-99], [3e38], [np.nan]], np.float32)).tolist() == [[0]] * 4


@pytest.mark.parametrize("share", [0.4, 0.1, 0.005, 0.0005])
def test_a_flag_that_few_objects_have_is_no_constant(packed: Manifest, share: float) -> None:
    count = 2000
    train = (np.arange(count) < share * count).astype(np.float32)[:, None]
    scaled = FeatureScaler(ROBUST, with_training(packed, train))(np.array([[0], [1]], np.float32))
    assert scaled[0, 0] == 0
    assert scaled[1, 0] == pytest.approx(2)
    assert spread(distribution(train[:, 0])) == pytest.approx(0.5)


# ---- indicators ----


def test_what_training_had_missing_has_an_indicator(packed: Manifest) -> None:
    train = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    train[:3, 1] = np.nan
    manifest = with_training(packed, train)
    assert indicated_features(ROBUST, manifest) == [1]
    assert feature_width(ROBUST, manifest) == 4
    assert feature_width(MINMAX, manifest) == 3

    # Another split may have other ones missing.
    raw = np.array([[1, 1, 1], [np.nan, np.nan, 1], [np.nan] * 3], np.float32)
    inputs = FeatureScaler(ROBUST, manifest)(raw)
    assert inputs.shape == (3, 4)
    assert inputs.dtype == np.float32
    assert inputs[:, 3].tolist() == [0, 1, 1]
    assert inputs[2, :3].tolist() == [0, 0, 0]
    assert np.isfinite(inputs).all()


def test_a_dataset_without_percentiles_keeps_min_and_max_and_that_is_said(packed: Manifest) -> None:
    train = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    manifest = with_training(packed, train)
    assert manifest.statistics is not None
    older = manifest.statistics.model_copy(update={"features": ()})
    schema_2 = manifest.model_copy(update={"statistics": older})
    expected = FeatureScaler(MINMAX, manifest)(train)
    np.testing.assert_array_equal(FeatureScaler(ROBUST, schema_2)(train), expected)
    (said,) = doubts(ROBUST, schema_2)
    assert "model.feature_scaling = robust: the dataset keeps no percentiles" in said
    assert not list(doubts(MINMAX, schema_2))


# ---- doubts ----

NORMAL = np.random.default_rng(5).normal(0.5, 0.2, 2800)


def with_outliers(values: np.ndarray, outlier: float, rows: int) -> np.ndarray:
    return np.concatenate([values[: len(values) - rows], [outlier] * rows])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (with_outliers(NORMAL, 99, 1), "99 makes the range of the feature f0"),
        (with_outliers(NORMAL, -99, 28), "-99 makes the range of the feature f0"),
        (with_outliers(20 + 5 * NORMAL, 99, 28), "99 makes the range of the feature f0"),
        (with_outliers(NORMAL[:40], 99, 1), "99 makes the range of the feature f0"),
        (NORMAL, ""),
        (np.random.default_rng(5).exponential(size=100_000), ""),
        (np.arange(1000) < 100, ""),
        (np.arange(3000) < 1, ""),
        (np.full(1000, 3.0), ""),
    ],
)
def test_minmax_is_doubted_where_one_value_makes_the_range(
    packed: Manifest, values: np.ndarray, told: str
) -> None:
    manifest = with_training(packed, values.astype(np.float32)[:, None])
    said = list(doubts(MINMAX, manifest))
    assert len(said) == bool(told)
    assert told in "".join(said)
    assert not list(doubts(ROBUST, manifest))
    assert not list(doubts(MINMAX.model_copy(update={"inputs": "image"}), manifest))


# ---- what it is for ----


def draw_catalogue(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Magnitude, colour and redshift of lenses, which differ a little, and of others."""
    lens = rng.integers(2, size=rows)
    mag = rng.normal(20.5 - 0.5 * lens, 1)
    colour = rng.normal(1.6 + 0.3 * lens, 0.45)
    redshift = rng.normal(0.5 + 0.1 * lens, 0.15)
    return np.column_stack([mag, colour, redshift]).astype(np.float32), lens


def auc_of_features(settings: config.Model, manifest: Manifest, share_bad: float) -> float:
    """Train the branch of the features alone on a catalogue where a share is -99."""
    rng = np.random.default_rng(3)
    (train, labels), (test, truth) = draw_catalogue(rng, 1500), draw_catalogue(rng, 1500)
    for features in (train, test):
        features[rng.random(features.shape) < share_bad] = -99

    manifest = with_training(manifest, train)
    scale = FeatureScaler(settings, manifest)
    inputs, targets = torch.from_numpy(scale(train)), torch.from_numpy(labels).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(settings, manifest)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        logits = model(torch.empty(0), inputs)
        torch.nn.functional.binary_cross_entropy_with_logits(logits, targets).backward()
        optimizer.step()
    with torch.inference_mode():
        scores = model(torch.empty(0), torch.from_numpy(scale(test))).numpy()
    return float(roc_auc_score(truth, scores))


def test_features_keep_their_auc_where_one_in_a_hundred_is_minus_99(packed: Manifest) -> None:
    clean = auc_of_features(ROBUST, packed, share_bad=0)
    assert clean > 0.75
    assert auc_of_features(ROBUST, packed, share_bad=0.01) > clean - 0.03
    assert auc_of_features(MINMAX, packed, share_bad=0.01) < clean - 0.06


def test_the_scaler_of_a_packed_survey_is_made_of_its_training(tmp_path: Path) -> None:
    """Statistics as packing writes them, among them the missing ones: every seventh colour."""
    shards = pack_survey(write_survey(tmp_path / "s"), tmp_path / "d")
    manifest = read_manifest(shards)
    assert indicated_features(ROBUST, manifest) == [1]
    assert feature_width(ROBUST, manifest) == 3
