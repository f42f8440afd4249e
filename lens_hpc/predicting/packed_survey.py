"""A survey that lies packed, and is scored shard by shard: all splits, labelled or not."""

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from lens_hpc import layout
from lens_hpc.dataset.dataset import Dataset
from lens_hpc.dataset.kept_columns import read_kept_columns, read_truth_columns
from lens_hpc.dataset.manifest import ShardRecord
from lens_hpc.dataset.positions import find_position_columns, positions_of
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.predicting.object_table import object_table
from lens_hpc.predicting.survey import PartCutouts, PartRows, SurveyPart


class _Shard(NamedTuple):
    """A shard, and where it lies in its split."""

    split: Split
    first_row: int
    record: ShardRecord

    @property
    def rows(self) -> np.ndarray:
        """Numbers of its rows in the split."""
        return self.first_row + np.arange(self.record.rows)


class PackedSurvey:
    """The rows of all splits of a packed dataset.

    `with_truth`: columns of what was painted stand beside those that were kept. Raises UserError
    for a folder that is no dataset, for one without a truth that is asked for, and for a shard that
    is not as it was packed, as far as its header and its size tell.
    """

    def __init__(self, folder: Path, with_truth: bool = False) -> None:
        self.dataset = Dataset(folder)
        self._tables = (layout.KEPT_COLUMNS, layout.TRUTH) if with_truth else (layout.KEPT_COLUMNS,)
        if with_truth and layout.TRUTH not in self.dataset.manifest.files:
            raise UserError(f"truth: {folder} has no {layout.TRUTH}; it needs an injected dataset")
        self.kind = self.dataset.manifest.kind
        shards = [shard for split in self.dataset.values() for shard in _shards_of(split)]
        named = sorted((_part_name(shard), shard) for shard in shards)
        self._shards = [shard for _, shard in named]
        self.parts = [self._part(name, shard) for name, shard in named]

    def _part(self, name: str, shard: _Shard) -> SurveyPart:
        """Return what a shard is as a part; its checksums identify it."""
        crc32 = [shard.record.crc32]
        for table in self._tables:
            record = self.dataset.manifest.files.get(table)
            crc32.append("" if record is None else record.crc32)
        fingerprint = hashlib.sha256(" ".join(crc32).encode()).hexdigest()
        return SurveyPart(name, shard.record.rows, shard.record.bytes, fingerprint)

    @cached_property
    def _kept(self) -> pd.DataFrame:
        """The kept columns, and the truth where it is asked for, by id."""
        kept = read_kept_columns(self.dataset.path, self.dataset.manifest)
        if layout.TRUTH not in self._tables:
            return kept
        # Masks are no values of a table.
        truth = read_truth_columns(self.dataset.path, self.dataset.manifest)
        values = truth.select_dtypes(exclude=pd.ArrowDtype(pa.binary()))
        taken = {name: f"{name}_truth" for name in values.columns.intersection(kept.columns)}
        return kept.join(values.rename(columns=taken), how="outer")

    def rows(self, part: int) -> PartRows:
        """Return the rows of a shard."""
        split = self._shards[part].split
        rows = self._shards[part].rows
        ids = split.ids(rows)
        columns = self._kept.reindex(ids)
        kept = pa.Table.from_pandas(columns, preserve_index=False)
        table = object_table(
            ids=ids,
            positions=positions_of(columns),
            tile=None,
            kept=kept,
            held=find_position_columns(columns.columns) or (),
        )
        return PartRows(table, split.take("features", rows), {})

    def batches(
        self, part: int, rows: PartRows, batch_size: int, reasons: dict[int, str]
    ) -> Iterator[PartCutouts]:
        """Yield the cutouts of a shard. Raises BadCutoutError where it is damaged."""
        shard = self._shards[part]
        count = len(rows.table)
        for start in range(0, count, batch_size):
            end = min(start + batch_size, count)
            numbers = np.arange(start, end)
            try:
                shard.split.check_blocks(shard.first_row + numbers)
            except UserError as error:
                raise BadCutoutError(str(error)) from error
            yield PartCutouts(numbers, self.cutouts(part, numbers), np.zeros(end - start))

    def cutouts(self, part: int, rows: np.ndarray) -> np.ndarray:
        """Return the cutouts of some rows of a shard."""
        shard = self._shards[part]
        return shard.split.take("images", shard.first_row + rows)


def _shards_of(split: Split) -> Iterator[_Shard]:
    first_row = 0
    for record in split.record.shards:
        yield _Shard(split, first_row, record)
        first_row += record.rows


def _part_name(shard: _Shard) -> str:
    """Return train-shard-00000 for train/shard-00000.h5."""
    return shard.record.file.removesuffix(".h5").replace("/", "-")
