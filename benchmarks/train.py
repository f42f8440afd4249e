"""How fast does our trainer step, beside bare loops over the same model?

    python benchmarks/train.py [rows=1920] [repeats=3] [figure=docs/train.png]

The fusion model on a ResNet18, float32, batches of 32 cutouts of 3 x 64 x 64, on the CPU of this
machine, in turn, each in a process of its own:

- our `train`: second epoch of two, a checkpoint every 20 steps, logging, two loader threads;
- a bare loop of forward, backward and AdamW on batches that lie in memory;
- a loop as timm's train.py has it (a running mean that is read each step, the schedule updated each
  step) on a torch DataLoader of .npy files with albumentations and two workers, as most would.

And on two ranks with gloo, one core and 16 cutouts for each:

- our `train` under `accelerate launch`, with one loader thread a rank;
- a bare loop with DistributedDataParallel, which does not broadcast buffers either.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.utils.metrics import AverageMeter
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from loader import write_shards  # noqa: E402
from loader_peers import IMAGE, N_FEATURES, WAYS  # noqa: E402

from lens_hpc import config, layout  # noqa: E402
from lens_hpc import settings as reading  # noqa: E402
from lens_hpc.dataset.manifest import read_manifest  # noqa: E402
from lens_hpc.model.build import build_model  # noqa: E402
from lens_hpc.training.optimizer import BinaryLoss, make_optimizer  # noqa: E402

BATCH = 32
NPY = "npy+albumentations"
OURS, BARE, TIMM = "lens_hpc train", "bare loop, batches in memory", "timm's loop, DataLoader"
OURS_2, BARE_2 = "lens_hpc train, two ranks", "bare DDP loop, two ranks"
RANKS = 2


def settings_for(folder: Path) -> config.Train:
    """Return the settings of our run, and of the model and optimizer of the others."""
    return config.Train.model_validate(
        {
            "run": folder / "run",
            "data": {"dataset": folder / "ours" / "shards", "workers": 2},
            "augment": {"engine": "torch"},
            "model": {"backbone": "resnet18", "weights": "none"},
            "train": {"epochs": 2, "global_batch_size": BATCH},
            "checkpoint": {"every_steps": 20},
        }
    )


def ours(folder: Path) -> dict[str, float]:
    """Train, and return what was recorded of the second epoch."""
    return train(folder, [sys.executable])


def ours_on_two_ranks(folder: Path) -> dict[str, float]:
    """Train on two ranks, and return what was recorded of the second epoch."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0"]
    launch += ["--config_file", str(ROOT / "configs" / "accelerate" / "cpu.yaml")]
    return train(folder, launch, "data.workers=1")


def train(folder: Path, launcher: list[str], *overrides: str) -> dict[str, float]:
    """Train by our command."""
    with tempfile.TemporaryDirectory(dir=folder) as parent:
        run = Path(parent) / "run"
        file = Path(parent) / "config.yaml"
        file.write_text(reading.dump(settings_for(folder)))
        command = [*launcher, "-m", "lens_hpc", "train", str(file), f"run={run}", *overrides]
        environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=environment)
        return json.loads((run / layout.METRICS_LOG).read_text().splitlines()[-1])


def make_parts(folder: Path) -> tuple[torch.nn.Module, torch.nn.Module, torch.optim.Optimizer]:
    """Make the same model, loss and optimizer as our trainer."""
    settings = settings_for(folder)
    model = build_model(settings.model, read_manifest(settings.data.dataset)).train()
    return model, BinaryLoss(settings.loss), make_optimizer(model, settings.optim)


def bare(folder: Path) -> dict[str, float]:
    """Measure forward, backward and step alone."""
    model, loss, optimizer = make_parts(folder)
    return second_epoch(bare_epoch(folder, model, loss, optimizer, ranks=1))


def bare_on_two_ranks(folder: Path) -> dict[str, float]:
    """Measure the same under DDP; this process is one of the ranks."""
    distributed.init_process_group("gloo")
    model, loss, optimizer = make_parts(folder)
    wrapped = DistributedDataParallel(model, broadcast_buffers=False)
    found = second_epoch(bare_epoch(folder, wrapped, loss, optimizer, ranks=RANKS))
    distributed.destroy_process_group()
    return found


def bare_epoch(
    folder: Path,
    model: torch.nn.Module,
    loss: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    ranks: int,
) -> Callable[[], int]:
    """Return an epoch of as many steps as ours has, on batches that lie in memory."""
    share = BATCH // ranks
    rng = np.random.default_rng(0)
    batches = []
    for _ in range(8):
        labels = torch.from_numpy(rng.integers(0, 2, share)).float()
        batches.append((torch.rand(share, *IMAGE), torch.rand(share, N_FEATURES), labels))
    steps = len(list((folder / "npy").glob("[0-9]*.npy"))) // BATCH

    def epoch() -> int:
        for step in range(steps):
            images, features, labels = batches[step % len(batches)]
            loss(model(images, features), labels).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return steps * BATCH

    return epoch


