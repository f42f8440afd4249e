"""Batches: what the model sees, made from the rows of a split.

    draws (order.py) -> mapped rows (reader.py) -> a buffer of the ring -> normalise -> augment (training) -> Batch

The ring holds a few batches, made once. A worker is handed the draws of a whole batch and a free buffer, and fills it
by one native call for all images; batches come in the order that they were asked for. Workers are threads, which share
the map of the shards, as long as all work is native code on whole batches. What is Python a cutout (albumentations) or
holds h5py's lock (compressed shards) gets processes instead, and buffers in shared memory.

On the CPU workers do everything. For a GPU they only read: stored pixels are copied from pinned memory on a stream of
their own, and normalised and augmented there.

The statistics are those of the training split for every split, and come with the run, not with the dataset scored.
"""

import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from lens_hpc import UserError
from lens_hpc.data.augment import Augmentation
from lens_hpc.data.order import Share
from lens_hpc.data.reader import Split
from lens_hpc.data.shards import Manifest
from lens_hpc.workers import deaf, make_pool


class Batch(NamedTuple):
    """B samples, valid until the next batch is asked for."""

    images: torch.Tensor
    """(B, bands, height, width) float32, normalised."""
    features: torch.Tensor
    """(B, F) float32, normalised."""
    labels: torch.Tensor
    """(B,) float32."""
    weights: torch.Tensor
    """(B,) float32, 0 for a sample that shall count nothing."""
    draws: np.ndarray
    """(B,) which samples these are (order.py)."""

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device, copied asynchronously where it is pinned."""
        images, features, labels, weights = (tensor.to(device, non_blocking=True) for tensor in self[:4])
        return Batch(images, features, labels, weights, self.draws)


class Samples:
    """How the samples of a split are read: normalised with `training`'s statistics, augmented or not.

    For a model that sees images alone, `features` may be other ones than in training: they are read as zeros.
    """

    def __init__(
        self,
        split: Split,
        training: Manifest,
        image_scale: str,
        augmentation: Augmentation | None = None,
        features: bool = True,
    ) -> None:
        _check_same_kind(split.manifest, training, features)
        self.split, self.training, self.augmentation, self.features = split, training, augmentation, features
        assert training.statistics is not None
        self.image_maximum = training.statistics.image_max if image_scale == "split" else None
        if augmentation:
            augmentation.check(training.height, training.width)

    def __getstate__(self) -> dict[str, Any]:
        """The map stays behind when samples are sent to another process."""
        return {key: value for key, value in self.__dict__.items() if key != "_every_place"}

    @property
    def need_processes(self) -> bool:
        """Whether threads would wait for each other."""
        return self.split.compressed or bool(self.augmentation and self.augmentation.is_slow)

    @property
    def stored_dtype(self) -> torch.dtype:
        """Type of the stored pixels."""
        return torch.from_numpy(np.empty(0, self.split.dtype("images"))).dtype

    @cached_property
    def _every_place(self) -> torch.Tensor:
        with warnings.catch_warnings(action="ignore"):  # torch has no tensor that is read only; nothing writes to it
            return torch.from_numpy(self.split.every_place("images"))

    def read_images(self, rows: np.ndarray, out: torch.Tensor) -> None:
        """Stored pixels of the given rows into `out` (B, bands, height, width)."""
        if self.split.compressed:
            out.copy_(torch.from_numpy(self.split.take("images", rows)))
        else:
            places = torch.from_numpy(self.split.places("images", rows))
            torch.index_select(self._every_place, 0, places, out=out.view(torch.uint8).view(len(rows), -1))

    def read_rest(self, rows: np.ndarray, features: torch.Tensor, labels: torch.Tensor) -> None:
        """Normalised features and labels into (B, F) and (B,)."""
        if self.features:
            features.copy_(torch.from_numpy(normalise_features(self.split.take("features", rows), self.training)))
        else:
            features.zero_()
        labels.copy_(torch.from_numpy(self.split.take("labels", rows)))

    def normalise(self, images: torch.Tensor) -> None:
        """Normalise float32 cutouts in place."""
        normalise_images(images, self.image_maximum)

    def prepare(self, images: torch.Tensor, epoch: int, draws: np.ndarray) -> None:
        """Normalise and augment float32 cutouts in place."""
        self.normalise(images)
        if self.augmentation:
            self.augmentation(images, epoch, draws)


def normalise_images(images: torch.Tensor, maximum: float | None) -> None:
    """x / max in place: by `maximum`, or by each cutout's own where that is None; (B, bands, height, width)."""
    if maximum is None:
        scale = images.flatten(1).amax(1)[:, None, None, None]
        images /= torch.where(scale > 0, scale, 1)
    else:
        images /= maximum if maximum > 0 else 1


