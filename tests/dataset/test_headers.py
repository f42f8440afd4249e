import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lens_hpc.dataset.manifest import ShardRecord, read_manifest
from lens_hpc.dataset.shards import file_crc32, find_damage, read_row
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from tests.conftest import call


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
        ids = shard["ids"][:].astype(h5py.string_dtype("utf-8", 99))
        del shard["ids"]
        shard["ids"] = ids
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


# ---- shards of somebody else ----

SECRET = 4711
HOSTILE: dict[str, Callable[[h5py.File, Path], None]] = {}


def hostile(name: str, column: str = "images") -> Callable[[Any], Any]:
    """Note a way to write one column of a shard so that it is none of ours."""

    def note(write: Callable[[h5py.File, str, np.ndarray, Path], None]) -> Any:
        def attack(shard: h5py.File, other: Path) -> None:
            values = shard[column][:]
            del shard[column]
            write(shard, column, values, other)

        HOSTILE[name] = attack
        return write

    return note


@hostile("external link")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    shard[name] = h5py.ExternalLink(str(other), name)


@hostile("external link of the labels", "labels")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    shard[name] = h5py.ExternalLink(str(other), name)


@hostile("soft link to an external one")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    shard["hidden"] = h5py.ExternalLink(str(other), name)
    shard[name] = h5py.SoftLink("/hidden")


@hostile("soft link to itself")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    shard[name] = h5py.SoftLink(f"/{name}")


@hostile("soft link within")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    shard["hidden"] = values
    shard[name] = h5py.SoftLink("/hidden")


@hostile("external storage")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    stored = [(str(other), 0, values.nbytes)]
    shard.create_dataset(name, values.shape, values.dtype, external=stored)


@hostile("external storage of the ids", "ids")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    stored = [(str(other), 0, values.nbytes)]
    shard.create_dataset(name, values.shape, values.dtype, external=stored)


@hostile("virtual")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[:] = h5py.VirtualSource(str(other), name, values.shape)
    shard.create_virtual_dataset(name, layout)


@hostile("group")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    shard.create_group(name)


@hostile("named type")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    shard[name] = np.dtype("f4")


@hostile("references", "labels")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    shard.create_dataset(name, values.shape, h5py.ref_dtype)


@hostile("texts of any length", "ids")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    shard.create_dataset(name, values.shape, h5py.string_dtype())


@hostile("arrays of any length", "features")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    shard.create_dataset(name, values.shape, h5py.vlen_dtype(np.float32))


@hostile("compound", "labels")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    shard.create_dataset(name, values.shape, [("a", "i1"), ("b", "f8")])


@hostile("complex numbers")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    shard.create_dataset(name, values.shape, "c8")


@hostile("bytes swapped")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    shard.create_dataset(name, values.shape, ">f4", data=values)


@hostile("scalar", "labels")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    shard.create_dataset(name, (), "i1")


@hostile("nothing at all", "labels")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    shard[name] = h5py.Empty("i1")


@hostile("another axis", "labels")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    shard[name] = values[:, None]


@hostile("an axis less", "features")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    shard[name] = values[:, 0]


@hostile("huge and packed")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    shape = (len(values), 2, 1 << 20, 1 << 20)
    shard.create_dataset(name, shape, "f4", chunks=(1, 1, 64, 64), compression="gzip")


@hostile("huge texts", "ids")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    shard.create_dataset(name, values.shape, "S1000000000")


@hostile("claimed, but not there", "features")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    shard.create_dataset(name, values.shape, values.dtype)


@hostile("in the header", "labels")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(values.shape)
    made = h5py.h5d.create(shard.id, name.encode(), h5py.h5t.NATIVE_INT8, space, properties)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, values)


@hostile("rows that expand", "labels")
def _(shard: h5py.File, name: str, values: np.ndarray, other: Path) -> None:
    shard.create_dataset(name, (1 << 40,), "i1", chunks=(1 << 20,), compression="gzip")


def write_hostile(dataset: Path, attack: str) -> ShardRecord:
    """Change a shard, and the manifest so that it agrees: what is hostile is made to fit."""
    other = dataset.parent / "secret.h5"
    shutil.copy(dataset / "train" / "shard-00000.h5", other)
    with h5py.File(other, "r+") as secret:
        secret["images"][:] = SECRET

    file = dataset / "train" / "shard-00000.h5"
    with h5py.File(file, "r+") as shard:
        HOSTILE[attack](shard, other)
    tree = json.loads((dataset / "manifest.json").read_text())
    record = tree["splits"]["train"]["shards"][0]
    record |= {"bytes": file.stat().st_size, "crc32": file_crc32(file)}
    (dataset / "manifest.json").write_text(json.dumps(tree))
    return read_manifest(dataset).splits["train"].shards[0]


@pytest.mark.slow
@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_shard_is_refused_by_name(dataset: Path, attack: str) -> None:
    record = write_hostile(dataset, attack)
    began = time.process_time()
    with pytest.raises(UserError, match=r"train/shard-00000\.h5: ") as error:
        Split(dataset, "train")
    assert "pack it again" in str(error.value)

    # Nor is it read where its checksum is not the manifest's.
    find_damage(dataset, record)
    find_damage(dataset, record.model_copy(update={"crc32": "00000000"}))
    assert time.process_time() - began < 2
    with pytest.raises(UserError, match=r"train/shard-00000\.h5: "):
        call("verify", dataset)


@pytest.mark.parametrize("attack", ["external link", "soft link within", "virtual"])
def test_no_file_is_read_through_a_shard(dataset: Path, attack: str) -> None:
    write_hostile(dataset, attack)
    with pytest.raises(ValueError, match=r"images is a link|images lie in other files"):
        read_row(dataset / "train" / "shard-00000.h5", 0)
