"""Parts of an injection: hosts that are painted together, and a file with what came of it.

A part is a function of the recipe and the hosts alone, so any number of processes makes the same
files; one that is there, whole, is not painted again.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lens_hpc import files
from lens_hpc.dataset.columns import ColumnReader
from lens_hpc.errors import UserError
from lens_hpc.packing.hosts import HostDataset
from lens_hpc.packing.injection_recipe import InjectionRecipe
from lens_hpc.packing.painting import Painter
from lens_hpc.progress import Progress
from lens_hpc.sky.injection import CannotLensError
from lens_hpc.sky.mock_survey import workers

PART_ROWS = 64
FINGERPRINT = b"lens_hpc.injection"
ID, HOST_ID, ARC_MASK, PIXELS = "id", "host_id", "arc_mask", "pixels"


class PaintJob(NamedTuple):
    """What all parts have in common."""

    recipe: InjectionRecipe
    dataset: Path
    folder: Path
    """Where the files of parts lie."""
    fingerprint: str
    """Of all that the painted pixels are a function of."""


class PaintedPart(NamedTuple):
    """Some hosts of a split, in the order of their rows."""

    number: int
    split: str
    rows: np.ndarray
    """(n,) int."""
    is_drawn: np.ndarray
    """(n,) bool: hosts that get an arc; of others it is only asked whether they could have one."""
    catalogue: list[dict[str, Any]]

    def file(self, folder: Path) -> Path:
        """Return the file of what was painted."""
        return folder / f"part-{self.number:06d}.parquet"


def make_parts(hosts: HostDataset, recipe: InjectionRecipe) -> list[PaintedPart]:
    """Cut the hosts that get arcs into parts.

    Those that become non-lenses are in the parts, too: a host that cannot be a lens is neither.
    """
    all_needed = recipe.others == "nonlens"
    parts: list[PaintedPart] = []
    for name, split in hosts.splits.items():
        needed = np.flatnonzero(split.is_host if all_needed else split.is_drawn)
        for start in range(0, len(needed), PART_ROWS):
            rows = needed[start : start + PART_ROWS]
            catalogue = [split.catalogue_of(row) for row in rows.tolist()]
            part = PaintedPart(len(parts), name, rows, split.is_drawn[rows], catalogue)
            parts.append(part)
    return parts


def paint_parts(job: PaintJob, parts: Sequence[PaintedPart], processes: int) -> None:
    """Paint all parts that are not there yet, in worker processes.

    Raises UserError for a host that cannot be painted. What is complete stays for the next start.
    """
    missing = [part for part in parts if not _is_there(part.file(job.folder), job.fingerprint)]
    hosts = sum(len(part.rows) for part in parts)
    if not missing:
        return
    with workers(min(processes, len(missing))) as pool, Progress(hosts, "inject", "hosts") as told:
        told.update(hosts - sum(len(part.rows) for part in missing))
        for painted in pool.map(partial(_paint, job), missing):
            told.update(painted)


def _is_there(file: Path, fingerprint: str) -> bool:
    if not file.is_file():
        return False
    try:
        metadata = pq.read_schema(file).metadata or {}
    except (pa.ArrowException, OSError):
        return False
    return metadata.get(FINGERPRINT) == fingerprint.encode()


def _paint(job: PaintJob, part: PaintedPart) -> int:
    """Paint a part, write its file, and return how many hosts it has."""
    reader = _reader(job.dataset, part.split)
    reader.check_blocks(part.rows)
    painter = Painter(job.recipe, reader.manifest, part.split)
    cutouts = reader.take("images", part.rows)
    ids = reader.ids(part.rows).tolist()

    lines = []
    for host in zip(cutouts, ids, part.catalogue, part.is_drawn, strict=True):
        try:
            lines.append(_paint_host(painter, *host))
        except CannotLensError:
            continue  # it is neither lens nor non-lens of this law
        except UserError as error:
            raise UserError(f"{host[1]}: {error}") from error

    # Hosts without an arc have fewer columns.
    names = dict.fromkeys(name for line in lines for name in line)
    columns = {name: [line.get(name) for line in lines] for name in names}
    metadata = {FINGERPRINT: job.fingerprint.encode()}
    table = pa.table(columns).replace_schema_metadata(metadata)
    with files.whole_file(part.file(job.folder), "the parts that are complete are kept") as aside:
        pq.write_table(table, aside, compression="none")
    return len(part.rows)


def _paint_host(
    painter: Painter, cutout: np.ndarray, name: str, catalogue: dict[str, Any], is_drawn: bool
) -> dict[str, Any]:
    """Return what is known of a host, and of its arc if it gets one."""
    if not is_drawn:
        painter.draw(cutout, name, catalogue)
        return {HOST_ID: name}

    painted = painter.paint(cutout, name, catalogue)
    mask = np.packbits(painted.mask).tobytes()
    pixels = painted.pixels.tobytes()
    return {HOST_ID: name, **painted.truth, ARC_MASK: mask, PIXELS: pixels}


@lru_cache(maxsize=4)
def _reader(dataset: Path, split: str) -> ColumnReader:
    """Open a split once for all parts that this process paints."""
    return ColumnReader(dataset, split)


# ---- what was painted ----


def read_truth(job: PaintJob, parts: Sequence[PaintedPart]) -> pa.Table:
    """Return a row for each host that can be a lens, in the order of the parts.

    It has all columns but the pixels; those of an arc are null where there is none.
    """
    tables = []
    for part in parts:
        file = part.file(job.folder)
        names = [name for name in pq.read_schema(file).names if name != PIXELS]
        tables.append(pq.read_table(file, columns=names).replace_schema_metadata())
    return pa.concat_tables(tables, promote_options="default")


def painted_pixels(job: PaintJob, parts: Sequence[PaintedPart]) -> Iterator[bytes]:
    """Yield the pixels of each arc, in the order of the parts. Memory holds one part."""
    for part in parts:
        file = part.file(job.folder)
        if PIXELS in pq.read_schema(file).names:
            yield from pq.read_table(file, columns=[PIXELS])[PIXELS].drop_null().to_pylist()