def normalise_features(features: np.ndarray, manifest: Manifest) -> np.ndarray:
    """(x - min) / (max - min) with training's statistics, a missing value being training's median; (B, F) float32."""
    statistics = manifest.statistics
    assert statistics is not None
    low, high, median = np.array(
        [statistics.feature_min, statistics.feature_max, statistics.feature_median], dtype=np.float32
    )
    filled = np.where(np.isnan(features), median, features)
    span = np.where(high > low, high - low, 1)
    return (filled - low) / span


def _check_same_kind(scored: Manifest, training: Manifest, features: bool) -> None:
    """The model can only see what it was trained on."""
    for what in ("bands", "height", "width", *(["features"] if features else [])):
        here, there = getattr(scored, what), getattr(training, what)
        if here != there:
            raise UserError(f"dataset {scored.name}: {what} are {here}, but the run was trained with {there}")


@dataclass(frozen=True)
class _Buffer:
    """Room for one batch."""

    images: torch.Tensor
    features: torch.Tensor
    labels: torch.Tensor


class Filler:
    """Fills buffers: what a worker does."""

    def __init__(self, samples: Samples, buffers: Sequence[_Buffer], prepares: bool) -> None:
        self.samples, self.buffers, self.prepares = samples, buffers, prepares

    def __call__(self, place: int, epoch: int, share: Share) -> None:
        """Fill the first rows of buffer `place`."""
        split, buffer, count = self.samples.split, self.buffers[place], len(share.draws)
        rows = share.draws % len(split)
        try:
            split.fetch_ahead(share.ahead % len(split))
            images = buffer.images[:count]
            same = images.dtype == self.samples.stored_dtype
            stored = images if same else torch.empty(images.shape, dtype=self.samples.stored_dtype)
            self.samples.read_images(rows, stored)
            self.samples.read_rest(rows, buffer.features[:count], buffer.labels[:count])
            if self.prepares:
                images.copy_(stored)  # does nothing when they are the same
                self.samples.prepare(images, epoch, share.draws)
        except Exception as error:
            error.add_note(f"while loading {describe(split, rows)}")
            raise


def describe(split: Split, rows: np.ndarray) -> str:
    """Rows and their shards, for a message."""
    shown = ", ".join(map(str, rows[:5])) + ", ..." * (len(rows) > 5)
    files = [str(file) for file in split.shards_of(rows)]
    more = f" and {len(files) - 5} more" * (len(files) > 5)
    return f"rows {shown} of {split.name}, from {', '.join(files[:5])}{more}"


