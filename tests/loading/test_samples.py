from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from lens_hpc import config
from lens_hpc.dataset.feature_scaling import FeatureScaler
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.loading.samples import Samples, normalise_images
from tests.conftest import pack_survey, write_survey


def normalised(images: np.ndarray, maximum: float | None) -> np.ndarray:
    tensor = torch.from_numpy(images.copy())
    normalise_images(tensor, maximum)
    return tensor.numpy()


def test_images_are_divided_by_the_cutouts_or_the_splits_maximum() -> None:
    images = np.array([[[[1, 2], [3, 4]]], [[[0, -1], [8, 2]]]], dtype=np.float32)
    own = normalised(images, None)
    assert own.max(axis=(1, 2, 3)).tolist() == [1, 1]
    assert own[1, 0, 0, 1] == -0.125
    np.testing.assert_array_equal(normalised(images, 16.0), images / 16)


@pytest.mark.parametrize("maximum", [None, 0.0])
def test_a_cutout_without_light_is_left_alone(maximum: float | None) -> None:
    dark = np.full((1, 1, 2, 2), -1, dtype=np.float32)
    np.testing.assert_array_equal(normalised(dark, maximum), dark)


def test_statistics_are_those_of_the_training_split(dataset: Path) -> None:
    split = Split(dataset, "train")
    every_row = np.arange(len(split))
    features = split.take("features", every_row)
    statistics = split.manifest.statistics
    assert statistics is not None
    np.testing.assert_allclose(statistics.feature_median, np.nanmedian(features, axis=0))
    np.testing.assert_allclose(statistics.feature_max, np.nanmax(features, axis=0))
    assert statistics.image_max == split.take("images", every_row).max()


def test_a_dataset_of_another_kind_is_refused(tmp_path: Path, dataset: Path) -> None:
    other = Split(pack_survey(write_survey(tmp_path / "s2", size=9), tmp_path / "d2"), "test")
    with pytest.raises(UserError, match="height are 9, but the run was trained with 8"):
        Samples(other, Split(dataset, "train").manifest, "cutout")


def test_other_features_are_refused_unless_none_are_read(dataset: Path) -> None:
    split = Split(dataset, "train")
    manifest = split.manifest.model_copy(update={"features": ("radius", "size")})
    with pytest.raises(UserError, match=r"features are .*, but the run was trained with .*size"):
        Samples(split, manifest, "cutout")

    samples = Samples(split, manifest, "cutout", model=config.Model(inputs="image"))
    rows = np.array([3, 1])
    features = torch.ones(2, samples.feature_width)
    labels = torch.empty(2)
    samples.read_rest(rows, features, labels)
    assert not features.any()
    assert labels.tolist() == split.take("labels", rows).tolist()


def test_features_are_scaled_as_the_model_wants_with_trainings_statistics(dataset: Path) -> None:
    """A seventh of the colours is missing."""
    training = Split(dataset, "train").manifest
    split = Split(dataset, "test")
    rows = np.arange(len(split))
    raw = split.take("features", rows)
    older = config.Model(feature_scaling="minmax", missing_indicator=False)
    for model, width in ((config.Model(), 3), (older, 2)):
        samples = Samples(split, training, "cutout", model=model)
        features = torch.full((len(rows), width), torch.nan)
        samples.read_rest(rows, features, torch.empty(len(rows)))
        np.testing.assert_array_equal(features, FeatureScaler(model, training)(raw))


def test_damaged_rows_are_refused_where_they_are_verified(dataset: Path) -> None:
    file = dataset / "val" / "shard-00000.h5"
    with h5py.File(file) as shard:
        place = shard["images"].id.get_offset()
    with file.open("r+b") as stream:
        stream.seek(place)
        stream.write(bytes(100))

    split = Split(dataset, "val")
    rows = np.array([1, 2])
    images = torch.empty(2, *split.shape("images"))
    Samples(split, split.manifest, "cutout").read_images(rows, images)
    verified = Samples(split, split.manifest, "cutout", verify=True)
    with pytest.raises(UserError, match=r"val/shard-00000\.h5: is damaged in rows 0-5"):
        verified.read_images(rows, images)
