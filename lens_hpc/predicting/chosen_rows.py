"""Which scored objects of a survey become candidates: the highest scores, and some by chance.

Both are found by streaming over the files of scores, whatever their number and order.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lens_hpc.predicting.object_table import free_name
from lens_hpc.predicting.score_files import damage_named

RANK, PART, ROW = "rank", "part", "row"
DRAWN, INCLUSION_PROBABILITY = "drawn", "inclusion_probability"
TOP, RANDOM = "top", "random"
"""How a candidate was drawn."""
OURS = (PART, ROW, RANK, DRAWN, INCLUSION_PROBABILITY)
KEY = "lens_hpc.key"
"""Column of a table while its rows are collected: those with the smallest keys are kept."""
SMALLEST_FIRST = [(name, "ascending") for name in (KEY, "id", PART, ROW)]
HASH_BYTES = 8

KeysOfRows = Callable[[str, int, pa.Table], np.ndarray]
"""Name of a part, number of its first row and N rows: the key of each, (N,); NaN: not one."""


def candidate_rows(files: Sequence[Path], best: int, random: int, seed: int) -> pa.Table:
    """Return the rows with the highest logits, the best first, then others drawn by chance.

    Beside the columns of the files, `part` is the name of the row's file without its ending, `row`
    its number there, and `rank` that in the ranking, null for rows drawn by chance. `drawn` is top
    or random, and `inclusion_probability` the chance that the row had to be here. Raises UserError
    for a file that cannot be read.
    """
    top = best_rows(files, best)
    ranks = pa.array(np.arange(1, len(top) + 1))
    described = _described(top, TOP, ranks, 1.0)
    if not random:
        return described

    slice_, eligible = random_rows(files, random, seed, besides=top)
    ranks = pa.nulls(len(slice_), pa.int64())
    probability = len(slice_) / max(eligible, 1)
    by_chance = _described(slice_, RANDOM, ranks, probability)
    return pa.concat_tables([described, by_chance], promote_options="permissive")


def _described(rows: pa.Table, drawn: str, ranks: pa.Array, probability: float) -> pa.Table:
    count = len(rows)
    return (
        rows.append_column(RANK, ranks)
        .append_column(DRAWN, pa.array([drawn] * count, pa.string()))
        .append_column(INCLUSION_PROBABILITY, pa.array([probability] * count, pa.float64()))
    )


def best_rows(files: Sequence[Path], count: int) -> pa.Table:
    """Return the `count` rows with the highest logits, the best first, with their part and row.

    Equal logits are in the order of their ids. Memory holds twice `count` rows and a row group.
    """

    def keys(part: str, start: int, rows: pa.Table) -> np.ndarray:
        return -rows["logit"].to_numpy().astype(np.float64)

    return _smallest(files, count, ["logit"], keys)


def random_rows(
    files: Sequence[Path], count: int, seed: int, besides: pa.Table
) -> tuple[pa.Table, int]:
    """Draw `count` of the scored rows that are not `besides`; return also of how many.

    They are those whose ids have the smallest hashes, in the order of these, so that the first
    ones are a random sample, too. Each was as likely to be drawn as any other.
    """
    taken = _places(besides)
    eligible = 0

    def keys(part: str, start: int, rows: pa.Table) -> np.ndarray:
        nonlocal eligible
        is_eligible = np.isfinite(rows["logit"].to_numpy())
        is_eligible[np.isin(start + np.arange(len(rows)), taken.get(part, []))] = False
        eligible += int(is_eligible.sum())

        hashes = np.full(len(rows), np.nan)
        ids = rows["id"].filter(pa.array(is_eligible)).to_pylist()
        hashes[is_eligible] = [_hash(one, seed) for one in ids]
        return hashes

    return _smallest(files, count, ["id", "logit"], keys), eligible


def _places(rows: pa.Table) -> dict[str, list[int]]:
    """Return the rows of each part that are in a table of `best_rows`."""
    places: dict[str, list[int]] = {}
    for part, row in zip(rows[PART].to_pylist(), rows[ROW].to_pylist(), strict=True):
        places.setdefault(part, []).append(row)
    return places


def _hash(identifier: str, seed: int) -> int:
    key = seed.to_bytes(HASH_BYTES, "little")
    digest = hashlib.blake2b(identifier.encode(), key=key, digest_size=HASH_BYTES).digest()
    return int.from_bytes(digest, "little")


# ---- the smallest keys of all ----


def _smallest(
    files: Sequence[Path], count: int, needed: Sequence[str], keys: KeysOfRows
) -> pa.Table:
    """Return the rows with the smallest keys, in their order; keys are of the columns `needed`."""
    smallest = _Smallest(count)
    for file in files:
        with damage_named(file):
            _add_file(smallest, file, needed, keys)

    smallest.merge()
    names = smallest.table.column_names
    return smallest.table.select([name for name in names if name != KEY])


class _Smallest:
    """The rows with the smallest keys of those that were added."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.table = pa.table({})
        self.highest = np.inf if count else -np.inf
        """A row with a higher key is not among them."""
        self._added: list[pa.Table] = []

    def add(self, rows: pa.Table) -> None:
        """Add rows, which are sorted into the others when there are many."""
        self._added.append(rows)
        if sum(map(len, self._added)) > self.count:
            self.merge()

    def merge(self) -> None:
        """Sort what was added into the table."""
        tables = [self.table, *self._added]
        self._added = []
        self.table = pa.concat_tables(tables, promote_options="permissive")
        if not len(self.table):
            return

        self.table = self.table.sort_by(SMALLEST_FIRST).slice(0, self.count)
        if self.count and len(self.table) == self.count:
            self.highest = self.table[KEY][-1].as_py()


def _add_file(smallest: _Smallest, file: Path, needed: Sequence[str], keys: KeysOfRows) -> None:
    with pq.ParquetFile(file) as opened:
        # So that there are columns where there is no row.
        no_rows = opened.schema_arrow.empty_table()
        smallest.add(_with_places(no_rows, file, np.arange(0), np.empty(0)))

        start = 0
        for group in range(opened.num_row_groups):
            columns = opened.read_row_group(group, needed)
            of_group = keys(file.stem, start, columns)

            # A row without a score is NaN here, and no candidate.
            rows = np.flatnonzero(of_group <= smallest.highest)
            if len(rows):
                found = opened.read_row_group(group).take(rows)
                smallest.add(_with_places(found, file, start + rows, of_group[rows]))
            start += len(columns)


def _with_places(table: pa.Table, file: Path, rows: np.ndarray, keys: np.ndarray) -> pa.Table:
    """Return rows of a file of scores with its name, their numbers in it and their keys."""
    plain = table.replace_schema_metadata()
    placed = _with_free_names(plain, OURS)

    names = [file.stem] * len(rows)
    placed = placed.append_column(PART, pa.array(names, pa.string()))
    placed = placed.append_column(ROW, pa.array(rows, pa.int64()))
    return placed.append_column(KEY, pa.array(keys, pa.float64()))


def _with_free_names(table: pa.Table, ours: Sequence[str]) -> pa.Table:
    """Return a table whose columns have other names than ours: a kept one gets a prefix."""
    taken = {*ours, *table.column_names}
    names = [free_name(name, taken) if name in ours else name for name in table.column_names]
    return table.rename_columns(names)
