"""Statistics of training: exact where they can be, and near where they are sampled."""

from pathlib import Path

import numpy as np
import pytest

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.dataset.manifest import PERCENTILES, Distribution, Manifest
from lens_hpc.packing import training_statistics
from tests.conftest import pack_survey, write_survey


def statistics_of(dataset: Dataset) -> tuple[Manifest, tuple[Distribution, ...]]:
    assert dataset.manifest.statistics is not None
    return dataset.manifest, dataset.manifest.statistics.bands


def check_percentiles(found: Distribution, values: np.ndarray) -> None:
    expected = np.percentile(values.astype(np.float64), PERCENTILES)
    np.testing.assert_allclose(list(found.percentiles.values()), expected, rtol=1e-6)
    assert list(found.percentiles) == ["0.1", "1", "16", "50", "84", "99", "99.9"]
    assert (found.min, found.max) == (values.min(), values.max())


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_statistics_are_those_of_the_rows_in_training(tmp_path: Path, compression: str) -> None:
    survey = write_survey(tmp_path / "s", rows=90)
    image = np.load(survey / "obj4.npy")
    image[1, 2, :3] = np.nan
    np.save(survey / "obj4.npy", image)
    settings = ("bad_pixels.most=0.5", "splits={train: 1.0}", f"compression={compression}")
    dataset = Dataset(pack_survey(survey, tmp_path / "d", *settings))
    train = dataset["train"][:]
    manifest, bands = statistics_of(dataset)
    for number in range(2):
        check_percentiles(bands[number], train.images[:, number])
    assert [band.missing for band in bands] == [0, 3]

    assert manifest.statistics is not None
    for number, described in enumerate(manifest.statistics.features):
        values = train.features[:, number]
        check_percentiles(described, values[~np.isnan(values)])
        assert described.missing == np.isnan(values).sum()
    assert manifest.statistics.features[1].missing == 13


def test_only_training_counts(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s")
    dataset = Dataset(pack_survey(survey, tmp_path / "d"))
    _, bands = statistics_of(dataset)
    train = dataset["train"][:].images
    assert bands[0].max == train[:, 0].max()
    assert bands[0].min == train[:, 0].min()


@pytest.mark.slow
def test_the_same_whoever_writes_the_shards(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=600, size=23)
    one = statistics_of(Dataset(pack_survey(survey, tmp_path / "a", "shard_mib=1", "processes=1")))
    for task in (1, 0):
        share = ("processes=2", f"task={task}", "tasks=2")
        pack_survey(survey, tmp_path / "b", "shard_mib=1", *share)
    assert statistics_of(Dataset(tmp_path / "b"))[1] == one[1]


def test_a_bad_row_leaves_no_trace(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s")
    for row in range(40):
        np.save(survey / f"obj{row}.npy", np.load(survey / f"obj{row}.npy") + 1000)
    (survey / "obj3.npy").write_bytes(b"junk")
    settings = ("on_bad=skip", "splits={train: 1.0}")
    _, bands = statistics_of(Dataset(pack_survey(survey, tmp_path / "d", *settings)))
    assert all(band.min > 900 for band in bands)


def test_a_sample_is_near_and_of_a_fixed_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = write_survey(tmp_path / "s", rows=400, size=24)
    settings = ("splits={train: 1.0}", "processes=1")
    monkeypatch.setattr(training_statistics, "PIXELS_SAMPLED", 40_000)
    monkeypatch.setattr(training_statistics, "ROWS_SAMPLED", 200)
    dataset = Dataset(pack_survey(survey, tmp_path / "d", *settings))
    images = dataset["train"][:].images
    sample = training_statistics.sample_pixels(dataset["train"], 0)
    assert sample.shape == (2, 40_000)
    assert np.isin(sample[1], images[:, 1]).all()

    _, bands = statistics_of(dataset)
    assert bands[0].max == images[:, 0].max()
    for name, value in bands[0].percentiles.items():
        share = (images[:, 0] < value).mean()
        assert abs(share - float(name) / 100) < 0.1  # of 200 rows, each with its own level