def timms(folder: Path) -> dict[str, float]:
    """Measure timm's bookkeeping around the same step."""
    model, loss, optimizer = make_parts(folder)
    schedule = CosineLRScheduler(optimizer, t_initial=1000)
    meter = AverageMeter()
    loader: Iterable = WAYS[NPY].batches(folder / "npy", BATCH, 2)
    done = 0

    def epoch() -> int:
        nonlocal done
        samples = 0
        for images, features, labels in loader:
            optimizer.zero_grad()
            value = loss(model(images, features), labels.float()).mean()
            value.backward()
            optimizer.step()

            # What its train.py does after each step.
            done += 1
            meter.update(value.item(), len(images))
            schedule.step_update(num_updates=done)
            samples += len(images)
        return samples

    return second_epoch(epoch)


def second_epoch(epoch: Callable[[], int]) -> dict[str, float]:
    """Return the cutouts a second of the second of two epochs."""
    epoch()
    began = time.perf_counter()
    cutouts = epoch()
    return {"cutouts_per_second": cutouts / (time.perf_counter() - began)}


WAYS_TO_TRAIN = {
    OURS: ours,
    BARE: bare,
    TIMM: timms,
    OURS_2: ours_on_two_ranks,
    BARE_2: bare_on_two_ranks,
}


def main(rows: int, repeats: int, figure: str) -> None:
    """Print medians and the ratios that we hold ourselves to."""
    with tempfile.TemporaryDirectory() as name:
        write_data(Path(name), rows)
        found = measure(Path(name), repeats)

    median = {}
    for way, measured in found.items():
        median[way] = statistics.median(one["cutouts_per_second"] for one in measured)
        print(f"{way:<32}{median[way]:>8.1f} cutouts/s")
    print(f"{OURS} / bare loop: {median[OURS] / median[BARE]:.3f} (at least 0.97)")
    print(f"{OURS} / timm's loop: {median[OURS] / median[TIMM]:.2f} (at least 1.0)")
    print(f"two ranks / bare DDP loop: {median[OURS_2] / median[BARE_2]:.3f} (at least 0.95)")

    shares = {
        what: statistics.median(one[what] for one in found[OURS])
        for what in ("waiting_for_data", "saving", "logging")
    }
    listed = [f"{what.replace('_', ' ')} {share:.2%}" for what, share in shares.items()]
    print(f"shares of our time: {', '.join(listed)}")
    if figure:
        draw(Path(figure), median, shares)


def write_data(folder: Path, rows: int) -> None:
    """Write the same random cutouts as shards and as .npy files."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((rows, *IMAGE), np.float32)
    features = rng.standard_normal((rows, N_FEATURES), np.float32)
    labels = rng.integers(0, 2, rows).astype(np.int8)

    (folder / "ours").mkdir()
    # All rows are for training but a tenth, to validate on.
    write_shards(folder / "ours", images, features, labels, "{train: 0.9, val: 0.1}")
    (folder / "npy").mkdir()
    WAYS[NPY].write(folder / "npy", images, features, labels)


def measure(folder: Path, repeats: int) -> dict[str, list[dict[str, float]]]:
    """Measure each way to train some times, in turn."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS_TO_TRAIN}
    for _ in range(repeats):
        for way, measured in found.items():
            launcher = [sys.executable]
            if way == BARE_2:
                launcher += [
                    "-m",
                    "torch.distributed.run",
                    "--standalone",
                    f"--nproc-per-node={RANKS}",
                ]
            command = [*launcher, __file__, "measure", way, str(folder)]
            # What our command sets for itself, so that only the loops differ.
            environment = os.environ | {"GOMP_SPINCOUNT": "1000"}
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, env=environment
            )
            measured.append(json.loads(done.stdout.splitlines()[-1]))
    return found


def draw(file: Path, median: dict[str, float], shares: dict[str, float]) -> None:
    """Draw bars of cutouts a second, with the shares of our time beneath."""
    import matplotlib.pyplot as plt

    canvas, axis = plt.subplots(figsize=(7.5, 1.9), layout="constrained")
    ways = sorted((OURS, BARE, TIMM), key=lambda way: median[way])
    colours = ["#c8102e" if way == OURS else "#9db4c0" for way in ways]
    bars = axis.barh(ways, [median[way] for way in ways], color=colours)
    axis.bar_label(bars, fmt="%.0f", padding=3, fontsize=9)

    listed = ", ".join(f"{what.replace('_', ' ')} {share:.1%}" for what, share in shares.items())
    title = f"cutouts a second, ResNet18 fusion model on two CPU cores\n(ours: {listed})"
    axis.set_title(title, loc="left", fontsize=10)
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    axis.set_xticks([])
    axis.tick_params(left=False, labelsize=9)
    canvas.savefig(file, dpi=160)


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        measured = WAYS_TO_TRAIN[sys.argv[2]](Path(sys.argv[3]))
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(measured))
    else:
        options = dict(argument.split("=", 1) for argument in sys.argv[1:])
        main(
            int(options.get("rows", 1920)),
            int(options.get("repeats", 3)),
            options.get("figure", ""),
        )
