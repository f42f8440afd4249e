"""Datasets of schema 2, which earlier versions wrote, are read for ever."""

import json
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from lens_hpc.dataset.manifest import read_manifest, read_run_manifest
from lens_hpc.dataset.split import Split
from lens_hpc.dataset.training_rows import hash_rows
from tests.conftest import call

TEXT = h5py.string_dtype("utf-8", 24)
TRAINING = ("model.inputs=fusion", "model.backbone=test_resnet", "model.weights=none")
TRAINING += ("augment.engine=torch", "data.workers=0", "train.epochs=1")
TRAINING += ("train.global_batch_size=8", "train.trackers=[]")


def write_schema_2(folder: Path, rows: int = 24) -> Path:
    """Write a dataset as the code before schema 3 did (commit cb4d355), with h5py alone."""
    rng = np.random.default_rng(0)
    splits, values = {}, {}
    for split in ("train", "val", "test"):
        columns = {
            "images": rng.normal(5, 1, (rows, 2, 32, 32)).astype("<f4"),
            "features": rng.normal(size=(rows, 2)).astype("<f4"),
            "labels": (np.arange(rows) % 2).astype("i1"),
            "ids": np.array([f"{split}{i}".encode() for i in range(rows)]).astype(TEXT),
            "groups": np.full(rows, b"").astype(h5py.string_dtype("utf-8", 1)),
            "sources": np.full(rows, b"npy float32 32x32").astype(h5py.string_dtype("utf-8", 32)),
        }
        name = f"{split}/shard-00000.h5"
        (folder / split).mkdir(parents=True)
        with h5py.File(
            folder / name, "w", alignment_threshold=4096, alignment_interval=4096
        ) as shard:
            shard.attrs.update({"schema_version": 2, "name": "old", "split": split, "file": name})
            for column, data in columns.items():
                shard.create_dataset(column, data=data)

        crc = zlib.crc32(b"".join(np.uint32(zlib.crc32(i)).tobytes() for i in columns["images"]))
        for column in ("features", "labels", "ids", "groups", "sources"):
            crc = zlib.crc32(columns[column].tobytes(), crc)
        content = (folder / name).read_bytes()
        record = {"file": name, "rows": rows, "bytes": len(content)}
        record |= {"crc32": f"{zlib.crc32(content):08x}", "block_crc32": [f"{crc:08x}"]}
        counts = {"rows": rows, "lenses": rows // 2, "non_lenses": rows // 2, "unlabelled": 0}
        splits[split] = counts | {"shards": [record]}
        values[split] = columns

    features, images = values["train"]["features"], values["train"]["images"]
    manifest = {"schema_version": 2, "name": "old", "bands": ["g", "r"], "height": 32, "width": 32}
    manifest |= {"dtype": "float32", "pixel_scale_arcsec": 0.2, "resampled": [], "units": "adu"}
    manifest |= {"features": ["radius", "colour"], "grouped": False, "seed": 0, "block_rows": 256}
    manifest |= {"splits": splits, "rejected": 0, "duplicates_across_splits": 0}
    manifest |= {"recipe": {"catalogue": "c.csv"}, "created_by": "lens_hpc 0.1"}
    manifest["statistics"] = {
        "feature_min": features.min(0).tolist(),
        "feature_max": features.max(0).tolist(),
        "feature_median": np.median(features, axis=0).tolist(),
        "image_max": float(images.max()),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_dataset_of_schema_2_is_read(tmp_path: Path) -> None:
    dataset = write_schema_2(tmp_path / "old")
    assert call("verify", dataset).shards == 3
    call("info", dataset)
    split = Split(dataset, "test")
    rows = np.arange(len(split))
    with h5py.File(dataset / "test" / "shard-00000.h5") as shard:
        for name in ("images", "features", "labels"):
            np.testing.assert_array_equal(split.take(name, rows), shard[name][:])
        assert split.ids().tolist() == shard["ids"].asstr()[:].tolist()

    assert np.isnan(split.take("targets", rows)).all()
    assert (split.take("weights", rows) == 1).all()
    assert split.take("weights", rows[:0]).shape == (0,)
    assert np.isnan(split[3].target)
    assert split[3:5].weights.tolist() == [1, 1]
    assert list(split.kept_columns().columns) == []
    assert len(split.to_pandas()) == 24
    assert len(np.unique(hash_rows(split).pixels)) == 24

    manifest = read_manifest(dataset)
    assert manifest.zero_point.get("g") is None
    assert manifest.statistics is not None
    assert manifest.statistics.bands == ()


def test_damage_of_schema_2_is_found(tmp_path: Path) -> None:
    from lens_hpc.dataset.shards import find_damage

    dataset = write_schema_2(tmp_path / "old")
    with h5py.File(dataset / "val" / "shard-00000.h5", "r+") as shard:
        shard["labels"][3] = 1 - shard["labels"][3]
    record = read_manifest(dataset).splits["val"].shards[0]
    assert find_damage(dataset, record).endswith("is damaged in rows 0-23")


@pytest.mark.slow
def test_a_dataset_of_schema_2_trains_and_evaluates(tmp_path: Path) -> None:
    dataset = write_schema_2(tmp_path / "old")
    config = tmp_path / "t.yaml"
    config.write_text(f"run: {tmp_path / 'run'}\n")
    call("train", config, f"data.dataset={dataset}", *TRAINING)
    call("evaluate", tmp_path / "run", "split=test")
    assert read_run_manifest(tmp_path / "run") == read_manifest(dataset)
    assert (tmp_path / "run" / "evaluation" / "test" / "metrics.json").is_file()
