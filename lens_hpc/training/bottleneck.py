"""Where the time of a training goes on this machine, each part alone and all together.

1. Dataset, loader, model and optimizer are made as for a training.
2. Each part runs for some seconds on batches of the training split; what a loader worker does, on
   one core. Several processes run it at the same time and equally often, because a step waits for
   all of them.
3. The bottleneck is named, and the setting to turn.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count, repeat
from typing import Any

import torch
from accelerate import Accelerator

from lens_hpc import config
from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.dataset.mapping import cut_shards_named
from lens_hpc.loading.loader import Batch
from lens_hpc.loading.order import Share
from lens_hpc.logs import logger
from lens_hpc.resources import usable_cpus
from lens_hpc.scoring.out_of_memory import out_of_memory_named
from lens_hpc.training.accelerator import accelerator_session
from lens_hpc.training.memory import smaller_micro_batch
from lens_hpc.training.trainer import Trainer, make_trainer, train_step

READ = "read from storage"
NORMALISE = "normalise"
AUGMENT = "augment"
COPY = "copy to the device"
LOADER_PARTS = (READ, NORMALISE, AUGMENT, COPY)

LOADER = "loader alone"
MODEL = "model step alone"
ALL = "everything together"

WARM_UP_CALLS = 3
# A loader that is this many times as fast as the model hardly lets it wait.
FAST_ENOUGH = 1.2

Part = Callable[[], int]
"""It does some work, and returns how many samples it did it for."""


@dataclass(frozen=True)
class Rates:
    """How fast the parts of a training are on this machine."""

    rows: int
    """Of the training split."""
    batch_size: int
    """Of a micro-batch."""
    samples_per_second: dict[str, float]
    """Of all processes together, by the name of the part."""
    processes: int
    advice: str
    """The bottleneck, and the setting to turn."""


def measure_rates(settings: config.Train, seconds: float) -> Rates | None:
    """Measure each part for some seconds, on all processes; the first returns what was found.

    Nothing is written.
    """
    with cut_shards_named(), accelerator_session(settings) as accelerator:
        manifest = read_manifest(settings.data.dataset)
        with make_trainer(settings, accelerator, manifest) as trainer:
            loader = trainer.train_loader
            remedy = smaller_micro_batch(settings, loader.batch_size, trainer.accumulation)
            with out_of_memory_named(remedy):
                rates = measure_parts(trainer, seconds)
            if not accelerator.is_main_process:
                return None

            rows = len(loader.samples.split)
            advice = give_advice(settings, rates)
            return Rates(rows, loader.batch_size, rates, accelerator.num_processes, advice)


def measure_parts(trainer: Trainer, seconds: float) -> dict[str, float]:
    """Return the samples a second of each part."""
    rates = {}
    for name, part in (loader_parts(trainer) | combined_parts(trainer)).items():
        logger.info("measuring for %g s: %s", seconds, name)
        rates[name] = samples_per_second(part, seconds, trainer.accelerator)
    return rates


def samples_per_second(part: Part, seconds: float, accelerator: Accelerator) -> float:
    """Call a part for about so many seconds, and return the rate of all processes together.

    A training step waits for all processes, so they must call it equally often: they do in rounds,
    after each of which they agree on the length of the next.
    """
    _timed(part, WARM_UP_CALLS, accelerator)

    samples = 0.0
    spent = 0.0
    calls = 1
    while spent < seconds:
        slowest, done = _timed(part, calls, accelerator)
        spent += slowest
        samples += done

        # The first calls may find everything ready, so that a round is never much longer than all
        # before.
        calls_left = (seconds - spent) / slowest * calls
        calls = max(1, min(2 * calls, int(calls_left)))
    return samples / spent


def _timed(part: Part, calls: int, accelerator: Accelerator) -> tuple[float, float]:
    """Call a part so often; return the seconds of the slowest process, and the samples of all."""
    _finish(accelerator.device)
    began = time.perf_counter()
    done = sum(part() for _ in range(calls))
    _finish(accelerator.device)

    own = torch.tensor([[time.perf_counter() - began, done]], device=accelerator.device)
    everyones: Any = accelerator.gather(own)
    return everyones[:, 0].max().item(), everyones[:, 1].sum().item()


def _finish(device: torch.device) -> None:
    """Wait until a device has done what it was told; a GPU may still have work to do."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def endless_shares(trainer: Trainer) -> Iterator[Share]:
    """Yield this process's micro-batches of all epochs."""
    return chain.from_iterable(trainer.shares(epoch) for epoch in count())


