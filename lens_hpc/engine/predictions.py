"""Predictions on disk: a Parquet part a process, merged into one file by streaming.

Only labels, logits and the numbers of the groups are held in memory, 13 bytes a sample, by the process that merges.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lens_hpc.analysis.calibration import Maps
from lens_hpc.data.reader import Split
from lens_hpc.engine.score import every_row_once

FILE = "predictions.parquet"
ROWS_AT_ONCE = 65536


@dataclass(frozen=True)
class Scores:
    """What metrics are made of."""

    labels: np.ndarray
    """(N,) int8, -1 for unlabelled."""
    logits: np.ndarray
    """(N,) float32."""
    groups: np.ndarray | None
    """(N,) int64, numbers of the groups in the order in which they come."""


def write_part(folder: Path, rank: int, split: Split, rows: np.ndarray, logits: np.ndarray, maps: Maps) -> None:
    """What this process says of its (N,) rows: all columns, probabilities by `maps`."""
    with pq.ParquetWriter(folder / f"part-{rank:05d}.parquet", _schema(split, maps)) as part:
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = slice(start, start + ROWS_AT_ONCE)
            part.write_table(_table(split, rows[some], logits[some], maps))


def merge(folder: Path, split: Split) -> Scores:
    """Make one file of the parts. RuntimeError unless each row of the split came exactly once."""
    parts = sorted(folder.glob("part-*.parquet"))
    count = len(split)
    times, labels, logits = np.zeros(count, np.uint8), np.empty(count, np.int8), np.empty(count, np.float32)
    groups = np.empty(count, np.int64) if split.manifest.grouped else None
    numbers: dict[str, int] = {}
    with pq.ParquetWriter(folder / FILE, pq.read_schema(parts[0])) as whole:
        for batch in _batches(parts):
            rows = batch["index"].to_numpy()
            np.add.at(times, rows, 1)
            labels[rows], logits[rows] = batch["label"].to_numpy(), batch["logit"].to_numpy()
            if groups is not None:
                codes, names = pd.factorize(batch["group"].to_numpy(zero_copy_only=False))
                groups[rows] = np.array([numbers.setdefault(name, len(numbers)) for name in names])[codes]
            whole.write_batch(batch)
    every_row_once(times, split)
    for part in parts:
        part.unlink()
    return Scores(labels, logits, groups)


def _batches(parts: list[Path]) -> Iterator[pa.RecordBatch]:
    for part in parts:
        with pq.ParquetFile(part) as file:
            yield from file.iter_batches(ROWS_AT_ONCE)


def _schema(split: Split, maps: Maps) -> pa.Schema:
    nothing = np.empty(0, dtype=np.int64)
    return _table(split, nothing, np.empty(0, np.float32), maps).schema


def _table(split: Split, rows: np.ndarray, logits: np.ndarray, maps: Maps) -> pa.Table:
    columns = {
        "id": pa.array(split.ids(rows), pa.string()),
        "index": pa.array(rows, pa.int64()),
        "label": pa.array(split.take("labels", rows), pa.int8()),
        "logit": pa.array(logits, pa.float32()),
        **{name: pa.array(to_probability(logits), pa.float64()) for name, to_probability in maps.items()},
    }
    if split.manifest.grouped:
        columns["group"] = pa.array(split.texts("groups", rows), pa.string())
    for name, values in zip(split.manifest.features, split.take("features", rows).T, strict=True):
        while name in columns:
            name = f"feature_{name}"
        columns[name] = pa.array(values, pa.float32(), from_pandas=True)
    return pa.table(columns)
