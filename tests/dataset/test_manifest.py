"""A manifest is read whole and sound, or refused in one message: it may be somebody else's."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from lens_hpc.dataset import manifest as manifests
from lens_hpc.dataset.manifest import DatasetName, Manifest, read_manifest, read_run_manifest
from lens_hpc.dataset.shards import BLOCK_ROWS
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from tests.conftest import call, pack_survey, write_survey

Tree = dict[str, Any]
Damage = Callable[[Tree], Any]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset whose manifest each test writes as it likes."""
    folder = tmp_path_factory.mktemp("manifest")
    return pack_survey(write_survey(folder / "s"), folder / "d")


@pytest.fixture(scope="module")
def sound(packed: Path) -> bytes:
    """The manifest as packing wrote it."""
    return (packed / "manifest.json").read_bytes()


def refuse(packed: Path, content: bytes) -> str:
    """Return what is said of a dataset with this manifest, which must be one short message."""
    (packed / "manifest.json").write_bytes(content)
    with pytest.raises(UserError) as error:
        read_manifest(packed)
    said = str(error.value)
    assert said.startswith(f"{packed / 'manifest.json'}: ")
    assert "\n" not in said
    assert len(said) < 1000
    return said


def train(tree: Tree) -> Tree:
    return tree["splits"]["train"]


def shard(tree: Tree) -> Tree:
    return train(tree)["shards"][0]


def rename_split(tree: Tree, name: str) -> None:
    tree["splits"][name] = tree["splits"].pop("test")
    for record in tree["splits"][name]["shards"]:
        record["file"] = record["file"].replace("test/", f"{name}/")


DAMAGES: dict[str, Damage] = {
    # Names become paths.
    "a name without end": lambda t: t.update(name="a" * 10_001),
    "a shard that climbs": lambda t: shard(t).update(file="../../.bashrc"),
    "an absolute shard": lambda t: shard(t).update(file="/etc/passwd"),
    "a shard by a detour": lambda t: shard(t).update(file="train/../train/shard-00000.h5"),
    "a shard of another split": lambda t: shard(t).update(file="val/shard-00000.h5"),
    "a shard of another name": lambda t: shard(t).update(file="train/.bashrc"),
    "a split that climbs": lambda t: rename_split(t, ".."),
    "a split that no folder can be": lambda t: rename_split(t, "t" * 256),
    "a split with a slash": lambda t: rename_split(t, "a/b"),
    "a table that climbs": lambda t: t.update(files={"../x": {"bytes": 1, "crc32": "0" * 8}}),
    # Numbers agree with each other.
    "other rows": lambda t: train(t).update(rows=train(t)["rows"] + 1),
    "other rows of a shard": lambda t: shard(t).update(rows=shard(t)["rows"] - 1),
    "other lenses": lambda t: train(t).update(lenses=train(t)["lenses"] + 1),
    "a negative count": lambda t: train(t).update(lenses=-2, non_lenses=train(t)["rows"] + 2),
    "a shard twice": lambda t: train(t).update(shards=[shard(t), shard(t)]),
    "no shard": lambda t: train(t).update(shards=[], rows=0, lenses=0, non_lenses=0),
    "no split": lambda t: t.update(splits={}),
    "a block too many": lambda t: shard(t).update(block_crc32=["0" * 8] * 2),
    "blocks of another size": lambda t: t.update(block_rows=1),
    "a checksum that is none": lambda t: shard(t).update(crc32="xyz"),
    "a block's checksum that is none": lambda t: shard(t).update(block_crc32=["0x123456"]),
    "no size": lambda t: shard(t).update(bytes=0),
    "a size beyond all disks": lambda t: shard(t).update(bytes=10**30),
    "no band": lambda t: t.update(bands=[]),
    "a band twice": lambda t: t.update(bands=["g", "g"]),
    "a feature twice": lambda t: t.update(features=["radius", "radius"]),
    "no height": lambda t: t.update(height=0),
    "a number as text": lambda t: t.update(height="8"),
    "an unknown type": lambda t: t.update(dtype="object"),
    "no pixel scale": lambda t: t.update(pixel_scale_arcsec=0),
    "fewer rejected than none": lambda t: t.update(rejected=-1),
    "statistics of fewer features": lambda t: t["statistics"].update(feature_min=[0.0]),
    "statistics of more bands": lambda t: t["statistics"]["bands"].append(
        t["statistics"]["bands"][0]
    ),
    "no percentile 16": lambda t: t["statistics"]["features"][0]["percentiles"].pop("16"),
    "no statistics of train": lambda t: t.update(statistics=None),
    "a zero point of no band": lambda t: t.update(zero_point={"u": 25.0}),
    "an unknown key": lambda t: t.update(surprise=1),
    "a key less": lambda t: t.pop("units"),
    "another schema": lambda t: t.update(schema_version=99),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_manifest_that_lies_is_refused(packed: Path, sound: bytes, damage: Damage) -> None:
    tree = json.loads(sound)
    damage(tree)
    refuse(packed, json.dumps(tree).encode())
    with pytest.raises(UserError, match=r"manifest\.json"):
        call("verify", packed)


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"3", b"NaN", b"{", b"\xff\xfe{}", b"[" * 100_000, b'{"a":' * 100_000],
    ids=lambda content: repr(content[:6]),
)
def test_what_is_no_manifest_is_refused(packed: Path, content: bytes) -> None:
    assert "is damaged" in refuse(packed, content)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e999", b"1" * 5000])
