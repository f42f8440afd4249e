import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError


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


def test_swapped_shards_are_named(many_shards: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "d"
    shutil.copytree(many_shards, dataset)
    one, other = (dataset / "train" / f"shard-0000{n}.h5" for n in (3, 4))
    assert one.stat().st_size == other.stat().st_size
    aside = one.rename(dataset / "aside")
    other.rename(one)
    aside.rename(other)
    with pytest.raises(UserError, match=r"shard-00003\.h5: is really train/shard-00004\.h5"):
        Split(dataset, "train")


def test_columns_of_another_type_are_named(many_shards: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "d"
    shutil.copytree(many_shards, dataset)
    file = dataset / "train" / "shard-00002.h5"
    with h5py.File(file, "r+") as shard:
        labels = shard["labels"][:].astype(np.int16)
        del shard["labels"]
        shard["labels"] = labels
    manifest = dataset / "manifest.json"
    size = next(
        shard.bytes for shard in Split(many_shards, "train").record.shards if "00002" in shard.file
    )
    head, told, tail = manifest.read_text().partition('"train/shard-00002.h5"')
    manifest.write_text(head + told + tail.replace(str(size), str(file.stat().st_size), 1))
    with pytest.raises(
        UserError, match=r"shard-00002\.h5: its columns are not of the types of .*shard-00000"
    ):
        Split(dataset, "train")
