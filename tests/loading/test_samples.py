from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from lens_hpc import config
from lens_hpc.dataset.feature_scaling import FeatureScaler
from lens_hpc.dataset.manifest import Distribution
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.loading.samples import Samples, normalise_images, stretch_images
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


def distribution(low: float, median: float, high: float, brightest: float) -> Distribution:
    at = dict.fromkeys(("0.1", "1", "16"), low) | {"50": median}
    at |= dict.fromkeys(("84", "99", "99.9"), high)
    return Distribution(min=low, max=brightest, percentiles=at, missing=0)


def test_asinh_is_linear_in_the_noise_and_logarithmic_above_it() -> None:
    """The sky of the first band is 10 +- 1, that of the second 0 +- 5."""
    bands = (distribution(9, 10, 30, 2010), distribution(-5, 0, 7, 1000))
    images = np.array([[[[10, 9, 2010, 210]], [[0, 5, 1000, -1000]]]], dtype=np.float32)
    stretched = torch.from_numpy(images.copy())
    stretch_images(stretched, bands)

    # sinh undoes it.
    first, second = np.sinh(stretched.numpy()[0, :, 0] * np.arcsinh([[1000], [100]]))
    np.testing.assert_allclose(first, [0, -0.5, 1000, 100], rtol=1e-4)
    np.testing.assert_allclose(second, [0, 0.5, 100, -100], rtol=1e-4)
    assert stretched[0, :, 0, 2].tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize(
    "band",
    [
        pytest.param(distribution(0, 0, 9, 9), id="the sky is cut at 0"),
        pytest.param(distribution(0, 0, 0, 9), id="most pixels are equal"),
        pytest.param(distribution(3, 3, 3, 3), id="a constant band"),
        pytest.param(distribution(0, 9, 9, 9), id="most pixels are saturated"),
    ],
)
def test_asinh_of_a_band_without_noise_is_finite(band: Distribution) -> None:
    images = torch.tensor([0.0, 3.0, 9.0]).view(1, 1, 1, 3)
    stretch_images(images, [band])
    assert images.isfinite().all()
    assert images[0, 0, 0, 2] > images[0, 0, 0, 0]


def test_asinh_scales_every_split_by_training(dataset: Path) -> None:
    split = Split(dataset, "test")
    training = split.manifest.statistics
    assert training is not None
    images = torch.from_numpy(split.take("images", np.arange(len(split))))
    expected = images.clone()
    stretch_images(expected, training.bands)
    Samples(split, split.manifest, "asinh").normalise(images)
    assert torch.equal(images, expected)
    assert images.max() <= 1.5


def test_asinh_is_refused_where_no_percentiles_of_pixels_are_kept(dataset: Path) -> None:
    split = Split(dataset, "train")
    statistics = split.manifest.statistics
    assert statistics is not None
    older = statistics.model_copy(update={"bands": ()})
    manifest = split.manifest.model_copy(update={"statistics": older})
    with pytest.raises(UserError, match=r"image_scale = asinh: .* pack it anew, or choose cutout"):
        Samples(split, manifest, "asinh")


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
    samples.read_rest(rows, features, labels, torch.empty(2))
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
        samples.read_rest(rows, features, *torch.empty(2, len(rows)))
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


def test_soft_labels_and_weights_are_read_where_they_are_asked_for(tmp_path: Path) -> None:
    graded = {
        "p_lens": ["" if row % 3 == 0 else f"{row / 40}" for row in range(40)],
        "trust": [f"{row % 4}" for row in range(40)],
    }
    survey = write_survey(tmp_path / "s", **graded)
    carried = "columns.target=p_lens", "columns.weight=trust"
    split = Split(pack_survey(survey, tmp_path / "d", *carried), "train")
    rows = np.arange(len(split))[::-1].copy()
    hard, targets, trust = (split.take(name, rows) for name in ("labels", "targets", "weights"))
    assert 0 < np.isnan(targets).sum() < len(rows)

    for soft_labels in (True, False):
        samples = Samples(split, split.manifest, "cutout", soft_labels=soft_labels)
        features = torch.empty(len(rows), samples.feature_width)
        labels, weights = torch.empty(2, len(rows))
        samples.read_rest(rows, features, labels, weights)
        if soft_labels:
            np.testing.assert_array_equal(labels, np.where(np.isnan(targets), hard, targets))
            np.testing.assert_array_equal(weights, trust)
        else:
            np.testing.assert_array_equal(labels, hard)
            assert weights.tolist() == [1] * len(rows)
