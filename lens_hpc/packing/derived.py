"""A packed dataset of rows that are in memory, such as candidates or lenses painted on galaxies.

It is written by one process, whole or not at all, and is read as one that `pack` has made.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lens_hpc import files
from lens_hpc.dataset import shards
from lens_hpc.dataset.kept_columns import write_rows_by_id
from lens_hpc.dataset.manifest import Manifest, SplitRecord
from lens_hpc.layout import KEPT_COLUMNS, MANIFEST, TRUTH, shard_file
from lens_hpc.packing.describing import (
    DatasetFacts,
    WrittenShard,
    count_duplicates,
    draft_manifest,
    make_split_record,
    manifest_text,
    rows_of_shard,
    shard_attributes,
    with_statistics,
)
from lens_hpc.packing.training_statistics import ranges_of, ranges_of_none
from lens_hpc.progress import Progress

SHARD_MIB = 256


class SplitRows(NamedTuple):
    """The rows of a split, in the order in which they are to lie."""

    rows: int
    """Of all blocks together, at least 1."""
    blocks: Iterable[shards.RowBlock]
    """Each of BLOCK_ROWS rows, but for the last. The types of their columns are the same, those of
    texts, too. Targets and weights may be left out, and hashes are made anew."""


def write_dataset(
    output: Path,
    facts: DatasetFacts,
    splits: Mapping[str, SplitRows],
    kept: pa.Table | None = None,
    truth: pa.Table | None = None,
    shard_mib: int = SHARD_MIB,
    replacing: bool = False,
) -> Manifest:
    """Write a dataset of these splits to the new folder `output`, and return its manifest.

    `kept` and `truth` are the tables beside the shards, by id. Memory holds a block of images, and
    the features and labels of all rows. Raises UserError for a folder that exists, unless it is to
    be replaced, and for a feature that no row of the split train has.
    """
    with files.whole_folder(output, replacing) as folder:
        if kept is not None:
            write_rows_by_id(folder / KEPT_COLUMNS, kept)
        if truth is not None:
            write_rows_by_id(folder / TRUTH, truth)

        writers = {}
        for split, given in splits.items():
            writer = _SplitWriter(folder, facts, split)
            writer.write(given, shard_mib)
            writers[split] = writer

        written = [shard for writer in writers.values() for shard in writer.shards]
        records = {split: writer.record() for split, writer in writers.items()}
        duplicates = count_duplicates(folder, written)
        manifest = draft_manifest(folder, facts, records, duplicates)
        if "train" in writers:
            train = writers["train"]
            features = np.concatenate(train.features)
            manifest = with_statistics(folder, manifest, features, train.ranges)
        files.write_text(folder / MANIFEST, manifest_text(manifest))
    return manifest


class _SplitWriter:
    """Writes the shards of a split, and notes what the manifest says of its rows."""

    def __init__(self, folder: Path, facts: DatasetFacts, split: str) -> None:
        self.folder = folder
        self.facts = facts
        self.split = split
        self.shards: list[WrittenShard] = []
        self.labels: list[np.ndarray] = []
        self.features: list[np.ndarray] = []
        self.ranges = ranges_of_none(len(facts.bands))
        self._shape = (len(facts.bands), facts.height, facts.width)
        self._types: dict[str, np.dtype] = {}

    def write(self, given: SplitRows, shard_mib: int) -> None:
        """Write the rows in shards of about so many MiB."""
        (self.folder / self.split).mkdir()
        pixel_bytes = np.dtype(self.facts.dtype).itemsize
        row_bytes = math.prod(self._shape) * pixel_bytes
        shard_rows = rows_of_shard(row_bytes, shard_mib)

        blocks = self._noted(given.blocks)
        with Progress(given.rows, f"write {self.split}", "rows") as progress:
            for start in range(0, given.rows, shard_rows):
                count = min(shard_rows, given.rows - start)
                self.shards.append(self._write_shard(count, blocks))
                progress.update(count)
        assert next(blocks, None) is None, f"{self.split} has more than {given.rows} rows"

    def record(self) -> SplitRecord:
        """Return the manifest's record of what was written."""
        labels = np.concatenate(self.labels)
        records = [shard.record for shard in self.shards]
        return make_split_record(labels, records)

    def _write_shard(self, count: int, blocks: Iterator[shards.RowBlock]) -> WrittenShard:
        name = shard_file(self.split, len(self.shards))
        file = self.folder / name
        attributes = shard_attributes(self.facts, self.split, name)

        block_count = -(-count // shards.BLOCK_ROWS)
        of_shard = islice(blocks, block_count)
        block_crc32, image_crc32 = shards.write_shard(file, count, of_shard, attributes)
        record = shards.make_shard_record(self.folder, file, count, block_crc32)
        return WrittenShard(self.split, record, image_crc32)

    def _noted(self, blocks: Iterable[shards.RowBlock]) -> Iterator[shards.RowBlock]:
        """Yield the blocks, each with all columns, and note what is in them."""
        # Pixels that were filled before cannot be told from others.
        nothing_missing = np.zeros(len(self.facts.bands), dtype=np.int64)
        for given in blocks:
            block = _with_all_columns(given)
            self._check(block)
            self.labels.append(block.labels)
            self.features.append(block.features)
            ranges = ranges_of(block.images, nothing_missing)
            self.ranges = self.ranges.merged(ranges)
            yield block

    def _check(self, block: shards.RowBlock) -> None:
        """Find a fault of the caller before it is in a file, where texts would be cut off."""
        is_in_order = not self.labels or len(self.labels[-1]) == shards.BLOCK_ROWS
        assert is_in_order, f"{self.split}: a block that is not the last is short"

        shape = block.images.shape[1:]
        assert shape == self._shape, f"{self.split}: images of {shape}"
        dtype = block.images.dtype
        assert dtype == self.facts.dtype, f"{self.split}: images of {dtype}"

        types = {name: getattr(block, name).dtype for name in shards.COLUMNS}
        self._types = self._types or types
        assert types == self._types, f"{self.split}: types {types} after {self._types}"


def _with_all_columns(block: shards.RowBlock) -> shards.RowBlock:
    """Return a block with the hashes of its images, and the columns that were left out."""
    count = len(block.labels)
    absent = {}
    for name, value in shards.DEFAULTS.items():
        if not len(getattr(block, name)):
            absent[name] = np.full(count, value)

    hashes = shards.hash_pixels(block.images)
    return replace(block, pixel_hashes=hashes, **absent)
