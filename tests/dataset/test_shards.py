import zlib
from pathlib import Path

import h5py
import numpy as np

from lens_hpc.dataset import shards
from lens_hpc.dataset.split import Split


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
        assert (
            shard.attrs["pixel_scale_arcsec"],
            shard.attrs["units"],
            shard.attrs["schema_version"],
        ) == (
            0.2,
            "counts",
            3,
        )


def test_checksums_cover_files_and_blocks(dataset: Path) -> None:
    split = Split(dataset, "train")
    (record,) = split.record.shards
    assert f"{zlib.crc32((dataset / record.file).read_bytes()):08x}" == record.crc32
    rows = np.arange(len(split))
    block = shards.RowBlock(*(split.take(name, rows) for name in shards.COLUMNS))
    assert (block.crc32(),) == record.block_crc32
