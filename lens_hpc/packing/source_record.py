"""What a dataset was made from, and whether that has changed since.

The content of the catalogue's rows decides, not the bytes of its file. Of the images, times and
sizes are compared first; where these differ, the pixels decide.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from lens_hpc.dataset.manifest import Manifest, SourceRecord
from lens_hpc.dataset.shards import hash_pixels
from lens_hpc.dataset.split import Split
from lens_hpc.dataset.verdict import first_few
from lens_hpc.errors import UserError
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.packing.plan import Plan, Shard, stack_stamps

IDS_PER_HASH = 100_000
MOST_ROWS_NAMED = 20


def describe_source(plan: Plan) -> SourceRecord:
    """Return what tells whether catalogue or files change after the packing."""
    return SourceRecord(
        content=_hash_content(plan),
        files={shard.file: _hash_stamps(plan, shard) for shard in plan.shards},
    )


def check_source(plan: Plan, manifest: Manifest) -> None:
    """Raise UserError with what has changed since the plan's output was packed.

    Datasets of schema 2 do not know what they were made from.
    """
    before = manifest.source
    if before is None:
        return

    now = _hash_content(plan)
    changed = [part for part in now if now[part] != before.content.get(part)]
    changes = [_describe_change(plan, manifest, part) for part in changed]
    if not changes:
        changes = _changed_images(plan, manifest, before)
    if changes:
        listed = "; ".join(changes)
        raise UserError(
            f"output = {plan.settings.output}: its source has changed since it was packed: "
            f"{listed}. Name another output, or delete this one to pack it anew"
        )


# ---- the catalogue ----


def _hash_content(plan: Plan) -> dict[str, str]:
    """Return the SHA-256 of each part of the catalogue, over all rows in their order."""
    catalogue = plan.catalogue
    kept: np.ndarray = np.zeros(0, np.uint64)
    if len(catalogue.kept.columns):  # without any, pandas 2 fails
        kept = pd.util.hash_pandas_object(catalogue.kept, index=False).to_numpy()
    arrays = {
        "ids": plan.ids,
        "labels": catalogue.labels,
        "features": catalogue.features,
        "groups": plan.groups,
        "targets": catalogue.targets,
        "weights": catalogue.weights,
        "columns.keep": kept,
    }
    if catalogue.positions is not None:
        arrays["positions"] = catalogue.positions
    hashes = {}
    for name, array in arrays.items():
        hashes[name] = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()

    hashes["splits"] = _hash_texts([] if catalogue.splits is None else catalogue.splits)
    for name, texts in (
        ("paths of images", catalogue.paths),
        ("hdu", catalogue.hdus),
        ("key", catalogue.keys),
    ):
        hashes[name] = _hash_texts([] if texts is None else texts.ravel())
    return hashes


def _hash_texts(texts: Sequence[str] | np.ndarray) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(texts), IDS_PER_HASH):
        part = "\0".join(map(str, texts[start : start + IDS_PER_HASH]))
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _describe_change(plan: Plan, manifest: Manifest, part: str) -> str:
    """Say which part has changed, and in which rows, where the dataset knows."""
    now = {
        "labels": plan.catalogue.labels,
        "features": plan.catalogue.features,
        "groups": plan.groups,
        "targets": plan.catalogue.targets,
        "weights": plan.catalogue.weights,
    }
    if part not in now:
        return part

    place_of_id = pd.Index(plan.catalogue.ids)
    names = []
    for name in manifest.splits:
        split = Split(plan.settings.output, name, manifest=manifest)
        ids = split.ids()
        places = place_of_id.get_indexer(pd.Index(ids))
        stored = split.take(part, np.arange(len(split)))[places >= 0]
        same = _are_equal(stored, now[part][places[places >= 0]])
        names += ids[places >= 0][~same].tolist()
    return f"{part} of {first_few(names)}" if names else part


def _are_equal(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return which rows of two columns are equal, a missing value being equal to itself."""
    same = one == other
    if one.dtype.kind == "f":
        same |= np.isnan(one) & np.isnan(other)
    return same if same.ndim == 1 else same.all(axis=1)


# ---- the images ----


def _hash_stamps(plan: Plan, shard: Shard) -> str:
    """Return the SHA-256 of the times and sizes of the files that a shard is made from."""
    digest = hashlib.sha256(repr(stack_stamps(plan.settings)).encode())
    digest.update(plan.catalogue.stamps[shard.rows].tobytes())
    return digest.hexdigest()


def _changed_images(plan: Plan, manifest: Manifest, before: SourceRecord) -> list[str]:
    """Say which images have other pixels now; those with old times are not read."""
    touched = [
        shard for shard in plan.shards if before.files.get(shard.file) != _hash_stamps(plan, shard)
    ]
    names: list[str] = []
    for shard in touched:
        names += _changed_in_shard(plan, manifest, shard)
        if len(names) >= MOST_ROWS_NAMED:
            break
    return [f"images of {first_few(names)}"] if names else []


def _changed_in_shard(plan: Plan, manifest: Manifest, shard: Shard) -> Iterator[str]:
    """Yield the ids whose cutouts are not those that were packed, or left out, before."""
    stored = _stored_hashes(plan, manifest, shard)
    plan.cutouts.prepare(shard.rows, lambda row: None)
    for row in shard.rows.tolist():
        identifier = str(plan.catalogue.ids[row])
        try:
            image = plan.cutouts.read(row).image
        except BadCutoutError:
            now = None
        else:
            now = int(hash_pixels(image[None])[0])
        if now != stored.get(identifier):
            yield identifier


def _stored_hashes(plan: Plan, manifest: Manifest, shard: Shard) -> dict[str, int]:
    """Return the hash of the image of each id that a shard holds."""
    split = Split(plan.settings.output, shard.split, manifest=manifest)
    lengths = {record.file: record.rows for record in split.record.shards}
    if shard.file not in lengths:
        return {}

    names = list(lengths)
    start = sum(lengths[name] for name in names[: names.index(shard.file)])
    rows = np.arange(start, start + lengths[shard.file])
    hashes = split.take("pixel_hashes", rows)
    return dict(zip(split.ids(rows).tolist(), hashes.tolist(), strict=True))
