#!/usr/bin/env python3
"""Everything that one real GPU can tell about lens_hpc, in one command of at most eight minutes.

    python3 tests/gpu/accept.py OUT [CHECK ...]     all checks, or those that are named
    python3 tests/gpu/accept.py OUT --dry           the script itself, tiny, on a CPU
    python3 tests/gpu/accept.py OUT --dry --bare    and without what the GPU machine lacks

It needs no network and no installed lens_hpc: wheels.sh downloads what a machine with torch may
lack. A table is printed as it goes, and OUT/accept.json is written after each check. Data and runs
lie in a temporary folder. The exit status is 1 if a check failed.

A check is a function with a budget in seconds. What it finds it notes; an assertion that does not
hold makes it fail, and the next one goes on. A fault that is known, and waits for its repair, is
noted as such and fails nothing.
"""

import argparse
import copy
import json
import logging
import math
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import repeat
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

TOTAL_SECONDS = 8 * 60
STOPPED_STATUS = 85
SHOWN_KERNELS = 6
MISSING_ON_THE_GPU_MACHINE = ("albumentations", "astropy", "caskade", "caustics", "erfa")

CONFIG = """
run: unnamed
data: {{dataset: {dataset}, workers: {workers}}}
augment: {{engine: torch}}
model: {{backbone: {backbone}, weights: none}}
train:
  {{epochs: 1, global_batch_size: 128, precision: bf16, channels_last: true, trackers: []}}
"""
RECIPE = """
name: blobs
catalogue: catalogue.csv
columns: {{id: id, label: is_lens, features: [a, b]}}
stack: stack.npy
bands: [g, r, i]
pixel_scale: 0.2
units: counts
splits: {{train: 0.8, val: 0.1, test: 0.1}}
compression: {compression}
"""


@dataclass(frozen=True)
class Sizes:
    """How large everything is that is tried."""

    backbone: str = "resnet50"
    small_backbone: str = "resnet18"
    sync_backbone: str = "efficientnet_b0"
    pixels: int = 64
    rows: int = 4000
    rows_for_speed: int = 12000
    augmented: int = 300
    batch: int = 128
    batches: tuple[int, ...] = (128, 256, 512, 1024)
    batch_for_options: int = 256
    steps_to_learn: int = 100
    cutouts_timed: int = 10000
    busy_side: int = 8192
    workers: int = 8
    epochs: int = 3
    stop_after_minutes: float = 0.02
    seconds_factor: float = 1.0


TINY = Sizes(
    backbone="test_resnet",
    small_backbone="test_resnet",
    pixels=24,
    rows=400,
    rows_for_speed=400,
    augmented=20,
    batch=16,
    batches=(8, 16),
    batch_for_options=16,
    steps_to_learn=40,
    cutouts_timed=64,
    busy_side=64,
    workers=2,
    epochs=2,
    seconds_factor=10.0,
)


# ---- the checks, and what they work with ----


class LeftOut(Exception):  # noqa: N818 - it is no error
    """A check cannot be made here, for this reason."""


@dataclass(frozen=True)
class Check:
    """A function that finds something out, and the seconds that it may take."""

    function: Callable[["Lab"], None]
    seconds: float

    @property
    def name(self) -> str:
        """Name on the command line and in the table."""
        return self.function.__name__


CHECKS: list[Check] = []


def check(seconds: float) -> Callable[[Callable[["Lab"], None]], Callable[["Lab"], None]]:
    """Make a function one of the checks."""

    def add(function: Callable[["Lab"], None]) -> Callable[["Lab"], None]:
        CHECKS.append(Check(function, seconds))
        return function

    return add


