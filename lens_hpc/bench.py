"""bench: where the time goes on this machine, each part alone and all together.

1. Dataset, loader, model and optimizer are made as `train` would make them.
2. Each part runs for some seconds on batches of the training split: those of a loader worker on one core.
3. The bottleneck is named, and the setting to turn.
"""

import time
from collections.abc import Callable, Iterator
from itertools import chain, count, repeat
from pathlib import Path

import torch

from lens_hpc import config
from lens_hpc.data.loader import Batch
from lens_hpc.data.order import Share
from lens_hpc.engine.accelerator import make_accelerator
from lens_hpc.engine.trainer import Trainer, make_trainer, train_step
from lens_hpc.logs import logger

READ, NORMALISE, AUGMENT, COPY = "read from storage", "normalise", "augment", "copy to the device"
LOADER, MODEL, ALL = "loader alone", "model step alone", "everything together"
WARM_UP = 3  # calls
ENOUGH = 1.2  # a loader that is so many times as fast as the model hardly lets it wait


def run(config_file: Path, overrides: list[str]) -> None:
    """Print samples a second of each part, and what to do about the slowest."""
    settings = config.load(config.Bench, config_file, overrides)
    trainer = make_trainer(settings, make_accelerator(settings))
    rates = {}
    for name, part in [*loader_parts(trainer).items(), *whole_parts(trainer).items()]:
        logger.info("measuring for %g s: %s", settings.seconds, name)
        rates[name] = samples_per_second(part, settings.seconds, trainer.accelerator.device)
    trainer.training.close()
    print(f"{len(trainer.training.samples.split):,} training rows, {trainer.training.batch_size} a batch, samples/s:")
    print("\n".join(f"  {name:<22}{rate:>12,.0f}" for name, rate in rates.items()))
    print(advice(settings, rates))


def samples_per_second(part: Callable[[], int], seconds: float, device: torch.device) -> float:
    """Of calls that return how many samples they did."""
    for _ in range(WARM_UP):
        part()
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        done += part()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return done / (time.perf_counter() - began)


def endless(trainer: Trainer) -> Iterator[Share]:
    """This process's micro-batches of all epochs."""
    return chain.from_iterable(trainer.shares(epoch) for epoch in count())


def loader_parts(trainer: Trainer) -> dict[str, Callable[[], int]]:
    """What a loader worker does for a batch, on one core; on a GPU, what it leaves to that."""
    samples, loader, shares = trainer.training.samples, trainer.training, endless(trainer)
    buffer, device = loader.buffers[0], torch.device("cpu") if loader.fill.prepares else loader.device
    stored = torch.empty(buffer.images.shape, dtype=samples.stored_dtype)
    images = torch.rand(buffer.images.shape, device=device)
    augmentation = samples.augmentation
    assert augmentation is not None

    def read() -> None:
        samples.read_images(next(shares).draws % len(samples.split), stored)

    def on_one_core(work: Callable[[], object]) -> Callable[[], int]:
        def alone() -> int:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            work()
            torch.set_num_threads(threads)
            return loader.batch_size

        return alone

    parts: dict[str, Callable[[], object]] = {
        READ: read,
        NORMALISE: lambda: samples.normalise(images),
        AUGMENT: lambda: augmentation(images, 0, next(shares).draws),
    }
    if loader.device.type != "cpu":
        parts[COPY] = lambda: buffer.images.to(loader.device, non_blocking=True)
    return {name: on_one_core(part) for name, part in parts.items()}


def whole_parts(trainer: Trainer) -> dict[str, Callable[[], int]]:
    """The loader with its workers, the model on one batch again and again, and both together."""
    batches = trainer.training(0, endless(trainer))
    images, features, labels, weights, draws = next(batches)
    same = Batch(images.clone(), features.clone(), labels.clone(), weights.clone(), draws)

    def step(source: Iterator[Batch]) -> int:
        train_step(trainer, 0, source)
        return len(same.draws) * trainer.accumulation

    return {LOADER: lambda: len(next(batches).draws), MODEL: lambda: step(repeat(same)), ALL: lambda: step(batches)}


def advice(settings: config.Bench, rates: dict[str, float]) -> str:
    """The bottleneck and the setting to turn."""
    if rates[LOADER] > ENOUGH * rates[MODEL]:
        said = f"The model is the bottleneck: the loader makes {rates[LOADER] / rates[MODEL]:.1f} times what it takes."
        return f"{said} More or faster GPUs help" + ", or train.precision=bf16." * (settings.train.precision == "no")
    slowest = min((READ, NORMALISE, AUGMENT, COPY), key=lambda name: rates.get(name, float("inf")))
    said = f"The loader is the bottleneck, and in it: {slowest}. "
    if slowest == READ:
        return said + "Turn data.stage_to=FOLDER (a disk of this node), or data.shuffle=blocks."
    if slowest == AUGMENT and settings.augment.engine == "albumentations":
        return said + "Turn augment.engine=torch."
    return said + f"Turn data.workers={2 * settings.data.workers or 2}; {config.usable_cpus()} cores are usable."
