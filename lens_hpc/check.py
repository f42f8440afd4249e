"""check: before the queue, everything of a training that could fail later.

Each check prints what it found; all problems come together at the end, with exit status 2.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from lens_hpc import UserError, config
from lens_hpc.data.augment import Augmentation
from lens_hpc.data.loader import Batch, Loader, Samples
from lens_hpc.data.order import micro_batches, scoring_shares
from lens_hpc.data.reader import Split
from lens_hpc.data.shards import read_manifest
from lens_hpc.engine import optim, weights
from lens_hpc.engine.dataset import SPLITS, check_labels
from lens_hpc.engine.run_folder import check_same_run
from lens_hpc.engine.trainer import make_order

BYTES_OF_A_WEIGHT = 16  # float32 of the weight, its gradient and AdamW's two moments
TRIED_BATCH = 2


def run(config_file: Path, overrides: list[str]) -> None:
    """Check the config, its data, weights, batches, run folder, disk and memory. UserError lists every problem."""
    settings = config.load(config.Check, config_file, overrides)
    if settings.sbatch:
        settings = settings.model_copy(update={"world_size": world_size_of(settings.sbatch)})
    problems: dict[str, None] = {}
    for name, check in {"batches": batches, "data": data, "model": model, "run folder": run_folder}.items():
        if problem := outcome(name, check, settings):
            problems[problem] = None  # one that two checks meet is told once
    if problems:
        raise UserError("not ready:\n  " + "\n  ".join(problems))
    print(f"{config_file}: ready for {settings.world_size} processes")


def outcome(name: str, check: Callable[[config.Check], str], settings: config.Check) -> str:
    """Print what a check found, or return its problem."""
    try:
        found = check(settings)
    except UserError as error:
        return str(error)
    print(f"  {name:<12}{found}")
    return ""


def batches(settings: config.Check) -> str:
    """Batch arithmetic for the wanted number of processes."""
    loop = settings.train
    micro, accumulation = micro_batches(loop.global_batch_size, settings.world_size, loop.micro_batch_size)
    return (
        f"{loop.global_batch_size} a step = {settings.world_size} processes x {accumulation} micro-batches of {micro}"
    )


def data(settings: config.Check) -> str:
    """Labels, headers of all shards, and enough samples for a step; how cutouts are augmented."""
    folder = settings.data.dataset
    manifest = read_manifest(folder)
    for name in SPLITS:
        check_labels(folder, manifest, name)
    splits = [Split(folder, name) for name in SPLITS]
    Augmentation(settings.augment, 0).check(manifest.height, manifest.width)
    order = make_order(settings, splits[0])
    lenses, bands = splits[0].record.lenses, ", ".join(manifest.bands)
    size = sum(shard.bytes for split in splits for shard in split.record.shards)
    return (
        f"{len(splits[0]):,} training rows ({lenses:,} lenses), {manifest.height} x {manifest.width} px, {bands}; "
        f"{size / 1e9:.2f} GB; {order.steps:,} steps an epoch"
    )


def model(settings: config.Check) -> str:
    """Initial weights, one step on two samples, and the memory that a device will need."""
    split = Split(settings.data.dataset, "train")
    made = weights.make_model(settings.model, split.manifest)
    samples = Samples(split, split.manifest, settings.data.image_scale)
    batch = next(
        Loader(samples, TRIED_BATCH, 0, torch.device("cpu"))(0, scoring_shares(TRIED_BATCH, TRIED_BATCH, 0, 1))
    )
    count = sum(parameter.numel() for parameter in made.parameters())
    micro, _ = micro_batches(settings.train.global_batch_size, settings.world_size, settings.train.micro_batch_size)
    half = 0.5 if settings.train.precision != "no" else 1.0
    activations = bytes_kept(made, batch, optim.Loss(settings.loss)) / TRIED_BATCH * micro * half
    need = count * BYTES_OF_A_WEIGHT + activations
    return (
        f"{count / 1e6:.1f} million weights; about {need / 1e9:.1f} GB of memory a GPU (an estimate), and PyTorch's own"
    )


def bytes_kept(made: torch.nn.Module, batch: Batch, loss: torch.nn.Module) -> int:
    """Bytes that a forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss(made(batch.images, batch.features), batch.labels).mean().backward()
    return sum(kept.values())


def run_folder(settings: config.Check) -> str:
    """Whether the run can be begun or gone on with, and whether its disk has room for its checkpoints."""
    manifest = read_manifest(settings.data.dataset)
    check_same_run(config.Train.model_validate(settings.model_dump(exclude={"world_size", "sbatch"})), manifest)
    made = weights.make_model(settings.model.model_copy(update={"weights": "none"}), manifest)
    size = sum(parameter.numel() for parameter in made.parameters()) * 4
    need = size * ((3 + bool(settings.optim.ema_decay)) * (settings.checkpoint.keep + 1) + 2)
    existing = next(path for path in [settings.run, *settings.run.absolute().parents] if path.is_dir())
    free = shutil.disk_usage(existing).free
    if need > free:
        raise UserError(
            f"run = {settings.run}: checkpoints need {need / 1e6:,.0f} MB, its disk has {free / 1e6:,.0f} MB free; "
            "choose another disk, or a smaller checkpoint.keep"
        )
    return f"{settings.run}: checkpoints and weights take {need / 1e6:,.0f} MB of {free / 1e6:,.0f} MB free"


def world_size_of(script: Path) -> int:
    """Nodes times GPUs a node, as the #SBATCH lines ask for them. UserError when they do not say."""
    try:
        text = script.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"sbatch = {script}: cannot be read: {error.strerror}") from error
    lines = "\n".join(line for line in text.splitlines() if line.startswith("#SBATCH"))
    nodes = re.search(r"(?:--nodes[= ]|-N *)(\d+)", lines)
    gpus = re.search(r"(?:--gpus-per-node[= ]|--gres[= ]gpu:)(?:[a-zA-Z]\w*:)?(\d+)", lines)
    if not gpus:
        raise UserError(
            f"sbatch = {script}: no #SBATCH line asks for GPUs (--gpus-per-node=N); give world_size=N instead"
        )
    return (int(nodes[1]) if nodes else 1) * int(gpus[1])
