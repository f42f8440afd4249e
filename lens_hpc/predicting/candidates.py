"""The highest scores of a survey: found by streaming, and kept with their cutouts as a dataset."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lens_hpc.dataset.shards import BLOCK_ROWS, RowBlock, encode_texts
from lens_hpc.dataset.survey_kind import SurveyKind
from lens_hpc.errors import UserError
from lens_hpc.layout import CANDIDATES
from lens_hpc.packing.derived import SplitRows, write_dataset
from lens_hpc.packing.describing import DatasetFacts
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.predicting.object_table import free_name
from lens_hpc.predicting.score_files import damage_named
from lens_hpc.predicting.survey import SurveyToScore
from lens_hpc.refusals import refusals_named

RANK, PART, ROW = "rank", "part", "row"
BEST_FIRST = [
    ("logit", "descending"),
    ("id", "ascending"),
    (PART, "ascending"),
    (ROW, "ascending"),
]
MOST_BYTES = 128 << 20
"""Of cutouts that are asked for together."""


# ---- the best of all ----


def best_rows(files: Sequence[Path], count: int) -> pa.Table:
    """Return the rows with the highest logits in files of scores, the best first.

    Equal logits are in the order of their ids, whatever the order of the files. Beside the columns
    of the files, `part` is the name of the row's file without its ending, and `row` its number
    there. Memory holds twice `count` rows and a row group. Raises UserError for a file that cannot
    be read.
    """
    best = _Best(count)
    for file in files:
        with damage_named(file):
            _add_file(best, file)

    best.merge()
    return best.table


class _Best:
    """The rows with the highest logits of those that were added."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.table = pa.table({})
        self.lowest = -np.inf if count else np.inf
        """A row with a lower logit is not among them."""
        self._added: list[pa.Table] = []

    def add(self, rows: pa.Table) -> None:
        """Add rows, which are sorted into the others when there are many."""
        self._added.append(rows)
        if sum(map(len, self._added)) > self.count:
            self.merge()

    def merge(self) -> None:
        """Sort what was added into the table of the best, best first."""
        tables = [self.table, *self._added]
        self._added = []
        self.table = pa.concat_tables(tables, promote_options="permissive")
        if not len(self.table):
            return

        self.table = self.table.sort_by(BEST_FIRST).slice(0, self.count)
        if self.count and len(self.table) == self.count:
            self.lowest = self.table["logit"][-1].as_py()


def _add_file(best: _Best, file: Path) -> None:
    with pq.ParquetFile(file) as opened:
        # So that there are columns where there is no row.
        no_rows = opened.schema_arrow.empty_table()
        best.add(_with_places(no_rows, file, np.arange(0)))

        start = 0
        for group in range(opened.num_row_groups):
            column = opened.read_row_group(group, ["logit"])
            logits = column["logit"].to_numpy()

            # A row without a score is NaN here, and no candidate.
            rows = np.flatnonzero(logits >= best.lowest)
            if len(rows):
                better = opened.read_row_group(group).take(rows)
                best.add(_with_places(better, file, start + rows))
            start += len(logits)


def _with_places(table: pa.Table, file: Path, rows: np.ndarray) -> pa.Table:
    """Return rows of a file of scores with its name and their numbers in it."""
    plain = table.replace_schema_metadata()
    placed = _with_free_names(plain, (PART, ROW, RANK))

    names = [file.stem] * len(rows)
    placed = placed.append_column(PART, pa.array(names, pa.string()))
    return placed.append_column(ROW, pa.array(rows, pa.int64()))


def _with_free_names(table: pa.Table, ours: Sequence[str]) -> pa.Table:
    """Return a table whose columns have other names than ours: a kept one gets a prefix."""
    taken = {*ours, *table.column_names}
    names = [free_name(name, taken) if name in ours else name for name in table.column_names]
    return table.rename_columns(names)


# ---- the dataset ----


def write_candidates(
    output: Path, survey: SurveyToScore, best: pa.Table, provenance: dict[str, Any]
) -> None:
    """Write the rows that `best_rows` found as the packed dataset `output`, or replace it by them.

    They are its split `candidates`, unlabelled, the best first. Their cutouts are as they were
    read, and scores, positions and kept columns lie beside them. `provenance` tells, as JSON, what
    they come of. Memory holds some cutouts, a part's features, and `best`. Raises UserError for
    cutouts that can no longer be read.
    """
    with (
        refusals_named(output),
        tempfile.TemporaryFile(dir=output.parent) as scratch,
    ):
        gathered = _gather(survey, best, scratch)
        facts = _facts(survey.kind, gathered.dtype, provenance)
        blocks = _blocks(best, facts, gathered)
        write_dataset(
            output,
            facts,
            splits={CANDIDATES: SplitRows(len(best), blocks)},
            kept=_kept(best),
            replacing=True,
        )