@dataclass
class Lab:
    """Where a check works: the device, the sizes, the folders, and what was found so far."""

    device: torch.device
    sizes: Sizes
    scratch: Path
    facts: dict[str, Any] = field(default_factory=dict)
    """What the present check has found."""
    commands: list["Command"] = field(default_factory=list)
    """What the present check has started."""

    @property
    def has_gpu(self) -> bool:
        """Whether there is a GPU; else the script itself is being tried."""
        return self.device.type == "cuda"

    def note(self, **facts: Any) -> None:
        """Keep and print what was found."""
        for name, value in facts.items():
            self.facts[name] = value
            print(f"    {name:<28} {value}", flush=True)

    def known_fault(self, text: str) -> None:
        """Note a fault that is known and waits for its repair."""
        self.facts.setdefault("known", []).append(text)
        print(f"    KNOWN FAULT: {text}", flush=True)

    def wait(self) -> None:
        """Wait until the device has done all its work."""
        if self.has_gpu:
            torch.cuda.synchronize(self.device)

    # ---- data and settings ----

    def dataset(self, rows: int | None = None, compression: str = "none") -> Path:
        """Return a packed dataset of noise, with a blob for a lens; it is made only once."""
        rows = rows or self.sizes.rows
        folder = self.scratch / f"data-{rows}-{compression}"
        packed = folder / "packed"
        if not (packed / "manifest.json").is_file():
            write_survey(folder, rows, self.sizes.pixels, compression)
            options = [f"source={folder}", f"output={packed}", f"processes={self.sizes.workers}"]
            self.lens_hpc("pack", str(folder / "recipe.yaml"), *options)
        return packed

    def config_file(self) -> Path:
        """Write the settings that all trainings here begin with."""
        file = self.scratch / "config.yaml"
        text = CONFIG.format(
            dataset=self.dataset(), workers=self.sizes.workers, backbone=self.sizes.backbone
        )
        file.write_text(text)
        return file

    def settings(self, *overrides: str) -> Any:
        """Read settings of a training as `lens-hpc train` does, in batches of our size."""
        from lens_hpc import config
        from lens_hpc import settings as reading

        batch = f"train.global_batch_size={self.sizes.batch}"
        run = f"run={self.scratch / 'none'}"
        return reading.load(config.Train, self.config_file(), [batch, run, *overrides])

    @contextmanager
    def trainer(self, *overrides: str) -> Iterator[Any]:
        """Yield a Trainer in a session of its own; the GPU's memory is given back after it."""
        from lens_hpc.dataset.manifest import read_manifest
        from lens_hpc.training.accelerator import accelerator_session
        from lens_hpc.training.trainer import make_trainer

        settings = self.settings(*overrides)
        manifest = read_manifest(settings.data.dataset)
        with (
            accelerator_session(settings) as accelerator,
            make_trainer(settings, accelerator, manifest) as trainer,
        ):
            trainer.model.train()
            yield trainer
        if self.has_gpu:
            del trainer
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def precisions(self) -> list[str]:
        """Return the precisions that the device can train in."""
        return ["no", "bf16", "fp16"] if self.has_gpu else ["no", "bf16"]

    # ---- commands ----

    def start(self, *words: str, **environment: str) -> "Command":
        """Start a command of lens_hpc in a process of its own."""
        command = Command(words, os.environ | environment)
        self.commands.append(command)
        return command

    def lens_hpc(self, *words: str, **environment: str) -> int:
        """Run a command of lens_hpc to its end, and return its status."""
        return self.start(*words, **environment).wait()

    def start_training(self, run: Path, *overrides: str, **environment: str) -> "Command":
        """Start a training of a small model."""
        small = f"model.backbone={self.sizes.small_backbone}"
        batch = f"train.global_batch_size={self.sizes.batch}"
        words = ["train", str(self.config_file()), f"run={run}", small, batch, "data.workers=2"]
        return self.start(*words, *overrides, **environment)


