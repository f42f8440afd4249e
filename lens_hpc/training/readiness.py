"""Before the queue: everything of a training that could fail later, found in seconds."""

import re
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from lens_hpc import config
from lens_hpc.dataset.feature_scaling import doubts
from lens_hpc.dataset.manifest import Manifest, read_manifest
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.loading.augmentation import make_augmentation
from lens_hpc.loading.loader import Loader
from lens_hpc.loading.order import micro_batches, scoring_shares
from lens_hpc.loading.samples import Samples
from lens_hpc.logs import logger
from lens_hpc.model.build import (
    TRIED_BATCH,
    build_initial_model,
    build_model,
    without_weights,
)
from lens_hpc.process import torch_unchanged
from lens_hpc.progress import Progress
from lens_hpc.training.memory import FLOAT32_BYTES, Step, estimate_memory
from lens_hpc.training.run_folder import check_same_run, with_keys_of_run
from lens_hpc.training.trackers import check_trackers
from lens_hpc.training.trainer import make_order
from lens_hpc.training.training_data import TRAIN, VALIDATION, check_splits


@dataclass(frozen=True)
class Readiness:
    """What was found of a training that is ready for the queue."""

    found: dict[str, str]
    """What each check found, by its name, in the order in which they were made."""
    world_size: int


def check_training(settings: config.Train, world_size: int) -> Readiness:
    """Check batches, data, model and run folder for a job of `world_size` processes.

    Raises one UserError with every problem, which also lists what was fine.
    """
    checks = _Checks(with_keys_of_run(settings), world_size)
    found: dict[str, str] = {}
    problems: list[str] = []

    all_checks = {
        "batches": checks.batches,
        "data": checks.data,
        "model": checks.model,
        "run folder": checks.run_folder,
    }
    with torch_unchanged(), Progress(len(all_checks), "check", "checks") as progress:
        for name, check in all_checks.items():
            progress.begin(name)
            try:
                found[name] = check()
            except UserError as error:
                problems.append(str(error))
            progress.update(1)

    if problems:
        raise UserError(_list_problems(problems, found))
    return Readiness(found, world_size)


def _list_problems(problems: list[str], found: dict[str, str]) -> str:
    """Say what is wrong, and below that what is fine."""
    once = dict.fromkeys(problems)  # two checks may meet the same
    lines = ["not ready:", *(f"  {problem}" for problem in once)]
    if found:
        lines.append("fine:")
        lines += [f"  {name:<12}{text}" for name, text in found.items()]
    return "\n".join(lines)


