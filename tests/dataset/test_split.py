from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from lens_hpc.dataset.sample import Sample
from lens_hpc.dataset.split import Split
from tests.conftest import pack_survey, write_survey


@pytest.fixture(scope="module", params=["none", "gzip"])
def split(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Split:
    """More rows than are read at once, in groups; compressed or not."""
    folder = tmp_path_factory.mktemp("split")
    groups = [f"tile{i % 50}" for i in range(150)]
    survey = write_survey(folder / "survey", rows=150, tile=groups)
    overrides = ("columns.group=tile", f"compression={request.param}", "splits={train: 1.0}")
    return Split(pack_survey(survey, folder / "packed", *overrides), "train")


def assert_equal(sample: Sample, row: int, split: Split) -> None:
    rows = np.array([row])
    np.testing.assert_array_equal(sample.image, split.take("images", rows)[0])
    np.testing.assert_array_equal(sample.features, split.take("features", rows)[0])
    assert sample.label == split.take("labels", rows)[0]
    assert sample.id == split.ids(rows)[0]
    assert sample.group == split.texts("groups", rows)[0]


def test_a_row_is_a_sample(split: Split) -> None:
    sample = split[5]
    assert_equal(sample, 5, split)
    assert sample.image.shape == (2, 8, 8)
    assert sample.features.dtype == np.float32
    assert (type(sample.label), type(sample.id), type(sample.group)) == (int, str, str)
    assert sample.label == int(sample.id[3:]) % 2
    assert sample.group == f"tile{int(sample.id[3:]) % 50}"

    assert_equal(split[-1], 149, split)
    assert_equal(split[np.int64(-150)], 0, split)


@pytest.mark.parametrize("row", [150, -151])
def test_a_row_beyond_the_end_is_an_index_error(split: Split, row: int) -> None:
    with pytest.raises(IndexError, match=f"row {row} is not one of the 150 rows"):
        split[row]
    with pytest.raises(IndexError):
        split[[0, row]]


def test_slices_and_lists_are_batches_in_their_order(split: Split) -> None:
    for key, rows in [
        (slice(10, 20), range(10, 20)),
        (slice(None, None, -50), [149, 99, 49]),
        (slice(140, 1000), range(140, 150)),
        ([3, -1, 3], [3, 149, 3]),
        (np.array([7, 2], dtype=np.uint8), [7, 2]),
    ]:
        batch = split[key]
        assert len(batch.labels) == len(rows)
        for position, row in enumerate(rows):
            assert_equal(batch.sample(position), row, split)
    assert split[[]].images.shape == (0, 2, 8, 8)
    assert split[5:5].ids.shape == (0,)


def test_booleans_choose(split: Split) -> None:
    is_lens = split.take("labels", np.arange(len(split))) == 1
    assert len(split[is_lens].ids) == 75
    assert set(split[is_lens].labels.tolist()) == {1}


def test_a_loop_yields_every_sample_once(split: Split) -> None:
    samples = list(split)
    assert len(samples) == 150
    for row, sample in enumerate(samples):
        assert_equal(sample, row, split)


def test_pandas_gets_all_but_the_images(split: Split) -> None:
    table = split.to_pandas()
    assert list(table.columns) == ["id", "split", "label", "group", "radius", "colour"]
    assert list(table.id) == split.ids().tolist()
    assert set(table.split) == {"train"}
    assert table.label.sum() == 75
    np.testing.assert_array_equal(table.loc[7, ["radius", "colour"]], split[7].features)
    assert table.colour.isna().sum() == 22


def test_a_feature_may_have_the_name_of_a_column(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", label=["2.5"] * 40)
    split = Split(pack_survey(survey, tmp_path / "d", "columns.features=[label]"), "train")
    table = split.to_pandas()
    assert list(table.columns) == ["id", "split", "label", "label"]
    assert table.iloc[:, 2].isin([0, 1]).all()
    assert (table.iloc[:, 3] == 2.5).all()
    assert isinstance(table, pd.DataFrame)


@pytest.mark.parametrize("workers", [0, 2])
def test_torch_loads_it_with_workers_and_shuffled(split: Split, workers: int) -> None:
    dataset = split.to_torch()
    image, features, label = dataset[-1]
    assert (image.dtype, features.dtype, label) == (torch.float32, torch.float32, split[-1].label)
    np.testing.assert_array_equal(image, split[-1].image)

    loader = DataLoader(dataset, batch_size=16, shuffle=True, num_workers=workers)
    means = []
    for images, features, labels in loader:
        assert images.shape[1:] == (2, 8, 8)
        assert features.shape[1:] == (2,)
        means += images.mean(dim=(1, 2, 3)).tolist()
        # Row i of the toy survey is noise around i, and a lens where i is odd.
        assert (images.mean(dim=(1, 2, 3)).round().long() % 2 == labels).float().mean() > 0.9
    np.testing.assert_allclose(sorted(means), np.arange(150), atol=0.5)
    assert means != sorted(means)


@pytest.mark.slow
def test_torch_loads_it_in_processes_that_start_clean(split: Split) -> None:
    loader = DataLoader(
        split.to_torch(), batch_size=16, num_workers=2, multiprocessing_context="spawn"
    )
    labels = torch.cat([batch.label for batch in loader])
    np.testing.assert_array_equal(labels, split[:].labels)


def test_torch_stops_at_the_end(split: Split) -> None:
    assert sum(1 for _ in split.to_torch()) == 150


def test_pixels_of_other_types_are_float32_in_torch(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s")
    split = Split(pack_survey(survey, tmp_path / "d", "dtype=float16"), "test")
    assert split[0].image.dtype == np.float16
    assert split.to_torch()[0].image.dtype == torch.float32


def test_it_says_what_it_is(split: Split) -> None:
    assert repr(split).splitlines() == [
        f"Split 'train' of 'toy' in {split.dataset}",
        "  samples   75 lenses, 75 non-lenses",
        "  cutouts   g, r; 8 x 8 px, 1.6 x 1.6 arcsec; counts",
        "  features  radius, colour",
    ]
    assert repr(split[5]).startswith(f"Sample(id='{split[5].id}', label=")
    assert "image=float32[2, 8, 8]" in repr(split[5])
    assert repr(split[5:8]).startswith("SampleBatch(images=float32[3, 2, 8, 8]")
    assert repr(split.to_torch()) == f"TorchSplit(150 samples of 'train' in {split.dataset})"
