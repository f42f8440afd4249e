"""Shards are written in OUTPUT.partial, by any number of processes and tasks."""

import shutil
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing

import numpy as np

from lens_hpc import files
from lens_hpc.dataset import shards
from lens_hpc.errors import UserError
from lens_hpc.logs import logger
from lens_hpc.packing.describing import shard_attributes
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.packing.notes import ShardNote, notes_folder, read_note, write_note
from lens_hpc.packing.plan import MOST_LISTED, Plan, Shard, bad_rows_error
from lens_hpc.packing.training_statistics import ranges_of, ranges_of_none
from lens_hpc.packing.watching import Watch, deadly_file_error
from lens_hpc.progress import Progress
from lens_hpc.workers import make_pool

LONGEST_SOURCE = 32
SECONDS_BETWEEN_UPDATES = 0.5

BadRows = dict[int, str]
"""Row number in the catalogue: why the row cannot be packed."""


def write_shards(plan: Plan) -> None:
    """Write this task's share of the shards that are not there yet.

    Raises UserError for bad rows, when they are errors, and when the disk or a worker fails.
    """
    settings = plan.settings
    try:
        files.make_folder(notes_folder(plan))
    except UserError:
        # A task without shards may come when another one gives the folder its name.
        if plan.is_published():
            return
        raise

    share = plan.shards[settings.task :: settings.tasks]
    missing = [shard for shard in share if read_note(plan, shard) is None]
    kept = len(share) - len(missing)
    if kept:
        logger.info("%s: %d shards are there already", plan.folder, kept)

    bad: BadRows = {}
    watch = Watch(plan.settings.processes)
    try:
        with closing(_write_all(plan, missing, watch)) as finished_shards:
            for reasons in finished_shards:
                bad |= reasons
                if len(bad) >= MOST_LISTED and settings.on_bad == "error":
                    break
    except FileNotFoundError as error:
        if plan.folder.exists():
            raise
        raise UserError(
            f"{plan.folder}: is gone: another task has found bad rows, and its message names them"
        ) from error
    except BrokenProcessPool as error:
        raise deadly_file_error(plan.cutouts, watch) from error

    if bad and settings.on_bad == "error":
        shutil.rmtree(plan.folder)
        raise bad_rows_error(settings, plan.catalogue, bad)


# ---- processes ----


def _write_all(plan: Plan, missing: list[Shard], watch: Watch) -> Generator[BadRows, None, None]:
    """Write shards in worker processes; yield the bad rows of each."""
    if not missing:
        return
    total = sum(len(shard.rows) for shard in missing)
    row_megabytes = plan.cutouts.row_bytes / 1e6

    # The largest first, so that no worker has much left when the others are done.
    ordered = sorted(missing, key=lambda shard: -len(shard.rows))
    workers = min(plan.settings.processes, len(ordered))

    with Progress(total, "pack", "rows") as progress:

        def show_progress() -> None:
            speed = progress.rate() * row_megabytes
            progress.update(watch.rows_done.value - progress.done, **{"MB/s": f"{speed:,.0f}"})

        yield from _write_in_workers(plan, ordered, workers, watch, show_progress)


def _write_in_workers(
    plan: Plan,
    missing: list[Shard],
    workers: int,
    watch: Watch,
    show_progress: Callable[[], None],
) -> Iterator[BadRows]:
    # Forked workers share the catalogue and begin at once.
    with make_pool(workers, "fork", _start_worker, plan, watch) as pool:
        waiting: set[Future[BadRows]] = {
            pool.submit(_write_in_this_worker, shard) for shard in missing
        }
        try:
            while waiting:
                finished, waiting = wait(
                    waiting, timeout=SECONDS_BETWEEN_UPDATES, return_when=FIRST_COMPLETED
                )
                show_progress()
                for task in finished:
                    yield task.result()
                watch.end_stuck_worker()
        finally:
            pool.shutdown(cancel_futures=True)


# Set in worker processes alone, which live no longer than their call.
_work: tuple[Plan, Watch] | None = None


def _start_worker(plan: Plan, watch: Watch) -> None:
    global _work
    _work = (plan, watch)
    watch.join()