class Loader:
    """Batches of at most `batch_size` samples on a device, made ahead by `workers` threads or processes.

    `waited` adds up the seconds that the caller had to wait for data.
    """

    def __init__(self, samples: Samples, batch_size: int, workers: int, device: torch.device) -> None:
        self.samples, self.batch_size, self.device, self.waited = samples, batch_size, device, 0.0
        processes = bool(workers) and samples.need_processes
        prepares = device.type == "cpu" or samples.need_processes
        self.buffers = [self._make_buffer(batch_size, prepares, processes) for _ in range(2 * workers + 1)]
        self.fill = Filler(samples, self.buffers, prepares)
        self.stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.copied: dict[int, torch.cuda.Event] = {}
        self.pool: Executor | None = None
        if processes:
            self.pool = make_pool(workers, "spawn", _become, self.fill)
        elif workers:
            self.pool = ThreadPoolExecutor(workers, "loader", torch.set_num_threads, (1,))

    def __call__(self, epoch: int, shares: Iterable[Share]) -> Iterator[Batch]:
        """The batches of these shares, in their order."""
        shares = iter(shares)
        free, pending = deque(range(len(self.buffers))), deque[tuple[int, Share, Future[None] | None]]()
        try:
            while True:
                began = time.monotonic()
                while free and (share := next(shares, None)):
                    pending.append((free[0], share, self._ask(free.popleft(), epoch, share)))
                if not pending:
                    return
                place, share, future = pending.popleft()
                self._wait(future, share)
                batch = self._deliver(place, epoch, share)
                self.waited += time.monotonic() - began
                yield batch
                free.append(place)
        finally:
            for _, _, future in pending:
                if future and not future.cancel():
                    future.exception()  # it runs: wait, or it would write into a buffer that others use

    def close(self) -> None:
        """End the workers."""
        if self.pool:
            self.pool.shutdown(cancel_futures=True)

    def _make_buffer(self, size: int, prepares: bool, shared: bool) -> _Buffer:
        split, pinned = self.samples.split, self.device.type == "cuda" and not shared
        dtype = torch.float32 if prepares else self.samples.stored_dtype
        shapes = [(split.shape("images"), dtype), (split.shape("features"), torch.float32), ((), torch.float32)]
        buffer = _Buffer(*(torch.empty(size, *shape, dtype=kind, pin_memory=pinned) for shape, kind in shapes))
        if shared:
            for tensor in (buffer.images, buffer.features, buffer.labels):
                tensor.share_memory_()  # type: ignore[no-untyped-call]
        return buffer

    def _ask(self, place: int, epoch: int, share: Share) -> Future[None] | None:
        if place in self.copied:
            self.copied.pop(place).synchronize()
        if isinstance(self.pool, ThreadPoolExecutor):
            return self.pool.submit(self.fill, place, epoch, share)
        if self.pool:
            with deaf():
                return self.pool.submit(_fill, place, epoch, share)
        self.fill(place, epoch, share)
        return None

    def _wait(self, future: Future[None] | None, share: Share) -> None:
        try:
            if future:
                future.result()
        except BrokenProcessPool as error:
            split = self.samples.split
            raise RuntimeError(
                f"a loader process was killed while loading {describe(split, share.draws % len(split))}; the system "
                "kills what takes too much memory: try fewer data.workers, or augment.engine=torch, which needs none"
            ) from error

    def _deliver(self, place: int, epoch: int, share: Share) -> Batch:
        buffer, count = self.buffers[place], len(share.draws)
        images, features, labels = buffer.images[:count], buffer.features[:count], buffer.labels[:count]
        batch = Batch(images, features, labels, torch.from_numpy(share.weights), share.draws)
        if self.stream is None:
            return batch.to(self.device)
        with torch.cuda.stream(self.stream):
            batch = batch.to(self.device)
            self.copied[place] = self.stream.record_event()
            if not self.fill.prepares:
                batch = batch._replace(images=batch.images.float())
                self.samples.prepare(batch.images, epoch, share.draws)
        now = torch.cuda.current_stream(self.device)
        now.wait_stream(self.stream)
        for tensor in batch[:4]:
            tensor.record_stream(now)
        return batch


_filler: Filler


def _become(filler: Filler) -> None:
    """Make this process a worker of a loader."""
    global _filler
    torch.set_num_threads(1)
    _filler = filler


def _fill(place: int, epoch: int, share: Share) -> None:
    _filler(place, epoch, share)