def test_what_is_no_number_is_refused(packed: Path, sound: bytes, number: bytes) -> None:
    tree = json.loads(sound)
    tree["statistics"]["image_max"] = "HERE"
    refuse(packed, json.dumps(tree).encode().replace(b'"HERE"', number))


def test_a_manifest_of_any_size_is_not_read(packed: Path) -> None:
    with (packed / "manifest.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="are more than any manifest has"):
        read_manifest(packed)


def many_keys(tree: Tree) -> None:
    tree.update({str(number): 0 for number in range(600_000)})


def many_bad_splits(tree: Tree) -> None:
    tree["splits"].update({f"{number}.": 0 for number in range(300_000)})


def many_checksums(tree: Tree) -> None:
    shard(tree).update(block_crc32=["x"] * 1_000_000)


def many_lists(tree: Tree) -> None:
    tree.update(recipe={"a": [[]] * 3_000_000})


def many_numbers(tree: Tree) -> None:
    tree.update(recipe={"a": [0] * 21_000_000})


def many_empty_shards(tree: Tree) -> None:
    train(tree).update(shards=[{}] * 400_000)


def slow(damage: Damage) -> Any:
    return pytest.param(damage, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "damage",
    [
        slow(many_keys),
        slow(many_bad_splits),
        slow(many_numbers),
        many_lists,
        many_checksums,
        many_empty_shards,
    ],
)
def test_a_million_mistakes_are_not_gathered(packed: Path, sound: bytes, damage: Damage) -> None:
    tree = json.loads(sound)
    damage(tree)
    content = json.dumps(tree).encode()
    began = time.process_time()
    refuse(packed, content)
    assert time.process_time() - began < 2


def test_a_link_to_nothing_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="not a packed dataset"):
        read_manifest(tmp_path)


def test_a_run_is_no_dataset_though_it_has_the_manifest_of_one(
    tmp_path: Path, sound: bytes
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "manifest.json").write_bytes(sound)
    (run / "config.yaml").write_text("run: run\n")
    survey = write_survey(tmp_path / "s")

    assert read_run_manifest(run).name
    with pytest.raises(UserError, match="run is a run, not a packed dataset"):
        read_manifest(run)
    with pytest.raises(UserError, match="run is a run, not a packed dataset"):
        pack_survey(survey, run)  # would say that it is packed already


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_damaged_byte_gives_a_manifest_or_one_message(
    packed: Path, sound: bytes, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(sound) - 1))
    change = data.draw(st.integers(1, 255))
    content = bytearray(sound)
    content[place] ^= change
    (packed / "manifest.json").write_bytes(content)
    found, said = None, ""
    try:
        found = read_manifest(packed)
    except UserError as error:
        said = str(error)
    if found is None:
        assert "manifest.json" in said
    else:
        # Whatever passes can be written, too.
        assert Manifest.model_validate_json(found.model_dump_json()) == found


