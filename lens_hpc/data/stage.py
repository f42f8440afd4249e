"""Node-local staging: shards copied once a node to a nearer disk, and shared by its processes.

A copy is checked while it is made and appears under its name only when whole, so a copy that was interrupted is gone on
with. Whatever cannot be staged is read from where it is.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from lens_hpc import UserError, files
from lens_hpc.data.shards import Manifest, ShardRecord
from lens_hpc.logs import logger

COPIES_AT_ONCE = 4
PIECE_BYTES = 1 << 22
KEPT_FREE_BYTES = 1 << 28


def expand(folder: str) -> Path:
    """The folder that data.stage_to names. UserError when it uses a variable that is not set."""
    path = os.path.expandvars(folder)
    if "$" in path:
        raise UserError(f"data.stage_to = {folder}: the variable is not set on this node; name a folder")
    return Path(path).expanduser()


def shards_needed(manifest: Manifest, split: str, first: float, last: float) -> list[ShardRecord]:
    """The shards that hold the rows between two fractions of a split."""
    needed, rows, start = [], manifest.splits[split].rows, 0
    for record in manifest.splits[split].shards:
        if start < last * rows and start + record.rows > first * rows:
            needed.append(record)
        start += record.rows
    return needed


def place_of(manifest: Manifest, folder: Path) -> Path:
    """Where in `folder` the shards of a dataset go: another name for each packing."""
    return folder / f"{manifest.name}-{hashlib.sha256(manifest.model_dump_json().encode()).hexdigest()[:12]}"


def copy_shards(dataset: Path, records: Sequence[ShardRecord], place: Path) -> None:
    """Copy the shards that are not there yet; warn about those that do not fit. One process a node does this."""
    files.make_folder(place)
    with _alone(place):
        missing = [record for record in records if not (place / record.file).is_file()]
        fitting = list(_fitting(missing, shutil.disk_usage(place).free - KEPT_FREE_BYTES))
        if len(fitting) < len(missing):
            logger.warning(
                "data.stage_to: %s has room for %d of %d shards; the others are read from %s",
                place, len(fitting), len(missing), dataset,
            )  # fmt: skip
        with ThreadPoolExecutor(COPIES_AT_ONCE) as pool:
            for task in [pool.submit(_copy, dataset, record, place) for record in fitting]:
                task.result()


def staged(records: Sequence[ShardRecord], place: Path) -> dict[str, Path]:
    """The copies that are there, by the name of the shard."""
    return {record.file: place / record.file for record in records if (place / record.file).is_file()}


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Wait for another job that stages the same dataset on this node."""
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fitting(records: Sequence[ShardRecord], room: int) -> Iterator[ShardRecord]:
    for record in records:
        room -= record.bytes
        if room < 0:
            return
        yield record


def _copy(dataset: Path, record: ShardRecord, place: Path) -> None:
    """One shard, checked on the way."""
    source, target, crc = dataset / record.file, place / record.file, 0
    files.make_folder(target.parent)
    try:
        with files.whole_file(target) as partial, source.open("rb") as original, partial.open("wb") as copy:
            while piece := original.read(PIECE_BYTES):
                crc = zlib.crc32(piece, crc)
                copy.write(piece)
            copy.flush()
            if f"{crc:08x}" != record.crc32:
                raise UserError(f"{source}: is damaged: its checksum is not the manifest's; copy or pack it again")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        logger.warning("data.stage_to: %s is full; %s is read from where it is", place, source)
