"""The candidates of a survey: chosen rows of its scores, with their cutouts, as a dataset."""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
import pyarrow as pa

from lens_hpc.dataset.shards import BLOCK_ROWS, RowBlock, encode_texts
from lens_hpc.dataset.survey_kind import SurveyKind
from lens_hpc.errors import UserError
from lens_hpc.layout import CANDIDATES
from lens_hpc.packing.derived import SplitRows, write_dataset
from lens_hpc.packing.describing import DatasetFacts
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.predicting.chosen_rows import PART, RANK, ROW
from lens_hpc.predicting.survey import SurveyToScore
from lens_hpc.refusals import refusals_named

MOST_BYTES = 128 << 20
"""Of cutouts that are asked for together."""


def write_candidates(
    output: Path, survey: SurveyToScore, chosen: pa.Table, provenance: dict[str, Any]
) -> None:
    """Write the rows that `candidate_rows` found as a packed dataset, or replace it by them.

    They are its split `candidates`, unlabelled, in their order. Their cutouts are as they were
    read, and scores, positions and kept columns lie beside them. `provenance` tells, as JSON, what
    they come of. Memory holds some cutouts, a part's features, and `chosen`. Raises UserError for
    cutouts that can no longer be read.
    """
    with (
        refusals_named(output),
        tempfile.TemporaryFile(dir=output.parent) as scratch,
    ):
        gathered = _gather(survey, chosen, scratch)
        facts = _facts(survey.kind, gathered.dtype, provenance)
        blocks = _blocks(chosen, facts, gathered)
        write_dataset(
            output,
            facts,
            splits={CANDIDATES: SplitRows(len(chosen), blocks)},
            kept=_kept(chosen),
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


def _kept(chosen: pa.Table) -> pa.Table:
    """Return the table beside the shards: the scores and all that was carried through."""
    beside = chosen.drop_columns([PART, ROW, RANK, "reason"])
    return beside.add_column(1, RANK, chosen[RANK])


def _blocks(chosen: pa.Table, facts: DatasetFacts, gathered: "_Gathered") -> Iterator[RowBlock]:
    """Yield the rows of the split, in their order."""
    ids = encode_texts(np.array(chosen["id"].to_pylist(), dtype=str))
    no_groups = encode_texts(np.full(len(chosen), ""))
    source = f"survey {facts.dtype} {facts.height}x{facts.width}"
    sources = encode_texts(np.full(len(chosen), source))
    no_labels = np.full(len(chosen), -1, dtype=np.int8)

    for start in range(0, len(chosen), BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, len(chosen))
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
    """Cutouts and features in the order of the candidates."""

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


def _gather(survey: SurveyToScore, chosen: pa.Table, scratch: IO[bytes]) -> _Gathered:
    """Fetch the cutouts part by part, so that each is opened once, and write each at its rank."""
    kind = survey.kind
    shape = (len(kind.bands), kind.height, kind.width)
    dtype = np.dtype(np.float32)
    row_bytes = math.prod(shape) * dtype.itemsize
    step = max(MOST_BYTES // row_bytes, 1)

    features = np.empty((len(chosen), len(kind.features)), np.float32)
    for part, ranks, rows in _rows_by_part(survey, chosen):
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
    survey: SurveyToScore, chosen: pa.Table
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield number, ranks (n,) and rows (n,) of each part that has candidates; the rows grow."""
    numbers = {part.name: number for number, part in enumerate(survey.parts)}
    parts = np.array([numbers[name] for name in chosen[PART].to_pylist()])
    rows = chosen[ROW].to_numpy()

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
