"""Staging on the node: shards copied once a node to a nearer disk, and shared by its processes.

A copy is checked while it is made, and appears under its name only when it is complete: when
staging was interrupted, the next job copies what is missing. Whatever cannot be staged is read from
where it is.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from lens_hpc import files
from lens_hpc.dataset.manifest import Manifest, ShardRecord
from lens_hpc.errors import UserError
from lens_hpc.logs import logger
from lens_hpc.refusals import FULL, errno_of

COPIES_AT_ONCE = 4
PIECE_BYTES = 1 << 22
KEPT_FREE_BYTES = 1 << 28
LONGEST_NAME = 100
SECONDS_BETWEEN_TRIES = 0.5

HAS_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM}
"""What file systems without locks say: NFS without lockd, Lustre without the option flock."""


def expand_folder(folder: str) -> Path:
    """Return the folder that data.stage_to names.

    Raises UserError when it uses an environment variable that is not set.
    """
    path = os.path.expandvars(folder)
    if "$" in path:
        raise UserError(
            f"data.stage_to = {folder}: the variable is not set on this node; name a folder"
        )
    return Path(path).expanduser()


def shards_needed(manifest: Manifest, split: str, first: float, last: float) -> list[ShardRecord]:
    """Return the shards that hold the rows between two fractions of a split."""
    record = manifest.splits[split]
    first_row = first * record.rows
    last_row = last * record.rows

    needed = []
    start = 0
    for shard in record.shards:
        stop = start + shard.rows
        if start < last_row and stop > first_row:
            needed.append(shard)
        start = stop
    return needed


def staging_folder(manifest: Manifest, folder: Path) -> Path:
    """Return where in `folder` the shards of a dataset go: another name for each packing."""
    digest = hashlib.sha256(manifest.model_dump_json().encode()).hexdigest()
    # The name of an old dataset may be anything, also a path.
    name = re.sub(r"[^A-Za-z0-9._-]", "_", manifest.name).lstrip(".")[:LONGEST_NAME]
    return folder / f"{name}-{digest[:12]}"


def copy_shards(
    dataset: Path, records: Sequence[ShardRecord], target: Path, tell: Callable[[str], None]
) -> None:
    """Copy the shards that are not in the folder `target` yet; warn about those that do not fit.

    One process a node does this, and calls `tell` with how far it is. Raises UserError with the
    name of a shard that is damaged.
    """
    files.make_folder(target)
    with _exclusive(target, tell) as is_alone:
        if is_alone:
            _remove_leftovers(target)
        missing = [record for record in records if not (target / record.file).is_file()]
        free_bytes = shutil.disk_usage(target).free - KEPT_FREE_BYTES
        fitting = list(_fitting(missing, free_bytes))
        if len(fitting) < len(missing):
            logger.warning(
                "data.stage_to: %s has room for %d of %d shards; the others are read from %s",
                target,
                len(fitting),
                len(missing),
                dataset,
            )
        _copy_all(dataset, fitting, target, tell)


def _copy_all(
    dataset: Path, records: Sequence[ShardRecord], target: Path, tell: Callable[[str], None]
) -> None:
    pool = ThreadPoolExecutor(COPIES_AT_ONCE)
    try:
        copies = {pool.submit(_copy, dataset, record, target): record for record in records}
        finished: list[ShardRecord] = []
        for copy in as_completed(copies):
            copy.result()
            finished.append(copies[copy])
            tell(progress_text(finished, records))
    finally:
        # After a failure, those that wait for their turn are not begun.
        pool.shutdown(cancel_futures=True)


def progress_text(finished: Sequence[ShardRecord], records: Sequence[ShardRecord]) -> str:
    """Say how many of some shards are finished."""
    done = sum(record.bytes for record in finished) / 1e9
    total = sum(record.bytes for record in records) / 1e9
    return f"{len(finished)} of {len(records)} shards, {done:.1f} of {total:.1f} GB"


def staged_copies(records: Sequence[ShardRecord], target: Path) -> dict[str, Path]:
    """Return the copies that are in the folder `target`, by the name of the shard."""
    copies = {record.file: target / record.file for record in records}
    return {name: copy for name, copy in copies.items() if copy.is_file()}


@contextmanager
def _exclusive(folder: Path, tell: Callable[[str], None]) -> Iterator[bool]:
    """Wait for another job that stages the same dataset on this node.

    Yields whether this process is alone now: a file system may have no locks.
    """
    with (folder / "lock").open("w") as lock:
        yield _is_locked(lock.fileno(), folder, tell)


def _is_locked(lock: int, folder: Path, tell: Callable[[str], None]) -> bool:
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # To tell it also finds out whether another process of this job has failed.
            tell("another job on this node copies the same shards")
            time.sleep(SECONDS_BETWEEN_TRIES)
        except OSError as error:
            if error.errno not in HAS_NO_LOCKS:
                raise
            logger.warning(
                "data.stage_to: the file system of %s has no locks (%s): jobs on one node that "
                "begin together may each copy all shards, and killed ones leave files behind",
                folder,
                error.strerror,
            )
            return False
        else:
            return True


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed copies have left: only the holder of the lock writes here."""
    for split in folder.iterdir():
        if split.is_dir():
            files.remove_partials(split)


def _fitting(records: Sequence[ShardRecord], free_bytes: int) -> Iterator[ShardRecord]:
    for record in records:
        free_bytes -= record.bytes
        if free_bytes < 0:
            return
        yield record


def _copy(dataset: Path, record: ShardRecord, target: Path) -> None:
    """Copy one shard, unless the disk is full. Raises UserError when it is damaged."""
    source = dataset / record.file
    copy = target / record.file
    files.make_folder(copy.parent)
    try:
        with files.whole_file(copy) as partial:
            if _copy_bytes(source, partial) != record.crc32:
                raise UserError(
                    f"{source}: is damaged: its checksum is not the manifest's; "
                    "copy or pack it again"
                )
    except UserError as error:
        if errno_of(error) not in FULL:
            raise
        logger.warning("data.stage_to: %s is full; %s is read from where it is", target, source)


def _copy_bytes(source: Path, target: Path) -> str:
    """Copy a file, and return its checksum, 8 hexadecimal digits."""
    crc = 0
    with target.open("wb") as copy:
        for piece in _pieces(source):
            crc = zlib.crc32(piece, crc)
            copy.write(piece)
    return f"{crc:08x}"


def _pieces(file: Path) -> Iterator[bytes]:
    """Yield what a file holds. Raises UserError where it cannot be read."""
    try:
        with file.open("rb") as stream:
            while piece := stream.read(PIECE_BYTES):
                yield piece
    except OSError as error:
        raise UserError(
            f"{file}: cannot be read: {error.strerror}; copy or pack it again"
        ) from error
