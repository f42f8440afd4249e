"""How fast does our trainer step, beside bare loops over the same model?

    python benchmarks/train.py [rows=1920] [repeats=3] [figure=docs/train.png]

The fusion model on a ResNet18, float32, batches of 32 cutouts of 3 x 64 x 64, on the CPU of this machine, in turn, each
in a process of its own: our `train` (second epoch of two, a checkpoint every 20 steps, logging, two loader threads); a
bare loop of forward, backward and AdamW on batches that lie in memory; and a loop as timm's train.py has it (a running
mean that is read each step, the schedule updated each step) on a torch DataLoader of .npy files with albumentations and
two workers, as most would do it.
"""

import json
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

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from loader import write_shards  # noqa: E402
from loader_peers import IMAGE, N_FEATURES, WAYS  # noqa: E402

from lens_hpc import config  # noqa: E402
from lens_hpc.data.shards import read_manifest  # noqa: E402
from lens_hpc.engine import optim, weights  # noqa: E402

BATCH = 32
NPY = "npy+albumentations"
OURS, BARE, TIMM = "lens_hpc train", "bare loop, batches in memory", "timm's loop, DataLoader"


def settings_for(folder: Path) -> config.Train:
    """Of our run, and of the model and optimizer of the others."""
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
    """What the second epoch's record says."""
    with tempfile.TemporaryDirectory(dir=folder) as run:
        file = Path(run) / "config.yaml"
        file.write_text(config.dump(settings_for(folder)))
        command = [sys.executable, "-m", "lens_hpc", "train", str(file), f"run={run}/run"]
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        return json.loads((Path(run) / "run" / "metrics.jsonl").read_text().splitlines()[-1])


def parts(folder: Path) -> tuple[torch.nn.Module, torch.nn.Module, torch.optim.Optimizer]:
    """The same model, loss and optimizer."""
    settings = settings_for(folder)
    model = weights.make_model(settings.model, read_manifest(settings.data.dataset)).train()
    return model, optim.Loss(settings.loss), optim.make_optimizer(model, settings.optim)


def bare(folder: Path) -> dict[str, float]:
    """Forward, backward, step."""
    model, loss, optimizer = parts(folder)
    rng = np.random.default_rng(0)
    batches = [
        (torch.rand(BATCH, *IMAGE), torch.rand(BATCH, N_FEATURES), torch.from_numpy(rng.integers(0, 2, BATCH)).float())
        for _ in range(8)
    ]
    steps = len(list((folder / "npy").glob("[0-9]*.npy"))) // BATCH

    def epoch() -> int:
        for step in range(steps):
            images, features, labels = batches[step % len(batches)]
            loss(model(images, features), labels).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return steps * BATCH

    return second_epoch(epoch)


def timms(folder: Path) -> dict[str, float]:
    """Its bookkeeping around the same step."""
    model, loss, optimizer = parts(folder)
    schedule, meter = CosineLRScheduler(optimizer, t_initial=1000), AverageMeter()
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
            done += 1
            meter.update(value.item(), len(images))
            schedule.step_update(num_updates=done)
            samples += len(images)
        return samples

    return second_epoch(epoch)


def second_epoch(epoch: Callable[[], int]) -> dict[str, float]:
    """Cutouts a second."""
    epoch()
    began = time.perf_counter()
    return {"cutouts_per_second": epoch() / (time.perf_counter() - began)}


WAYS_TO_TRAIN = {OURS: ours, BARE: bare, TIMM: timms}


def main(rows: int, repeats: int, figure: str) -> None:
    """Print medians and the ratios that we hold ourselves to."""
    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name), np.random.default_rng(0)
        images, features = (rng.standard_normal((rows, *shape), np.float32) for shape in (IMAGE, (N_FEATURES,)))
        labels = rng.integers(0, 2, rows).astype(np.int8)
        for place, write in ((folder / "ours", write_for_training), (folder / "npy", WAYS[NPY].write)):
            place.mkdir()
            write(place, images, features, labels)
        found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS_TO_TRAIN}
        for _ in range(repeats):
            for way in WAYS_TO_TRAIN:
                command = [sys.executable, __file__, "measure", way, str(folder)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found[way].append(json.loads(done.stdout.splitlines()[-1]))
    median = {way: statistics.median(one["cutouts_per_second"] for one in found[way]) for way in found}
    for way, rate in median.items():
        print(f"{way:<32}{rate:>8.1f} cutouts/s")
    print(f"{OURS} / bare loop: {median[OURS] / median[BARE]:.3f} (at least 0.97)")
    print(f"{OURS} / timm's loop: {median[OURS] / median[TIMM]:.2f} (at least 1.0)")
    shares = {
        what: statistics.median(one[what] for one in found[OURS]) for what in ("waiting_for_data", "saving", "logging")
    }
    print("shares of our time: " + ", ".join(f"{what.replace('_', ' ')} {share:.2%}" for what, share in shares.items()))
    if figure:
        draw(Path(figure), median, shares)


def write_for_training(place: Path, images: np.ndarray, features: np.ndarray, labels: np.ndarray) -> None:
    """All rows for training, and some of them again to validate on."""
    write_shards(place, images, features, labels, "{train: 0.9, val: 0.1}")


def draw(file: Path, median: dict[str, float], shares: dict[str, float]) -> None:
    """Bars of cutouts a second, with the shares of our time beneath."""
    import matplotlib.pyplot as plt

    canvas, axis = plt.subplots(figsize=(7.5, 1.9), layout="constrained")
    ways = sorted(median, key=median.get)
    bars = axis.barh(ways, [median[way] for way in ways], color=["#c8102e" if w == OURS else "#9db4c0" for w in ways])
    axis.bar_label(bars, fmt="%.0f", padding=3, fontsize=9)
    told = ", ".join(f"{what.replace('_', ' ')} {share:.1%}" for what, share in shares.items())
    axis.set_title(f"cutouts a second, ResNet18 fusion model on two CPU cores\n(ours: {told})", loc="left", fontsize=10)
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    axis.set_xticks([])
    axis.tick_params(left=False, labelsize=9)
    canvas.savefig(file, dpi=160)


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(WAYS_TO_TRAIN[sys.argv[2]](Path(sys.argv[3]))))
    else:
        options = dict(argument.split("=", 1) for argument in sys.argv[1:])
        main(int(options.get("rows", 1920)), int(options.get("repeats", 3)), options.get("figure", ""))