class Command:
    """A command of lens_hpc that runs."""

    def __init__(self, words: Sequence[str], environment: dict[str, str]) -> None:
        self.words = words
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lens_hpc", *words],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self) -> int:
        """Return the status of a command that ended or was stopped; raise if it failed."""
        _, said = self._process.communicate()
        status = self._process.returncode
        if status not in (0, STOPPED_STATUS):
            raise RuntimeError(f"lens_hpc {self.words[0]} ended with {status}:\n{said[-3000:]}")
        return status

    def end(self) -> None:
        """Kill the process if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def write_survey(folder: Path, rows: int, pixels: int, compression: str) -> None:
    """Write a stack of noise in three bands, half of it with a blob, its catalogue and recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, rows)
    images = rng.standard_normal((rows, 3, pixels, pixels), dtype=np.float32)
    blob = slice(pixels // 2 - 3, pixels // 2 + 3)
    images[labels == 1, :, blob, blob] += 1.5
    np.save(folder / "stack.npy", images)

    lines = ["id,is_lens,a,b"]
    for row, label in enumerate(labels):
        lines.append(f"x{row},{label},{rng.normal():.4f},{rng.normal() + 0.2 * label:.4f}")
    (folder / "catalogue.csv").write_text("\n".join(lines) + "\n")
    (folder / "recipe.yaml").write_text(RECIPE.format(compression=compression))


def endless_batches(trainer: Any) -> Iterator[Any]:
    """Yield the training batches of all epochs."""
    from lens_hpc.training.bottleneck import endless_shares

    return trainer.train_loader(0, endless_shares(trainer))


def one_batch(trainer: Any) -> Any:
    """Return a batch that stays valid."""
    from lens_hpc.loading.loader import Batch

    batches = endless_batches(trainer)
    first = next(batches)
    tensors = [tensor.clone() for tensor in first[:4]]
    batches.close()
    return Batch(*tensors, first.draws)


@contextmanager
def convolutions(tf32: bool) -> Iterator[None]:
    """Let cuDNN's float32 convolutions be TF32, as torch's default is, or not, meanwhile."""
    flags: Any = torch.backends.cudnn.conv
    before = flags.fp32_precision
    flags.fp32_precision = "tf32" if tf32 else "ieee"
    try:
        yield
    finally:
        flags.fp32_precision = before


def largest_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the largest absolute difference, on the CPU and in float64."""
    return (one.detach().cpu().double() - other.detach().cpu().double()).abs().max().item()


@contextmanager
def warnings_by_place(pattern: str) -> Iterator[dict[str, int]]:
    """Count the warnings with these words, by the line of lens_hpc that each comes from."""
    places: dict[str, int] = {}

    def note(message: Warning | str, *_: Any, **__: Any) -> None:
        if not re.search(pattern, str(message)):
            return
        frames = [f for f in traceback.extract_stack() if f"{ROOT}/lens_hpc/" in f.filename]
        place = "elsewhere"
        if frames:
            place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].line}"
        places[place] = places.get(place, 0) + 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        yield places


# ---- correctness ----


@check(seconds=10)
def machine(lab: Lab) -> None:
    """Say what ran where."""
    packages = {}
    for name in ("torch", "timm", "accelerate", "numpy", "h5py", "pydantic", "deepspeed"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "none"
    lab.note(python=platform.python_version(), packages=packages, cores=os.cpu_count())
    lab.note(conv_tf32_by_default=torch.backends.cudnn.allow_tf32)
    lab.note(matmul_tf32_by_default=torch.backends.cuda.matmul.allow_tf32)
    if lab.has_gpu:
        _, total = torch.cuda.mem_get_info(lab.device)
        lab.note(gpu=torch.cuda.get_device_name(lab.device), memory_gb=round(total / 1e9, 1))
        lab.note(cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version())


@check(seconds=20)
def augmentation_is_that_of_the_cpu(lab: Lab) -> None:
    """Compare the pixels, for each extra, for one band and three, and for batches of one."""
    worst = 0.0
    worst_in_tf32 = 0.0
    for bands in (1, 3):
        for extra in ({}, {"rotate90": 0.5}, {"shift": 4}, {"noise": 0.02}):
            with convolutions(tf32=False):
                exact = augmentation_difference(lab, bands, extra)
            with convolutions(tf32=True):
                default = augmentation_difference(lab, bands, extra)
            name = f"bands_{bands}_{'_'.join(extra) or 'alone'}"
            lab.note(**{name: f"{exact:.1e}, with TF32 convolutions {default:.1e}"})
            worst = max(worst, exact)
            worst_in_tf32 = max(worst_in_tf32, default)

    assert worst < 1e-5, f"pixels differ by {worst:.1e} of the maximum"
    if worst_in_tf32 > 1e-5:
        lab.known_fault(f"the blur is TF32: pixels differ by {worst_in_tf32:.1e} of the maximum")


def augmentation_difference(lab: Lab, bands: int, extra: dict[str, float]) -> float:
    """Return by how much pixels differ at most, for one large batch and some batches of one."""
    from lens_hpc import config
    from lens_hpc.loading.augmentation import make_augmentation

    augmentation = make_augmentation(config.Augment(engine="torch", **extra), seed=3)
    count = lab.sizes.augmented
    side = lab.sizes.pixels
    images = torch.rand(count, bands, side, side, generator=torch.Generator().manual_seed(0))
    worst = 0.0
    for draws in [np.arange(count), *np.arange(12)[:, None]]:
        here = images[draws]
        there = here.to(lab.device, copy=True)
        augmentation(here, 1, draws)
        augmentation(there, 1, draws)
        worst = max(worst, largest_difference(there, here))
    return worst


@check(seconds=25)
def loader_gives_the_cpus_batches(lab: Lab) -> None:
    """Compare all batches while the device is kept busy: no buffer may be filled too early."""
    with convolutions(tf32=False), lab.trainer() as trainer:
        lab.note(threads=batches_differ_by(lab, trainer))


@check(seconds=40)
def loader_processes_give_the_cpus_batches(lab: Lab) -> None:
    """Compare them for compressed shards, too, which processes read into shared memory."""
    compressed = lab.dataset(lab.sizes.rows // 4, "lzf")
    options = [f"data.dataset={compressed}", "data.workers=2"]
    with convolutions(tf32=False), lab.trainer(*options) as trainer:
        assert trainer.train_loader.samples.need_processes
        lab.note(processes=batches_differ_by(lab, trainer))


def batches_differ_by(lab: Lab, trainer: Any) -> str:
    """Return how many batches of an epoch were compared, and the largest difference."""
    from lens_hpc.loading.loader import Loader

    shares = list(trainer.shares(0))
    load = torch.rand(lab.sizes.busy_side, lab.sizes.busy_side, device=lab.device)
    kept = []
    for batch in trainer.train_loader(0, iter(shares)):
        for _ in range(3):
            load = (load @ load).clamp_(-1, 1)
        kept.append([tensor.clone() for tensor in batch[:4]])

    worst = 0.0
    samples = trainer.train_loader.samples
    with Loader(samples, lab.sizes.batch, 0, torch.device("cpu")) as loader:
        for mine, theirs in zip(kept, loader(0, iter(shares)), strict=True):
            for here, there in zip(mine, theirs[:4], strict=True):
                worst = max(worst, largest_difference(here, there))
    assert worst < 1e-5, f"batches differ by {worst:.1e}"
    return f"{len(kept)} batches, largest difference {worst:.1e}"


@check(seconds=30)
def waits_of_a_step(lab: Lab) -> None:
    """Say where a training step waits for the GPU, as torch's own detector sees it."""
    waits = 0
    for options in (
        ["train.precision=no"],
        ["train.precision=bf16", "optim.ema_decay=0.999", "optim.gradient_clip=1.0"],
        ["train.precision=fp16", "optim.gradient_clip=1.0"],
    ):
        if "train.precision=fp16" in options and not lab.has_gpu:
            continue
        with lab.trainer(*options, "augment.shift=2", "augment.rotate90=0.2") as trainer:
            places = waits_of(lab, trainer)
            precision = trainer.settings.train.precision
            lab.note(**{f"waits_{precision}": sum(places.values())})
            for place, times in sorted(places.items()):
                lab.note(**{f"{precision}_{place}": times})
            waits += sum(places.values())
            if lab.has_gpu:
                assert trainer.optimizer.param_groups[0]["fused"], "AdamW is not fused"
    assert waits == 0, "a step waits for the GPU"


def waits_of(lab: Lab, trainer: Any) -> dict[str, int]:
    """Return where the fourth step waits for the GPU, and how often."""
    from lens_hpc.training.trainer import train_step

    batches = endless_batches(trainer)
    for step in range(3):
        train_step(trainer, step, batches)
    # Not the warning that the detector is a prototype.
    with warnings_by_place("synchronizing CUDA operation") as places:
        if lab.has_gpu:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            train_step(trainer, 3, batches)
        finally:
            if lab.has_gpu:
                torch.cuda.set_sync_debug_mode("default")
    batches.close()
    return places


@check(seconds=30)
def float32_is_true_float32(lab: Lab) -> None:
    """Compare what convolutions give with the CPU's float64, without train.tf32 and with it."""
    for tf32 in ("false", "true"):
        errors = float32_errors(lab, f"train.tf32={tf32}")
        lab.note(**{f"error_with_tf32_{tf32}": {key: f"{e:.1e}" for key, e in errors.items()}})
        assert tf32 == "true" or max(errors.values()) < 1e-4, "float32 is not float32"


def float32_errors(lab: Lab, *overrides: str) -> dict[str, float]:
    """Return the relative errors of a convolution and of a trained branch, as a training runs."""
    from lens_hpc.training.trainer import train_step

    options = ("train.precision=no", "train.channels_last=false", *overrides)
    with lab.trainer(*options) as trainer:
        # Untrained residual branches add nothing, so that there would be little to compare.
        batches = endless_batches(trainer)
        for step in range(10):
            train_step(trainer, step, batches)
        batches.close()
        images = one_batch(trainer).images[:32]
        branch = trainer.whole_model().image.eval()
        convolution = torch.nn.Conv2d(256, 256, 3, padding=1).to(lab.device)
        maps = torch.randn(32, 256, 16, 16, device=lab.device)

        return {
            "one_convolution": relative_error(convolution, maps),
            "image_branch": relative_error(branch, images),
        }


@torch.no_grad()
def relative_error(module: torch.nn.Module, inputs: torch.Tensor) -> float:
    """Return the largest error, against the CPU's float64, in standard deviations of the result."""
    exact_module = copy.deepcopy(module).cpu().double()
    exact = exact_module(inputs.cpu().double())
    return largest_difference(module(inputs), exact) / exact.std().item()


@check(seconds=60)
def learns_in_every_precision(lab: Lab) -> None:
    """Train some steps in each precision: the loss must fall, and begin alike in all."""
    first = {}
    for precision in lab.precisions():
        options = [f"train.precision={precision}", "optim.lr=1e-3", "optim.gradient_clip=1.0"]
        with lab.trainer(*options) as trainer:
            losses, skipped = losses_of(lab, trainer)
            scaler = trainer.accelerator.scaler
            first[precision] = losses[0]
            last = statistics.fmean(losses[-10:])
            lab.note(**{precision: f"loss {losses[0]:.4f} -> {last:.4f}"})
            if scaler:
                lab.note(steps_skipped=skipped, loss_scale=scaler.get_scale())
            assert all(map(math.isfinite, losses)), precision
            assert last < 0.9 * losses[0], f"{precision} does not learn"
    spread = max(first.values()) - min(first.values())
    assert spread < 0.02, f"first losses differ by {spread:.3f}"


def losses_of(lab: Lab, trainer: Any) -> tuple[list[float], int]:
    """Return the losses of some steps, and how many steps the loss scale made be skipped."""
    from lens_hpc.training.trainer import train_step

    batches = endless_batches(trainer)
    losses = []
    skipped = 0
    for step in range(lab.sizes.steps_to_learn):
        losses.append(train_step(trainer, step, batches).loss)
        if trainer.accelerator.scaler:
            skipped += bool(trainer.optimizer.step_was_skipped)
    batches.close()
    return torch.stack(losses).tolist(), skipped


def run_once(lab: Lab) -> Path:
    """Return a run that was trained to its end, which other checks use."""
    run = lab.scratch / "run-a"
    if not (run / "final" / "model.safetensors").is_file():
        lab.start_training(run, *run_options(lab)).wait()
    return run


def run_options(lab: Lab) -> list[str]:
    """Return the settings of the runs that are to be equal."""
    epochs = f"train.epochs={lab.sizes.epochs}"
    return [epochs, "optim.ema_decay=0.99", "train.deterministic=true"]


@check(seconds=90)
def equal_runs_and_resumed_runs(lab: Lab) -> None:
    """Train twice, and once stopped and resumed: are the weights equal to the bit?"""
    lab.config_file()  # the dataset is there before three commands want it
    options = run_options(lab)
    stop = f"train.max_minutes={lab.sizes.stop_after_minutes}"
    again, stopped = lab.scratch / "run-b", lab.scratch / "run-stopped"
    commands = [lab.start_training(again, *options), lab.start_training(stopped, *options, stop)]
    run = run_once(lab)
    statuses = [command.wait() for command in commands]
    was_stopped = statuses[1] == STOPPED_STATUS
    if was_stopped:
        lab.note(stopped_at=[path.name for path in (stopped / "checkpoints").glob("step-*[0-9]")])
        lab.start_training(stopped, *options).wait()

    equal = weights_differ_by(run, again)
    resumed = weights_differ_by(run, stopped)
    lab.note(was_stopped=was_stopped, equal_runs_differ_by=equal, resumed_run_differs_by=resumed)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lab.note(val_auc=[round(line["val_auc"], 4) for line in lines])
    lab.note(waiting_for_data=[round(line["waiting_for_data"], 3) for line in lines])
    assert was_stopped, "the run ended before it was to be stopped: resuming was not tried"
    assert not equal, "train.deterministic=true, and equal runs differ"
    assert not resumed, "train.deterministic=true, and a resumed run differs"


def weights_differ_by(one: Path, other: Path) -> float:
    """Return the largest difference between the final weights of two runs."""
    from safetensors.numpy import load_file

    here = load_file(one / "final" / "model.safetensors")
    there = load_file(other / "final" / "model.safetensors")
    return max(float(np.abs(here[name].astype(float) - there[name]).max()) for name in here)


@check(seconds=25)
def scores_agree(lab: Lab) -> None:
    """Compare Finder.score on the GPU and on the CPU with the logits that `evaluate` writes."""
    import lens_hpc

    run = run_once(lab)
    split = lens_hpc.Dataset(lab.dataset())["test"]
    rows = np.arange(len(split))
    arrays = split.take("images", rows), split.take("features", rows)

    here = lens_hpc.Finder.load(run, device="cpu").score(*arrays)
    scale = float(here.std())
    for tf32 in (False, True):
        with convolutions(tf32):
            there = lens_hpc.Finder.load(run, device=lab.device).score(*arrays)
            evaluated = lens_hpc.evaluate(run).to_pandas().sort_values("index")["logit"].to_numpy()
        to_cpu = float(np.abs(there - here).max()) / scale
        to_evaluate = float(np.abs(there - evaluated).max()) / scale
        lab.note(**{f"finder_to_cpu_tf32_{tf32}".lower(): f"{to_cpu:.1e} of the spread"})
        lab.note(**{f"finder_to_evaluate_tf32_{tf32}".lower(): f"{to_evaluate:.1e}"})
        # Scores keep all bits of float32, whatever the process has set.
        assert to_evaluate < 1e-4, "Finder and evaluate differ"
        assert to_cpu < 1e-4, "GPU and CPU differ"


def world_of_one(port: int, **more: str) -> dict[str, str]:
    """Return what a launcher tells a process that is alone."""
    names = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    return names | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)} | more