def test_a_manifest_is_read_as_it_was_written(packed: Path, sound: bytes) -> None:
    (packed / "manifest.json").write_bytes(sound)
    manifest = read_manifest(packed)
    assert manifest.model_dump_json(indent=1).encode() + b"\n" == sound
    assert manifest.block_rows == BLOCK_ROWS
    assert 100 * len(sound) < manifests.MOST_BYTES


@pytest.mark.parametrize("name", ["DES/Y3", "", "a\tb", "a..b/c", "星" * 300])
@pytest.mark.parametrize("seed", [2**53 + 1, 2**63 - 1, 2**70])
def test_what_older_versions_packed_is_read(
    packed: Path, sound: bytes, name: str, seed: int
) -> None:
    tree = json.loads(sound) | {"name": name, "seed": seed}
    (packed / "manifest.json").write_text(json.dumps(tree))
    manifest = read_manifest(packed)
    assert (manifest.name, manifest.seed) == (name, seed)
    assert Manifest.model_validate_json(manifest.model_dump_json(), strict=True) == manifest


def test_a_long_name_of_a_split_that_an_older_version_packed_is_read(
    packed: Path, sound: bytes
) -> None:
    tree = json.loads(sound)
    rename_split(tree, "t" * 255)
    (packed / "manifest.json").write_text(json.dumps(tree))
    assert "t" * 255 in read_manifest(packed).splits


@pytest.mark.slow
def test_a_dataset_of_very_many_shards_is_read(packed: Path, sound: bytes) -> None:
    tree = json.loads(sound)
    split = train(tree)
    split["shards"] = [
        shard(tree) | {"file": f"train/shard-{number:05d}.h5"} for number in range(100_000)
    ]
    for kind in ("rows", "lenses", "non_lenses", "unlabelled"):
        split[kind] *= 100_000
    (packed / "manifest.json").write_text(json.dumps(tree))
    assert len(read_manifest(packed).splits["train"].shards) == 100_000


@pytest.mark.slow
def test_a_dataset_of_very_many_rows_is_read(packed: Path, sound: bytes) -> None:
    tree = json.loads(sound)
    split = train(tree)
    blocks = 6_000_000
    shard(tree).update(rows=256 * blocks, block_crc32=["01234567"] * blocks)
    split.update(rows=256 * blocks, lenses=256 * blocks, non_lenses=0, unlabelled=0)
    (packed / "manifest.json").write_text(json.dumps(tree))
    assert manifests.MOST_BYTES > (packed / "manifest.json").stat().st_size > 64 << 20
    assert len(read_manifest(packed).splits["train"].shards[0].block_crc32) == blocks


@pytest.mark.parametrize("name", ["DES Y3, r < 22", "星" * 66, "DES/Y3"])
def test_a_new_dataset_has_any_name_that_can_be_shown(name: str) -> None:
    assert TypeAdapter(DatasetName).validate_python(name) == name


@pytest.mark.parametrize("name", ["", "a\nb", "a\0b", "x" * 201, "星" * 67])
def test_a_new_dataset_has_no_name_that_cannot(name: str) -> None:
    with pytest.raises(ValidationError, match="must have 1 to 200 bytes"):
        TypeAdapter(DatasetName).validate_python(name)


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/a", ".."])
def test_no_name_of_a_dataset_leads_to_another_folder(dataset: Path, name: str) -> None:
    with pytest.raises(ValidationError, match="must not lead to another folder"):
        TypeAdapter(DatasetName).validate_python(name)
    file = dataset / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"name": name}))
    with pytest.raises(UserError, match="must not lead to another folder"):
        read_manifest(dataset)


def test_a_damaged_or_newer_manifest_is_named(dataset: Path) -> None:
    file = dataset / "manifest.json"
    tree = json.loads(file.read_text())
    file.write_text(json.dumps(tree | {"schema_version": 99}))
    with pytest.raises(UserError, match="schema version 99"):
        read_manifest(dataset)
    file.write_text(file.read_text()[:50])
    with pytest.raises(UserError, match=r"manifest\.json: is damaged"):
        read_manifest(dataset)


def test_a_folder_without_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a packed dataset: it has no manifest\.json"):
        Split(tmp_path, "train")
    with pytest.raises(UserError, match="not a packed dataset: there is no such folder"):
        Split(tmp_path / "typo", "train")