def _write_in_this_worker(shard: Shard) -> BadRows:
    assert _work is not None
    plan, watch = _work
    return write_shard_and_note(plan, shard, watch)


# ---- a shard ----


def write_shard_and_note(plan: Plan, shard: Shard, watch: Watch) -> BadRows:
    """Write one shard and its note; return its bad rows, which are left out.

    Raises UserError when the disk fails.
    """
    file = plan.folder / shard.file
    files.make_folder(file.parent)
    needed = sum(len(shard.rows) for shard in plan.shards) * plan.cutouts.row_bytes / 1e6
    kept = f"shards that are complete are kept, and all need {needed:,.0f} MB"
    attributes = shard_attributes(plan.facts, shard.split, shard.file)

    rows = shard.rows
    all_bad: BadRows = {}
    blocks = _BlockReader(plan, watch)
    record = None
    kept_image_crc32: list[int] = []
    while len(rows):
        blocks.begin()
        with files.whole_file(file, kept) as partial:
            block_crc32, image_crc32 = shards.write_shard(
                partial,
                len(rows),
                blocks.read(rows),
                attributes,
                plan.settings.compression,
            )

        all_bad |= blocks.bad
        if not blocks.bad:
            made = shards.make_shard_record(plan.folder, file, len(rows), block_crc32)
            record = made.model_dump(mode="json")
            kept_image_crc32 = image_crc32
            break

        # Bad rows are known only now that they are read: the file is made again without them.
        file.unlink()
        if plan.settings.on_bad == "error":
            return all_bad
        rows = np.array([row for row in rows if row not in blocks.bad], dtype=np.int64)

    reasons = {str(row): reason for row, reason in all_bad.items()}
    note = ShardNote(
        fingerprint=plan.fingerprint(shard),
        record=record,
        image_crc32=kept_image_crc32,
        band_min=blocks.ranges.lowest.tolist(),
        band_max=blocks.ranges.highest.tolist(),
        missing_pixels=blocks.ranges.missing.tolist(),
        bad=reasons,
    )
    write_note(plan, shard, note)
    return all_bad


class _BlockReader:
    """Reads and checks the blocks of rows of a shard."""

    def __init__(self, plan: Plan, watch: Watch) -> None:
        self.plan = plan
        self.watch = watch
        self.begin()

    def begin(self) -> None:
        """Forget what was read before."""
        self.bad: BadRows = {}
        self.ranges = ranges_of_none(len(self.plan.settings.bands))

    def read(self, rows: np.ndarray) -> Iterator[shards.RowBlock]:
        """Yield blocks of these rows. A bad row is noted, and its cutout is left dark."""
        self.plan.cutouts.prepare(rows, self.watch.begin)
        for start in range(0, len(rows), shards.BLOCK_ROWS):
            block_rows = rows[start : start + shards.BLOCK_ROWS]
            yield self._read_block(block_rows)
            with self.watch.rows_done.get_lock():
                self.watch.rows_done.value += len(block_rows)

    def _read_block(self, rows: np.ndarray) -> shards.RowBlock:
        plan = self.plan
        assert plan.cutouts.shape is not None
        images = np.zeros((len(rows), *plan.cutouts.shape), plan.settings.dtype)
        sources = [""] * len(rows)
        missing_pixels = np.zeros(len(plan.settings.bands), dtype=np.int64)
        for position, row in enumerate(rows):
            self.watch.begin(row)
            try:
                images[position], sources[position], missing = plan.cutouts.read(row)
            except BadCutoutError as error:
                self.bad[int(row)] = str(error)
            else:
                missing_pixels += missing
        self.watch.end()

        self.ranges = self.ranges.merged(ranges_of(images, missing_pixels))
        return shards.RowBlock(
            images=images,
            features=plan.catalogue.features[rows],
            labels=plan.catalogue.labels[rows],
            ids=plan.ids[rows],
            groups=plan.groups[rows],
            sources=shards.encode_texts(np.array(sources), LONGEST_SOURCE),
            targets=plan.catalogue.targets[rows],
            weights=plan.catalogue.weights[rows],
            pixel_hashes=shards.hash_pixels(images),
        )
