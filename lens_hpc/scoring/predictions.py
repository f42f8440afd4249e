"""Predictions on disk: a Parquet part for each process, merged into one file by streaming.

The process that merges holds labels, logits and group numbers alone, 13 bytes a sample.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lens_hpc.dataset.split import Split
from lens_hpc.layout import PREDICTIONS
from lens_hpc.scoring.calibration import Maps
from lens_hpc.scoring.scores import every_row_once

ROWS_AT_ONCE = 65536


@dataclass(frozen=True)
class Scores:
    """What metrics are made of, in the order of a split's rows."""

    labels: np.ndarray
    """(N,) int8, -1 for unlabelled."""
    logits: np.ndarray
    """(N,) float32."""
    groups: np.ndarray | None
    """(N,) int64, groups numbered in the order in which they come."""


def write_part(
    folder: Path, rank: int, split: Split, rows: np.ndarray, logits: np.ndarray, maps: Maps
) -> None:
    """Write this process's rows (N,) with logits (N,), and probabilities by each of `maps`."""
    file = folder / f"part-{rank:05d}.parquet"
    with pq.ParquetWriter(file, _schema(split, maps)) as part:
        for start in range(0, len(rows), ROWS_AT_ONCE):
            piece = slice(start, start + ROWS_AT_ONCE)
            part.write_table(_make_table(split, rows[piece], logits[piece], maps))


def merge_parts(folder: Path, split: Split) -> Scores:
    """Make one file of the parts. Raises RuntimeError unless each row came exactly once."""
    parts = sorted(folder.glob("part-*.parquet"))
    count = len(split)
    times = np.zeros(count, np.uint8)
    labels = np.empty(count, np.int8)
    logits = np.empty(count, np.float32)
    groups = np.empty(count, np.int64) if split.manifest.grouped else None

    number_of_group: dict[str, int] = {}
    with pq.ParquetWriter(folder / PREDICTIONS, pq.read_schema(parts[0])) as merged:
        for batch in _batches(parts):
            rows = batch["index"].to_numpy()
            np.add.at(times, rows, 1)
            labels[rows] = batch["label"].to_numpy()
            logits[rows] = batch["logit"].to_numpy()
            if groups is not None:
                names = batch["group"].to_numpy(zero_copy_only=False)
                groups[rows] = _number_groups(names, number_of_group)
            merged.write_batch(batch)

    every_row_once(times, split)
    for part in parts:
        part.unlink()
    return Scores(labels, logits, groups)


def _number_groups(names: np.ndarray, numbers: dict[str, int]) -> np.ndarray:
    """Return the number of each group's name (n,); new names get the next numbers."""
    codes, distinct = pd.factorize(names)
    numbered = [numbers.setdefault(name, len(numbers)) for name in distinct]
    return np.array(numbered)[codes]


def _batches(parts: list[Path]) -> Iterator[pa.RecordBatch]:
    for part in parts:
        with pq.ParquetFile(part) as file:
            yield from file.iter_batches(ROWS_AT_ONCE)


def _schema(split: Split, maps: Maps) -> pa.Schema:
    no_rows = np.empty(0, dtype=np.int64)
    return _make_table(split, no_rows, np.empty(0, np.float32), maps).schema


def _make_table(split: Split, rows: np.ndarray, logits: np.ndarray, maps: Maps) -> pa.Table:
    columns = {
        "id": pa.array(split.ids(rows), pa.string()),
        "index": pa.array(rows, pa.int64()),
        "label": pa.array(split.take("labels", rows), pa.int8()),
        "logit": pa.array(logits, pa.float32()),
    }
    for name, to_probability in maps.items():
        columns[name] = pa.array(to_probability(logits), pa.float64())
    if split.manifest.grouped:
        columns["group"] = pa.array(split.texts("groups", rows), pa.string())

    features = split.take("features", rows)
    for name, values in zip(split.manifest.features, features.T, strict=True):
        # A feature may have the name of one of our columns.
        while name in columns:
            name = f"feature_{name}"
        columns[name] = pa.array(values, pa.float32(), from_pandas=True)
    return pa.table(columns)
