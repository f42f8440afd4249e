import json
import pickle
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from lens_hpc import UserError
from lens_hpc.data import shards
from lens_hpc.data.reader import Split
from tests.conftest import pack_survey, write_survey


def test_a_shard_is_plain_hdf5_as_documented(dataset: Path) -> None:
    with h5py.File(dataset / "train" / "shard-00000.h5") as shard:
        rows = shard["labels"].shape[0]
        assert shard["images"].shape == (rows, 2, 8, 8)
        assert shard["images"].dtype == np.dtype("<f4")
        assert shard["features"].shape == (rows, 2)
        assert shard["labels"].dtype == np.int8
        assert h5py.check_string_dtype(shard["ids"].dtype).encoding == "utf-8"
        assert shard["ids"].asstr()[0].startswith("obj")
        assert shard["images"].chunks is None
        assert shard["images"].id.get_offset() % 4096 == 0
        assert list(shard.attrs["bands"]) == ["g", "r"]
        assert list(shard.attrs["features"]) == ["radius", "colour"]
        assert (shard.attrs["pixel_scale_arcsec"], shard.attrs["units"], shard.attrs["schema_version"]) == (
            0.2,
            "counts",
            2,
        )


def test_every_row_is_read_as_it_was_packed(survey: Path, dataset: Path) -> None:
    seen = []
    for name in ("train", "val", "test"):
        split = Split(dataset, name)
        ids = split.ids()
        seen += list(ids)
        rows = np.random.default_rng(0).permutation(len(split))
        taken = split.take("images", rows)
        for row, image in zip(rows, taken, strict=True):
            np.testing.assert_array_equal(image, np.load(survey / f"{ids[row]}.npy"))
            assert split.take("labels", np.array([row]))[0] == int(ids[row][3:]) % 2
    assert sorted(seen) == sorted(f"obj{i}" for i in range(40))


def test_rows_of_several_shards_come_in_the_order_asked(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=1500, size=32)
    split = Split(pack_survey(survey, tmp_path / "d", "shard_mib=1"), "train")
    assert len(split.record.shards) > 1
    rows = np.random.default_rng(1).permutation(len(split))[:300]
    means = split.take("images", rows).mean(axis=(1, 2, 3))
    numbers = np.array([int(identifier[3:]) for identifier in split.ids()])
    np.testing.assert_allclose(means, numbers[rows], atol=0.5)


def test_checksums_cover_files_and_blocks(dataset: Path) -> None:
    split = Split(dataset, "train")
    (record,) = split.record.shards
    assert f"{zlib.crc32((dataset / record.file).read_bytes()):08x}" == record.crc32
    rows = np.arange(len(split))
    block = shards.Rows(*(split.take(name, rows) for name in shards.COLUMNS))
    assert (block.crc32(),) == record.block_crc32


def test_a_split_goes_to_another_process_without_its_maps(dataset: Path) -> None:
    split = Split(dataset, "train")
    before = split.take("images", np.array([3]))
    sent = pickle.dumps(split)
    assert len(sent) < 10_000
    np.testing.assert_array_equal(pickle.loads(sent).take("images", np.array([3])), before)


def test_no_features_is_a_valid_dataset(tmp_path: Path, survey: Path) -> None:
    split = Split(pack_survey(survey, tmp_path / "d", "columns.features=[]"), "train")
    assert split.take("features", np.array([1, 2])).shape == (2, 0)


def test_a_split_that_is_not_there_is_named(dataset: Path) -> None:
    with pytest.raises(UserError, match="has no split 'tset'; it has: train, val, test"):
        Split(dataset, "tset")


def test_a_folder_without_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a packed dataset"):
        Split(tmp_path, "train")


@pytest.mark.parametrize("change", ["chop", "delete", "swap", "garbage"])
def test_a_damaged_shard_is_named_before_anything_is_read(dataset: Path, change: str) -> None:
    file = dataset / "val" / "shard-00000.h5"
    whole = file.read_bytes()
    if change == "chop":
        file.write_bytes(whole[:-100])
    elif change == "delete":
        file.unlink()
    elif change == "swap":
        file.write_bytes((dataset / "train" / "shard-00000.h5").read_bytes())
    else:
        file.write_bytes(bytes(len(whole)))
    with pytest.raises(UserError, match=r"val/shard-00000\.h5"):
        Split(dataset, "val")


def test_a_damaged_or_newer_manifest_is_named(dataset: Path) -> None:
    file = dataset / "manifest.json"
    tree = json.loads(file.read_text())
    file.write_text(json.dumps(tree | {"schema_version": 99}))
    with pytest.raises(UserError, match="schema version 99"):
        shards.read_manifest(dataset)
    file.write_text(file.read_text()[:50])
    with pytest.raises(UserError, match=r"manifest\.json: is damaged"):
        shards.read_manifest(dataset)