def _facts(kind: SurveyKind, dtype: np.dtype, provenance: dict[str, Any]) -> DatasetFacts:
    return DatasetFacts(
        name=f"candidates of {kind.name}",
        bands=kind.bands,
        height=kind.height,
        width=kind.width,
        dtype=cast(Any, dtype.name),
        pixel_scale_arcsec=kind.pixel_scale_arcsec,
        units=kind.units,
        features=kind.features,
        recipe={CANDIDATES: provenance},
        zero_point=kind.zero_point,
    )


def _kept(best: pa.Table) -> pa.Table:
    """Return the table beside the shards: the scores and all that was carried through."""
    ranks = pa.array(np.arange(1, len(best) + 1))
    beside = best.drop_columns([PART, ROW, "reason"])
    return beside.add_column(1, RANK, ranks)


def _blocks(best: pa.Table, facts: DatasetFacts, gathered: "_Gathered") -> Iterator[RowBlock]:
    """Yield the rows of the split, in the order of the ranking."""
    ids = encode_texts(np.array(best["id"].to_pylist(), dtype=str))
    no_groups = encode_texts(np.full(len(best), ""))
    source = f"survey {facts.dtype} {facts.height}x{facts.width}"
    sources = encode_texts(np.full(len(best), source))
    no_labels = np.full(len(best), -1, dtype=np.int8)

    for start in range(0, len(best), BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, len(best))
        yield RowBlock(
            images=gathered.read(start, stop),
            features=gathered.features[start:stop],
            labels=no_labels[start:stop],
            ids=ids[start:stop],
            groups=no_groups[start:stop],
            sources=sources[start:stop],
        )


# ---- cutouts from all over the survey ----


class _Gathered(NamedTuple):
    """Cutouts and features in the order of the ranking."""

    scratch: IO[bytes]
    """Holds the cutouts, one behind the other."""
    shape: tuple[int, ...]
    """Of a cutout."""
    dtype: np.dtype
    features: np.ndarray
    """(N, F) float32."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the cutouts of some ranks, (n, bands, height, width)."""
        row_bytes = math.prod(self.shape) * self.dtype.itemsize
        self.scratch.seek(start * row_bytes)
        content = self.scratch.read((stop - start) * row_bytes)

        pixels = np.frombuffer(content, self.dtype)
        return pixels.reshape(stop - start, *self.shape)


def _gather(survey: SurveyToScore, best: pa.Table, scratch: IO[bytes]) -> _Gathered:
    """Fetch the cutouts part by part, so that each is opened once, and write each at its rank."""
    kind = survey.kind
    shape = (len(kind.bands), kind.height, kind.width)
    dtype = np.dtype(np.float32)
    row_bytes = math.prod(shape) * dtype.itemsize
    step = max(MOST_BYTES // row_bytes, 1)

    features = np.empty((len(best), len(kind.features)), np.float32)
    for part, ranks, rows in _rows_by_part(survey, best):
        features[ranks] = survey.rows(part).features[rows]
        for start in range(0, len(rows), step):
            chunk = slice(start, start + step)
            images = _fetch(survey, part, rows[chunk])
            dtype = images.dtype
            for rank, image in zip(ranks[chunk].tolist(), images, strict=True):
                scratch.seek(rank * image.nbytes)
                scratch.write(image.tobytes())
    return _Gathered(scratch, shape, dtype, features)


def _rows_by_part(
    survey: SurveyToScore, best: pa.Table
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield number, ranks (n,) and rows (n,) of each part that has candidates; the rows grow."""
    numbers = {part.name: number for number, part in enumerate(survey.parts)}
    parts = np.array([numbers[name] for name in best[PART].to_pylist()])
    rows = best[ROW].to_numpy()

    order = np.lexsort((rows, parts))
    is_last = np.diff(parts[order]) > 0
    begins = np.flatnonzero(is_last) + 1
    for ranks in np.split(order, begins):
        part = int(parts[ranks[0]])
        yield part, ranks, rows[ranks]


def _fetch(survey: SurveyToScore, part: int, rows: np.ndarray) -> np.ndarray:
    try:
        return survey.cutouts(part, rows)
    except BadCutoutError as error:
        name = survey.parts[part].name
        raise UserError(
            f"{name}: was scored, and can no longer be read ({error}); mend it and run the same "
            "line again"
        ) from error
