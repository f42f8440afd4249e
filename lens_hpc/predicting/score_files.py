"""The scores of a part of a survey as a Parquet file: a row an object, whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lens_hpc import files
from lens_hpc.errors import UserError
from lens_hpc.predicting.survey import PartRows
from lens_hpc.texts import printable

FINGERPRINT = b"lens_hpc.part"
OF_THE_SURVEY = ("id", "ra", "dec", "tile")
OF_THE_SCORE = ("logit", "probability", "spread", "edge_fraction", "trained_on", "reason")
ROWS_OF_A_GROUP = 1 << 17


class PartScores(NamedTuple):
    """What was found of the N objects of a part."""

    logits: np.ndarray
    """(members, N) float32, NaN where there is no score."""
    probability: np.ndarray
    """(N,) float64."""
    edge_fraction: np.ndarray
    """(N,) float32, NaN where there is no cutout."""
    trained_on: np.ndarray
    """(N,) bool."""
    reasons: dict[int, str]
    """Row: why it has no score."""


def score_table(rows: PartRows, scores: PartScores) -> pa.Table:
    """Return a row for each object, in their order."""
    columns = {name: rows.table[name] for name in rows.table.column_names}

    count = len(rows.table)
    logits = scores.logits
    is_scored = np.isfinite(logits).all(axis=0)
    mean = np.where(is_scored, logits.mean(axis=0), np.nan)
    columns["logit"] = _numbers(mean, pa.float32())
    columns["probability"] = _numbers(np.where(is_scored, scores.probability, np.nan), pa.float64())

    # One model has nothing to differ from.
    spread = np.where(is_scored, logits.std(axis=0), np.nan)
    if len(logits) == 1:
        spread[:] = np.nan
    columns["spread"] = _numbers(spread, pa.float32())
    columns["edge_fraction"] = _numbers(scores.edge_fraction, pa.float32())
    columns["trained_on"] = pa.array(scores.trained_on, pa.bool_())
    # What a library says of a damaged file may be no UTF-8.
    reasons: list[str | None] = [None] * count
    for row, reason in scores.reasons.items():
        reasons[row] = printable(reason)
    columns["reason"] = pa.array(reasons, pa.string())
    return pa.table(columns)


def _numbers(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Return numbers as a column, null where they are NaN."""
    return pa.array(values.astype(kind.to_pandas_dtype()), kind, from_pandas=True)


def write_scores(file: Path, table: pa.Table, fingerprint: str) -> None:
    """Write the scores of a part, which has this fingerprint."""
    metadata = {FINGERPRINT: fingerprint.encode()}
    with files.whole_file(file, "the parts that are complete are kept") as partial:
        pq.write_table(
            table.replace_schema_metadata(metadata), partial, row_group_size=ROWS_OF_A_GROUP
        )


def fingerprint_of(file: Path) -> str | None:
    """Return the fingerprint of the part that a file has the scores of; None without a sound one.

    A file has its name only when it is whole, so one that cannot be read was damaged since.
    """
    if not file.is_file():
        return None
    try:
        metadata = pq.read_schema(file).metadata or {}
    except (pa.ArrowException, OSError):
        return None
    return metadata.get(FINGERPRINT, b"").decode()


@contextmanager
def damage_named(file: Path) -> Iterator[None]:
    """Raise UserError where a file of scores turns out to be damaged."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{file}: cannot be read ({reason}); delete it, and run the same line again: its "
            "objects are scored anew"
        ) from error