# ---- the parts ----


def loader_parts(trainer: Trainer) -> dict[str, Part]:
    """Return what a loader worker does for a batch, on one core, and what it leaves to a GPU."""
    loader = trainer.train_loader
    samples = loader.samples
    shares = endless_shares(trainer)
    buffer = loader.buffers[0]

    prepare_device = torch.device("cpu") if loader.fill.prepares else loader.device
    stored = torch.empty(buffer.images.shape, dtype=samples.stored_dtype)
    images = torch.rand(buffer.images.shape, device=prepare_device)
    augmentation = samples.augmentation
    assert augmentation is not None

    def read() -> int:
        rows = next(shares).draws % len(samples.split)
        with one_torch_thread():
            samples.read_images(rows, stored)
        return len(rows)

    def normalise() -> int:
        with one_torch_thread():
            samples.normalise(images)
        return len(images)

    def augment() -> int:
        draws = next(shares).draws
        with one_torch_thread():
            augmentation(images, 0, draws)
        return len(images)

    def copy() -> int:
        with one_torch_thread():
            buffer.images.to(loader.device, non_blocking=True)
        return len(buffer.images)

    parts: dict[str, Part] = {READ: read, NORMALISE: normalise, AUGMENT: augment}
    if loader.device.type != "cpu":
        parts[COPY] = copy
    return parts


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Keep torch to one core meanwhile, as a loader worker does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def combined_parts(trainer: Trainer) -> dict[str, Part]:
    """Return the loader with its workers, the model on one batch again and again, and both."""
    batches = trainer.train_loader(0, endless_shares(trainer))
    first = next(batches)
    # The loader fills the first batch's memory again.
    same = Batch(
        first.images.clone(),
        first.features.clone(),
        first.labels.clone(),
        first.weights.clone(),
        first.draws,
    )
    samples_per_step = len(same.draws) * trainer.accumulation

    def load() -> int:
        return len(next(batches).draws)

    def step_alone() -> int:
        train_step(trainer, 0, repeat(same))
        return samples_per_step

    def load_and_step() -> int:
        train_step(trainer, 0, batches)
        return samples_per_step

    return {LOADER: load, MODEL: step_alone, ALL: load_and_step}


# ---- what to do about it ----


def give_advice(settings: config.Train, rates: Mapping[str, float]) -> str:
    """Name the bottleneck, and the setting to turn."""
    ratio = rates[LOADER] / rates[MODEL]
    if ratio > FAST_ENOUGH:
        advice = (
            f"The model is the bottleneck: the loader makes {ratio:.1f} times what it takes. "
            "More or faster GPUs help"
        )
        return f"{advice}, or train.precision=bf16." if settings.train.precision == "no" else advice

    measured = [name for name in LOADER_PARTS if name in rates]
    slowest = min(measured, key=lambda name: rates[name])
    advice = f"The loader is the bottleneck, and in it: {slowest}."

    if slowest == READ:
        turn = "data.stage_to=FOLDER (a disk of this node), or data.shuffle=blocks."
    elif slowest == AUGMENT and settings.augment.engine == "albumentations":
        turn = "augment.engine=torch."
    else:
        workers = 2 * settings.data.workers or 2
        turn = f"data.workers={workers}; {usable_cpus()} cores are usable."
    return f"{advice} Turn {turn}"