@check(seconds=15)
def sync_batchnorm_keeps_the_model(lab: Lab) -> None:
    """Make a model with train.sync_batchnorm and without: the same weights, the same logits."""
    logits = []
    for sync in ("false", "true"):
        backbone = f"model.backbone={lab.sizes.sync_backbone}"
        options = [backbone, f"train.sync_batchnorm={sync}", "train.precision=no"]
        with lab.trainer(*options, "train.channels_last=false") as trainer, torch.no_grad():
            batch = one_batch(trainer)
            model = trainer.whole_model().eval()
            logits.append(model.image(batch.images))
    error = largest_difference(*logits) / logits[0].std().item()
    lab.note(image_branch_differs_by=f"{error:.1e} of its spread")
    assert error < 1e-4, "train.sync_batchnorm makes another model (timm's activations are lost?)"


@check(seconds=50)
def one_process_of_nccl(lab: Lab) -> None:
    """Train and evaluate in a world of one: NCCL, DDP, SyncBatchNorm, gradients accumulated."""
    run = lab.scratch / "run-nccl"
    environment = world_of_one(29511)
    micro = f"train.micro_batch_size={lab.sizes.batch // 2}"
    options = [f"model.backbone={lab.sizes.sync_backbone}", "train.sync_batchnorm=true", micro]
    lab.start_training(run, *options, **environment).wait()
    lab.lens_hpc("evaluate", str(run), "split=val", **environment)

    trained = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["val_auc"]
    evaluated = json.loads((run / "evaluation" / "val" / "metrics.json").read_text())["auc"]
    lab.note(val_auc_in_training=trained, val_auc_of_evaluate=evaluated)
    assert abs(trained - evaluated) < 0.02, "evaluate sees another model than training"