class _Checks:
    """The checks of one training. Each returns what it found, or raises UserError."""

    def __init__(self, settings: config.Train, world_size: int) -> None:
        self.settings = settings
        self.world_size = world_size

    # ---- what several checks need ----

    @cached_property
    def manifest(self) -> Manifest:
        """The dataset's."""
        return read_manifest(self.settings.data.dataset)

    @cached_property
    def train_split(self) -> Split:
        """Opened, with the headers of its shards checked."""
        return Split(self.settings.data.dataset, TRAIN, manifest=self.manifest)

    @cached_property
    def micro_batches(self) -> tuple[int, int]:
        """Samples of a micro-batch, and micro-batches of a step on each process."""
        loop = self.settings.train
        return micro_batches(loop.global_batch_size, self.world_size, loop.micro_batch_size)

    # ---- the checks ----

    def batches(self) -> str:
        """Check the batch arithmetic, and where metrics go."""
        size, accumulation = self.micro_batches
        check_trackers(self.settings.train.trackers)
        return (
            f"{self.settings.train.global_batch_size} a step = {self.world_size} processes "
            f"x {accumulation} micro-batches of {size}"
        )

    def data(self) -> str:
        """Check labels, headers of all shards, augmentation, and the samples of an epoch."""
        settings = self.settings
        manifest = self.manifest
        folder = settings.data.dataset
        check_splits(folder, manifest, settings.train.best)

        train = self.train_split
        validation = Split(folder, VALIDATION, manifest=manifest)
        augmentation = make_augmentation(settings.augment, 0, settings.code)
        order = make_order(settings, train)
        model = settings.model
        for doubt in doubts(model, manifest):
            logger.warning(doubt)
        self._load_some(Samples(train, manifest, settings.data.image_scale, augmentation, model))

        shards = [*train.record.shards, *validation.record.shards]
        size = sum(shard.bytes for shard in shards)
        return (
            f"{len(train):,} training rows ({train.record.lenses:,} lenses), "
            f"{manifest.height} x {manifest.width} px, {', '.join(manifest.bands)}; "
            f"{size / 1e9:.2f} GB; {order.steps:,} steps an epoch"
        )

    def _load_some(self, samples: Samples) -> None:
        """Load and augment a few cutouts; an engine of one's own may fail at its first ones."""
        with Loader(samples, TRIED_BATCH, workers=0, device=torch.device("cpu")) as loader:
            try:
                next(loader(0, scoring_shares(TRIED_BATCH, TRIED_BATCH, 0, 1)))
            except UserError:
                raise
            except Exception as error:  # an engine of one's own fails in ways of its own
                raise UserError(
                    f"augment.engine = {self.settings.augment.engine}: the first cutouts cannot be "
                    f"loaded ({type(error).__name__}: {error})"
                ) from error

    def model(self) -> str:
        """Check initial weights and a training step; estimate the memory of a device."""
        settings = self.settings
        model = build_initial_model(settings, self.manifest)

        micro_batch_size, accumulation = self.micro_batches
        step = Step(settings, self.manifest, micro_batch_size, accumulation, self.world_size)
        trial = step.try_on(model)
        memory = estimate_memory(step, model, trial)

        tried = f"training works in micro-batches of {micro_batch_size}"
        if trial.why_few:
            tried = f"training works in small micro-batches, others are untried ({trial.why_few})"
        return f"{count_weights(model) / 1e6:.1f} million weights; {tried}; {memory}"

    def run_folder(self) -> str:
        """Check that the run can begin or go on, and that its disk has room for checkpoints."""
        settings = self.settings
        check_same_run(settings, self.manifest)

        need = self._bytes_on_disk()
        run = settings.run
        existing = next(path for path in [run, *run.absolute().parents] if path.is_dir())
        free = shutil.disk_usage(existing).free
        if need > free:
            raise UserError(
                f"run = {run}: checkpoints need {need / 1e6:,.0f} MB, its disk has "
                f"{free / 1e6:,.0f} MB free; choose another disk, or a smaller checkpoint.keep"
            )
        return (
            f"{run}: checkpoints and weights take {need / 1e6:,.0f} MB of {free / 1e6:,.0f} MB free"
        )

    def _bytes_on_disk(self) -> int:
        """Return what checkpoints, one more while it is written, and two exports take."""
        settings = self.settings
        model = build_model(without_weights(settings.model), self.manifest, settings.code)
        weights_bytes = count_weights(model) * FLOAT32_BYTES

        copies = 3  # weights and two moments
        if settings.optim.ema_decay:
            copies += 1
        return weights_bytes * (copies * (settings.checkpoint.keep + 1) + 2)


def count_weights(model: nn.Module) -> int:
    """Return the number of trainable values of a model."""
    return sum(parameter.numel() for parameter in model.parameters())


def world_size_of(script: Path) -> int:
    """Return nodes times GPUs a node, as the #SBATCH lines of a batch script ask for them.

    Raises UserError when they do not say.
    """
    try:
        text = script.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"sbatch = {script}: cannot be read: {error.strerror}") from error

    lines = "\n".join(line for line in text.splitlines() if line.startswith("#SBATCH"))
    nodes = re.search(r"(?:--nodes[= ]|-N *)(\d+)", lines)
    gpus = re.search(r"(?:--gpus-per-node[= ]|--gres[= ]gpu:)(?:[a-zA-Z]\w*:)?(\d+)", lines)
    if not gpus:
        raise UserError(
            f"sbatch = {script}: no #SBATCH line asks for GPUs (--gpus-per-node=N); "
            "give world_size=N instead"
        )
    return (int(nodes[1]) if nodes else 1) * int(gpus[1])
