"""Batches: what the model sees, made from the rows of a split.

    draws (order.py) -> mapped rows (dataset/split.py) -> a buffer of the ring -> normalise
        -> augment (training) -> Batch

The ring holds a few batches, made once. A worker is given the draws of a batch and a free buffer,
and fills it by one native call for all images; batches come in the order in which they were asked
for. Workers are threads, which share the map of the shards, as long as all work is native code on
batches. What is Python code for each cutout (albumentations) or holds h5py's lock (compressed
shards) gets processes instead, and buffers in shared memory.

For a CPU workers do everything, and for other devices, too. For a CUDA GPU they only read and draw
all random numbers, into pinned memory; what comes then is in gpu_batches.py.

The draws themselves are made ahead by one more thread: to sort a large step takes milliseconds.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Self

import cv2
import numpy as np
import torch

from lens_hpc.dataset.mapping import name_cut_shards
from lens_hpc.dataset.split import Split
from lens_hpc.loading.ahead import made_ahead
from lens_hpc.loading.gpu_batches import GpuBatches
from lens_hpc.loading.memory import PackedTensors, memory_pinned
from lens_hpc.loading.native_threads import opencv_without_threads, torch_threads_kept
from lens_hpc.loading.order import Share
from lens_hpc.loading.samples import Samples
from lens_hpc.workers import make_pool, signals_blocked

SHOWN_IN_MESSAGES = 5
SHARES_AHEAD = 16
"""Micro-batches whose draws are made ahead, so that a step may take long to sort."""


class Batch(NamedTuple):
    """B samples, valid until the next batch is asked for."""

    images: torch.Tensor
    """(B, bands, height, width) float32, normalised."""
    features: torch.Tensor
    """(B, inputs) float32: dataset/feature_scaling.py."""
    labels: torch.Tensor
    """(B,) float32."""
    weights: torch.Tensor
    """(B,) float32, 0 for a sample that shall count nothing."""
    draws: np.ndarray
    """(B,) int64: which samples these are (order.py)."""


@dataclass(frozen=True)
class Buffer:
    """Memory on the CPU for one batch, of the largest size."""

    images: torch.Tensor
    """(B, bands, height, width): float32 where workers normalise, else as they are stored."""
    rest: PackedTensors
    """Features, labels and weights as in a Batch, and what augmentation has drawn ahead."""


class Filler:
    """Fills buffers: what a worker does.

    `prepares` says whether it also normalises and augments, or leaves that to the GPU.
    """

    def __init__(self, samples: Samples, buffers: Sequence[Buffer], prepares: bool) -> None:
        self.samples = samples
        self.buffers = buffers
        self.prepares = prepares

    def __call__(self, slot: int, epoch: int, share: Share) -> None:
        """Fill the first rows of the buffer of this number."""
        split = self.samples.split
        rows = share.draws % len(split)
        try:
            split.prefetch(share.ahead % len(split))
            self._fill(self.buffers[slot], rows, epoch, share)
        except Exception as error:
            error.add_note(f"while loading {describe_rows(split, rows)}")
            raise

    def _fill(self, buffer: Buffer, rows: np.ndarray, epoch: int, share: Share) -> None:
        images = buffer.images[: len(rows)]
        stored = images
        stored_dtype = self.samples.stored_dtype
        if images.dtype != stored_dtype:
            stored = torch.empty(images.shape, dtype=stored_dtype)

        rest = buffer.rest.first(len(rows))
        self.samples.read_images(rows, stored)
        self.samples.read_rest(rows, rest["features"], rest["labels"], rest["weights"])
        rest["weights"] *= torch.from_numpy(share.weights)

        if not self.prepares:
            for name, drawn in self.samples.draw(epoch, share.draws).items():
                rest[name].copy_(drawn)
            return

        if stored is not images:
            images.copy_(stored)
        self.samples.prepare(images, epoch, share.draws)


def describe_rows(split: Split, rows: np.ndarray) -> str:
    """Name rows and the files that hold them, for a message: the first few of each."""
    shown_rows = ", ".join(str(row) for row in rows[:SHOWN_IN_MESSAGES])
    if len(rows) > SHOWN_IN_MESSAGES:
        shown_rows += ", ..."

    files = split.files_of(rows)
    shown_files = ", ".join(str(file) for file in files[:SHOWN_IN_MESSAGES])
    if len(files) > SHOWN_IN_MESSAGES:
        shown_files += f" and {len(files) - SHOWN_IN_MESSAGES} more"
    return f"rows {shown_rows} of {split.name}, from {shown_files}"


class _Pending(NamedTuple):
    """A batch that is being made."""

    slot: int
    share: Share
    future: Future[None] | None
    """None when it has been made already, without workers."""


class Loader:
    """Batches of at most `batch_size` samples on a device, made ahead by threads or processes.

    `with Loader(...) as loader` ends the workers, as `close` does. While a loader is open, OpenCV
    does not use threads if samples are augmented, and new threads may begin with one torch thread;
    closing it, in the thread that made it, sets both as they were.

    `waited` adds up the seconds that the caller had to wait for data.
    """

    def __init__(
        self, samples: Samples, batch_size: int, workers: int, device: torch.device
    ) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.device = device
        self.waited = 0.0

        # Only a CUDA GPU prepares batches itself.
        on_gpu = device.type == "cuda"
        prepares = not on_gpu or samples.need_processes
        in_processes = workers > 0 and samples.need_processes

        # Two batches for each worker, one being made and one ready, and one that the caller has. A
        # GPU may still be copying that: it is left alone until the next one has been brought there.
        self._left_alone = 1 if on_gpu else 0
        count = 2 * workers + 1 + self._left_alone
        self.buffers = self._make_buffers(count, prepares, shared=in_processes)
        self.fill = Filler(samples, self.buffers, prepares)

        self._gpu: GpuBatches | None = None
        if on_gpu:
            first = self.buffers[0]
            self._gpu = GpuBatches(samples, first.images, first.rest, device)
        self._copied: dict[int, torch.cuda.Event] = {}

        # After this nothing may fail before the caller can close the loader.
        if workers > 0 and not in_processes:
            samples.map_shards()
        self._open = ExitStack()
        self._pool = self._start_workers(workers, in_processes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, epoch: int, shares: Iterable[Share]) -> Iterator[Batch]:
        """Yield the batches of these shares, in their order."""
        ahead = made_ahead(shares, SHARES_AHEAD)
        free = deque(range(len(self.buffers)))
        pending = deque[_Pending]()
        try:
            while True:
                began = time.monotonic()
                while len(free) > self._left_alone:
                    share = next(ahead, None)
                    if share is None:
                        break
                    slot = free.popleft()
                    future = self._submit(slot, epoch, share)
                    pending.append(_Pending(slot, share, future))
                if not pending:
                    return

                done = pending.popleft()
                self._wait(done)
                batch = self._deliver(done.slot, epoch, done.share)
                self.waited += time.monotonic() - began

                yield batch
                free.append(done.slot)
        finally:
            ahead.close()

            # Wait for workers that are running: they write into buffers that others may use then.
            for left in pending:
                if left.future and not left.future.cancel():
                    left.future.exception()

    def close(self) -> None:
        """End the workers; a second call does nothing."""
        self._open.close()

    def _make_buffers(self, count: int, prepares: bool, shared: bool) -> list[Buffer]:
        split = self.samples.split
        pinned = self.device.type == "cuda" and not shared
        image_dtype = torch.float32 if prepares else self.samples.stored_dtype
        image_shape = (self.batch_size, *split.shape("images"))

        rest = {
            "features": torch.empty(self.batch_size, self.samples.feature_width),
            "labels": torch.empty(self.batch_size),
            "weights": torch.empty(self.batch_size),
        }
        if not prepares:
            drawn = self.samples.draw(0, np.arange(self.batch_size))
            assert not rest.keys() & drawn.keys(), "augmentation draws under the batch's own names"
            rest |= drawn

        buffers = []
        for _ in range(count):
            images = torch.empty(image_shape, dtype=image_dtype, pin_memory=pinned)
            buffer = Buffer(images, PackedTensors(rest, pinned=pinned))
            if shared:
                images.share_memory_()  # type: ignore[no-untyped-call]
                buffer.rest.whole.share_memory_()  # type: ignore[no-untyped-call]
            buffers.append(buffer)
        return buffers

    def _start_workers(self, workers: int, in_processes: bool) -> Executor | None:
        """Make the pool, and note in `_open` what closing must undo, the pool's end being first."""
        if self.samples.augmentation:
            self._open.enter_context(opencv_without_threads())
        if workers == 0:
            return None

        pool: Executor
        if in_processes:
            if self._gpu:
                self._pin_shared_memory()
            pool = make_pool(workers, "spawn", _start_worker, self.fill)
        else:
            self._open.enter_context(torch_threads_kept())
            pool = ThreadPoolExecutor(workers, "loader", torch.set_num_threads, (1,))
        self._open.callback(pool.shutdown, cancel_futures=True)
        return pool

    def _pin_shared_memory(self) -> None:
        """Pin all buffers until the loader is closed."""
        for buffer in self.buffers:
            self._open.enter_context(memory_pinned(buffer.images))
            self._open.enter_context(memory_pinned(buffer.rest.whole))

        # No copy may still be going on when they are pinned no longer.
        for slot in range(len(self.buffers)):
            self._open.callback(self._wait_until_copied, slot)

    def _submit(self, slot: int, epoch: int, share: Share) -> Future[None] | None:
        """Have a buffer filled by a worker, or at once where there is none."""
        if self._pool is None:
            self._fill_once_copied(slot, epoch, share)
            return None
        if isinstance(self._pool, ThreadPoolExecutor):
            return self._pool.submit(self._fill_once_copied, slot, epoch, share)

        # A process may be started by this call.
        self._wait_until_copied(slot)
        with signals_blocked(), self._killed_worker_named(share):
            return self._pool.submit(_fill_in_worker, slot, epoch, share)

    def _fill_once_copied(self, slot: int, epoch: int, share: Share) -> None:
        self._wait_until_copied(slot)
        self.fill(slot, epoch, share)

    def _wait_until_copied(self, slot: int) -> None:
        """Wait until the GPU needs the contents of a buffer no more."""
        if slot in self._copied:
            self._copied.pop(slot).synchronize()

    def _wait(self, pending: _Pending) -> None:
        with self._killed_worker_named(pending.share):
            if pending.future:
                pending.future.result()

    @contextmanager
    def _killed_worker_named(self, share: Share) -> Iterator[None]:
        """Say what was loaded when a worker process was killed.

        The pool tells so when a batch is waited for, or when the next one is submitted.
        """
        try:
            yield
        except BrokenProcessPool as error:
            split = self.samples.split
            rows = describe_rows(split, share.draws % len(split))
            raise RuntimeError(
                f"a loader process was killed while loading {rows}; the system kills what takes "
                "too much memory: try fewer data.workers, or augment.engine=torch, which needs none"
            ) from error

    def _deliver(self, slot: int, epoch: int, share: Share) -> Batch:
        """Return the batch that a buffer holds, on the device."""
        buffer = self.buffers[slot]
        draws = share.draws
        if self._gpu:
            prepared = self.fill.prepares
            batch = self._gpu.bring(buffer.images, buffer.rest, epoch, draws, prepared)
            images, rest, self._copied[slot] = batch
        else:
            images = buffer.images[: len(draws)].to(self.device)
            tensors = buffer.rest.first(len(draws))
            rest = {name: tensor.to(self.device) for name, tensor in tensors.items()}
        return Batch(images, rest["features"], rest["labels"], rest["weights"], draws)


# ---- in a worker process ----

_filler: Filler


def _start_worker(filler: Filler) -> None:
    """Make this process a worker of a loader."""
    global _filler
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    name_cut_shards()
    _filler = filler


def _fill_in_worker(slot: int, epoch: int, share: Share) -> None:
    _filler(slot, epoch, share)