# ---- speed ----


@dataclass(frozen=True)
class Timing:
    """How long steps take."""

    cutouts_per_second: float
    ms_a_step: float
    ms_launching: float
    """Until a step is launched on an idle GPU, which then works on."""

    def __str__(self) -> str:
        return (
            f"{self.cutouts_per_second:,.0f} cutouts/s, {self.ms_a_step:.2f} ms a step, "
            f"{self.ms_launching:.2f} ms of it launching"
        )


def time_steps(lab: Lab, trainer: Any, batches: Iterator[Any]) -> Timing:
    """Measure training steps, after some that warm up."""
    from lens_hpc.training.trainer import train_step

    for step in range(5):
        train_step(trainer, step, batches)

    launching = []
    for step in range(5):
        lab.wait()
        began = time.perf_counter()
        train_step(trainer, step, batches)
        launching.append(time.perf_counter() - began)

    batch = trainer.settings.train.global_batch_size
    steps = max(6, lab.sizes.cutouts_timed // batch)
    lab.wait()
    began = time.perf_counter()
    for step in range(steps):
        train_step(trainer, step, batches)
    lab.wait()
    seconds = (time.perf_counter() - began) / steps
    return Timing(batch / seconds, 1e3 * seconds, 1e3 * statistics.median(launching))


def time_model_alone(lab: Lab, *overrides: str) -> Timing:
    """Measure training steps on one batch again and again."""
    with lab.trainer(*overrides) as trainer:
        return time_steps(lab, trainer, repeat(one_batch(trainer)))


@check(seconds=45)
def speed_by_precision(lab: Lab) -> None:
    """Measure the model alone in each precision, with and without channels_last."""
    batch = f"train.global_batch_size={lab.sizes.batch_for_options}"
    for precision in lab.precisions():
        for layout in ("true", "false"):
            options = [f"train.precision={precision}", f"train.channels_last={layout}"]
            timing = time_model_alone(lab, batch, *options)
            lab.note(**{f"{precision}_channels_last_{layout}": str(timing)})
    timing = time_model_alone(lab, batch, "train.precision=no", "train.tf32=true")
    lab.note(no_tf32_channels_last_true=str(timing))


@check(seconds=75)
def speed_by_batch(lab: Lab) -> None:
    """Measure model, loader and both together, by the size of the batch, in bf16."""
    data = lab.dataset(lab.sizes.rows_for_speed)
    for batch in lab.sizes.batches:
        options = [f"data.dataset={data}", f"train.global_batch_size={batch}"]
        with lab.trainer(*options) as trainer:
            alone = time_steps(lab, trainer, repeat(one_batch(trainer)))
            batches = endless_batches(trainer)
            together = time_steps(lab, trainer, batches)
            busy, kernels = profile_steps(lab, trainer, batches)
            loaded = time_loader(lab, batches, batch)
            batches.close()
        lab.note(**{f"batch_{batch}_model_alone": str(alone)})
        lab.note(**{f"batch_{batch}_everything": str(together)})
        lab.note(**{f"batch_{batch}_loader_alone": f"{loaded:,.0f} cutouts/s"})
        share = busy / together.ms_a_step
        lab.note(**{f"batch_{batch}_gpu_busy": f"{busy:.2f} ms a step, {share:.0%} of its time"})
        if batch == lab.sizes.batches[1]:
            for name, milliseconds in kernels.items():
                lab.note(**{f"kernel {name}": f"{milliseconds:.2f} ms a step"})


def time_loader(lab: Lab, batches: Iterator[Any], batch: int) -> float:
    """Return the cutouts a second of the loader alone."""
    count = max(6, lab.sizes.cutouts_timed // batch)
    lab.wait()
    began = time.perf_counter()
    for _ in range(count):
        next(batches)
    lab.wait()
    return count * batch / (time.perf_counter() - began)


def profile_steps(
    lab: Lab, trainer: Any, batches: Iterator[Any], steps: int = 5
) -> tuple[float, dict[str, float]]:
    """Return the milliseconds a step in which the GPU works, and those of its longest kernels."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    from lens_hpc.training.trainer import train_step

    activity = ProfilerActivity.CUDA if lab.has_gpu else ProfilerActivity.CPU
    lab.wait()
    with profile(activities=[activity]) as profiler:
        for step in range(steps):
            train_step(trainer, step, batches)
        lab.wait()

    wanted = DeviceType.CUDA if lab.has_gpu else DeviceType.CPU
    spans = []
    by_name: dict[str, float] = {}
    for event in profiler.events():
        if event.device_type != wanted or getattr(event, "is_user_annotation", False):
            continue
        span = event.time_range
        spans.append((span.start, span.end))
        by_name[event.name[:60]] = by_name.get(event.name[:60], 0.0) + span.end - span.start

    longest = sorted(by_name, key=lambda name: -by_name[name])[:SHOWN_KERNELS]
    return covered(spans) / steps / 1e3, {name: by_name[name] / steps / 1e3 for name in longest}


def covered(spans: list[tuple[float, float]]) -> float:
    """Return the length of all spans together, where they overlap only once."""
    total = 0.0
    end = -math.inf
    for begin, finish in sorted(spans):
        total += max(0.0, finish - max(begin, end))
        end = max(end, finish)
    return total


@check(seconds=30)
def cost_of_options(lab: Lab) -> None:
    """Measure what averaging, clipping and another AdamW cost, where launching counts most."""
    batch = f"train.global_batch_size={lab.sizes.batches[0]}"
    lab.note(nothing=str(time_model_alone(lab, batch)))
    lab.note(gradient_clip=str(time_model_alone(lab, batch, "optim.gradient_clip=1.0")))
    lab.note(ema=str(time_model_alone(lab, batch, "optim.ema_decay=0.999")))
    with lab.trainer(batch) as trainer:
        for group in trainer.optimizer.param_groups:
            group["fused"] = True
        timing = time_steps(lab, trainer, repeat(one_batch(trainer)))
        lab.note(fused_adamw=str(timing))


@check(seconds=25)
def memory_is_as_estimated(lab: Lab) -> None:
    """Compare the memory that a training takes with what `lens-hpc check` says before."""
    from lens_hpc.training.readiness import check_training
    from lens_hpc.training.trainer import train_step

    for precision in ("bf16", "no"):
        options = [f"train.precision={precision}", "train.channels_last=true"]
        options.append(f"train.global_batch_size={lab.sizes.batches[-1] // 2}")
        said = check_training(lab.settings(*options), world_size=1).found["model"]
        estimate = float(re.search(r"about ([\d.]+) GB", said)[1])
        taken = {}
        for tries in (False, True):
            with lab.trainer(*options) as trainer:
                torch.backends.cudnn.benchmark = tries
                batches = endless_batches(trainer)
                for step in range(6):
                    if step == 3 and lab.has_gpu:
                        taken[f"first steps, tries={tries}"] = most_allocated()
                        torch.cuda.reset_peak_memory_stats()
                    train_step(trainer, step, batches)
                lab.wait()
                batches.close()
                taken[f"then, tries={tries}"] = most_allocated() if lab.has_gpu else math.nan
        lab.note(**{precision: f"said {estimate} GB"})
        lab.note(**{f"{precision} {key}": f"{value:.2f} GB" for key, value in taken.items()})


def most_allocated() -> float:
    """Return the most memory that tensors took since the last reset, in GB."""
    return torch.cuda.max_memory_allocated() / 1e9


# ---- what may be left out when there is no time ----


@check(seconds=75)
def deepspeed_follows(lab: Lab) -> None:
    """Train with ZeRO 1, 2 and 3, each in a world of one, and compare the loss with plain DDP."""
    try:
        import deepspeed  # noqa: F401
    except ImportError as error:
        raise LeftOut(f"{error}") from error

    options = ["train.channels_last=false", "optim.gradient_clip=1.0"]
    environments = {"ddp": world_of_one(29520)}
    for stage in (1, 2, 3):
        zero = {
            "ACCELERATE_USE_DEEPSPEED": "true",
            "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage),
            # A dry run has set it, and DeepSpeed does not go with it.
            "ACCELERATE_USE_CPU": "false",
        }
        environments[f"zero{stage}"] = world_of_one(29520 + stage, **zero)

    lab.config_file()
    commands = {}
    for name, environment in environments.items():
        run = lab.scratch / f"run-{name}"
        commands[name] = lab.start_training(run, *options, **environment)

    problems = []
    losses = {}
    for name, command in commands.items():
        try:
            command.wait()
            metrics = lab.scratch / f"run-{name}" / "metrics.jsonl"
            losses[name] = json.loads(metrics.read_text().splitlines()[-1])["loss"]
            lab.note(**{name: f"loss {losses[name]:.4f}"})
        except RuntimeError as error:
            problems.append(f"{name}: {error}")
    assert not problems, "\n".join(problems)
    assert max(losses.values()) - min(losses.values()) < 0.05, "ZeRO and DDP differ"


@check(seconds=100)
def compiled(lab: Lab) -> None:
    """Compile the model once, and measure what that gives."""
    from lens_hpc.training.trainer import train_step

    batch = f"train.global_batch_size={lab.sizes.batch_for_options}"
    lab.note(eager=str(time_model_alone(lab, batch)))
    with lab.trainer(batch, "train.compile=true") as trainer:
        same = repeat(one_batch(trainer))
        began = time.perf_counter()
        loss = train_step(trainer, 0, same).loss.item()
        lab.note(first_step_seconds=round(time.perf_counter() - began, 1))
        assert math.isfinite(loss)
        lab.note(compiled=str(time_steps(lab, trainer, same)))


# ---- running them ----


def run_check(lab: Lab, one: Check, seconds: float) -> str:
    """Run a check, stopped after these seconds, and return what became of it in a line."""
    lab.facts = {}
    limit = timeout(seconds) if hasattr(signal, "SIGALRM") else nullcontext()
    try:
        with limit:
            one.function(lab)
    except LeftOut as reason:
        return f"left out: {reason}"
    except Exception as error:
        traceback.print_exc()
        lab.facts["error"] = f"{type(error).__name__}: {error}"
        return f"FAILED: {lab.facts['error'].splitlines()[0]}"
    finally:
        for command in lab.commands:
            command.end()
        lab.commands.clear()
    known = lab.facts.get("known")
    return f"known: {'; '.join(known)}" if known else "ok"


@contextmanager
def timeout(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what is done meanwhile, when it takes longer."""

    def stop(*_: Any) -> NoReturn:
        raise TimeoutError(f"took more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_checks(lab: Lab, out: Path, checks: Sequence[Check]) -> bool:
    """Run checks as long as there is time, write what they find, and return whether all held."""
    began = time.monotonic()
    total = TOTAL_SECONDS * lab.sizes.seconds_factor
    found: dict[str, dict[str, Any]] = {}
    for one in checks:
        print(f"-- {one.name}", flush=True)
        started = time.monotonic()
        budget = one.seconds * lab.sizes.seconds_factor
        left = total - (started - began)
        result = "left out: no time"
        if budget <= left:
            result = run_check(lab, one, min(2 * budget, left))
        seconds = round(time.monotonic() - started, 1)
        facts = {} if budget > left else lab.facts
        found[one.name] = {"result": result, "seconds": seconds, "budget": one.seconds, **facts}
        print(f"   {result}  ({seconds} s of {one.seconds:g})", flush=True)
        (out / "accept.json").write_text(json.dumps(found, indent=1, default=str) + "\n")

    print(f"\n{time.monotonic() - began:.0f} s together")
    for name, facts in found.items():
        print(f"{name:<42}{facts['seconds']:>7.1f} s  {facts['result']}", flush=True)
    return not any(facts["result"].startswith("FAILED") for facts in found.values())


def chosen_checks(names: Sequence[str]) -> list[Check]:
    """Return the checks of these names, or all."""
    known = [one.name for one in CHECKS]
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; checks are: {', '.join(known)}")
    return [one for one in CHECKS if not names or one.name in names]


def hide_packages(folder: Path) -> None:
    """Shadow what the GPU machine lacks, for this process and its children."""
    folder.mkdir()
    for name in MISSING_ON_THE_GPU_MACHINE:
        text = f"raise ModuleNotFoundError('hidden: {name}', name='{name}')\n"
        (folder / f"{name}.py").write_text(text)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = f"{folder}:{os.environ.get('PYTHONPATH', '')}"


def main() -> int:
    """Read the command line and run the checks."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder for accept.json")
    parser.add_argument("checks", nargs="*", metavar="CHECK", help="checks to run; default: all")
    parser.add_argument("--dry", action="store_true", help="try the script itself, on the CPU")
    parser.add_argument("--bare", action="store_true", help="hide what the GPU machine lacks")
    options = parser.parse_intermixed_args()

    checks = chosen_checks(options.checks)
    if not options.dry and not torch.cuda.is_available():
        sys.exit("there is no GPU; --dry tries the script itself on the CPU")
    if options.dry:
        os.environ["ACCELERATE_USE_CPU"] = "true"
        os.environ["OMP_NUM_THREADS"] = "1"  # a busy machine's threads wait for each other
        torch.set_num_threads(1)
    device = torch.device("cpu") if options.dry else torch.device("cuda", 0)
    options.out.mkdir(parents=True, exist_ok=True)
    logging.getLogger("lens_hpc").setLevel(logging.ERROR)  # these data need no audit

    scratch = Path(tempfile.mkdtemp(prefix="accept-"))
    try:
        if options.bare:
            hide_packages(scratch / "hidden")
        lab = Lab(device, TINY if options.dry else Sizes(), scratch)
        return 0 if run_checks(lab, options.out, checks) else 1
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
