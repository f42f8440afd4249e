from pathlib import Path

import numpy as np
import pytest
import torch

from lens_hpc import UserError
from lens_hpc.config import Augment
from lens_hpc.data import loader
from lens_hpc.data.augment import Augmentation
from lens_hpc.data.loader import Samples
from lens_hpc.data.shards import Split
from tests.conftest import pack_survey, write_survey


def test_images_are_divided_by_the_cutouts_or_the_splits_maximum() -> None:
    images = np.array([[[[1, 2], [3, 4]]], [[[0, -1], [8, 2]]]], dtype=np.float32)
    own = loader.normalise_images(images, None)
    assert own.max(axis=(1, 2, 3)).tolist() == [1, 1]
    assert own[1, 0, 0, 1] == -0.125
    np.testing.assert_array_equal(loader.normalise_images(images, 16.0), images / 16)


def test_a_cutout_without_light_is_left_alone() -> None:
    dark = np.full((1, 1, 2, 2), -1, dtype=np.float32)
    np.testing.assert_array_equal(loader.normalise_images(dark, None), dark)


def test_features_are_scaled_and_filled_with_trainings_statistics(dataset: Path) -> None:
    manifest = Split(dataset, "train").manifest
    statistics = manifest.statistics
    assert statistics is not None
    raw = np.array([statistics.feature_min, statistics.feature_max, [np.nan, np.nan]], dtype=np.float32)
    scaled = loader.normalise_features(raw, manifest)
    np.testing.assert_allclose(scaled[:2], [[0, 0], [1, 1]])
    low, high, median = (
        np.array(values) for values in (statistics.feature_min, statistics.feature_max, statistics.feature_median)
    )
    np.testing.assert_allclose(scaled[2], (median - low) / (high - low), rtol=1e-5)


def test_statistics_are_those_of_the_training_split(dataset: Path) -> None:
    split = Split(dataset, "train")
    features = split.take("features", np.arange(len(split)))
    statistics = split.manifest.statistics
    assert statistics is not None
    np.testing.assert_allclose(statistics.feature_median, np.nanmedian(features, axis=0))
    np.testing.assert_allclose(statistics.feature_max, np.nanmax(features, axis=0))
    assert statistics.image_max == split.take("images", np.arange(len(split))).max()


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_the_order_asked_whatever_the_workers(dataset: Path, workers: int) -> None:
    split = Split(dataset, "train")
    samples = Samples(split, split.manifest, "cutout", Augmentation(Augment(), 0))
    asked = [np.array([5, 1, 2]), np.array([0, 7])]
    batches = list(loader.load(samples, 3, asked, workers))
    for batch, rows in zip(batches, asked, strict=True):
        assert batch.rows.tolist() == rows.tolist()
        assert batch.labels.tolist() == split.take("labels", rows).tolist()
        expected = samples[(3, rows)]
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.features, expected.features)


def test_a_dataset_of_another_kind_is_refused(tmp_path: Path, dataset: Path) -> None:
    other = Split(pack_survey(write_survey(tmp_path / "s2", size=9), tmp_path / "d2"), "test")
    with pytest.raises(UserError, match="height are 9, but the run was trained with 8"):
        Samples(other, Split(dataset, "train").manifest, "cutout")
