"""How fast is our loader, beside other libraries and the least that can be done?

    python benchmarks/loader.py [rows=20000] [repeats=5] [figure=docs/loader.png]
    python benchmarks/loader.py cold=1         the first epoch, with nothing in the page cache

All load the same float32 cutouts of 3 x 64 x 64 with 8 features and labels, in batches of 256,
shuffled anew each epoch, with a warm page cache. Every way runs in a process of its own, an epoch
to warm up and one to measure, in turn with all others, `repeats` times; medians are printed. CPU
time is that of all processes together. Reading is raw pixels into batch tensors for all; the
augmentation is the author's. Libraries that are not installed are left out (loader_peers.py names
them).
"""

import json
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from loader_peers import IMAGE, N_FEATURES, WAYS, Way  # noqa: E402

import lens_hpc  # noqa: E402
from lens_hpc import config  # noqa: E402
from lens_hpc.dataset.split import Split  # noqa: E402
from lens_hpc.loading.augmentation import make_augmentation  # noqa: E402
from lens_hpc.loading.loader import Batch, Loader  # noqa: E402
from lens_hpc.loading.order import Order  # noqa: E402
from lens_hpc.loading.samples import Samples  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BATCH = 256
WORKERS = 2

LIMIT = "limit"
FULL = "lens_hpc"
BLOCKS = "lens_hpc, blocks"
NORMALISED = "lens_hpc, normalised"
AUGMENTED = "lens_hpc+torch"
OF_ALBUMENTATIONS = "lens_hpc+albumentations"
NPY = "npy"
AUGMENTED_NPY = "npy+albumentations"

RECIPE = """
name: benchmark
catalogue: catalogue.csv
columns: {id: id, label: is_lens, features: [%s]}
stack: images.npy
bands: [g, r, i]
pixel_scale: 0.168
units: counts
splits: %s
"""

Measured = dict[str, float]
"""Samples or bytes a second, by "wall" and by "cpu" time."""


# ---- our ways and the limit ----


def write_shards(
    folder: Path,
    images: np.ndarray,
    features: np.ndarray,
    labels: np.ndarray,
    splits: str = "{train: 1.0}",
) -> None:
    """Pack cutouts into folder/shards, as a user would."""
    source = folder / "source"
    source.mkdir()

    names = [f"f{n}" for n in range(N_FEATURES)]
    table = pd.DataFrame(features, columns=names)
    table.insert(0, "id", np.arange(len(labels)))
    table.insert(1, "is_lens", labels)
    table.to_csv(source / "catalogue.csv", index=False)
    np.save(source / "images.npy", images)
    (source / "recipe.yaml").write_text(RECIPE % (", ".join(names), splits))

    lens_hpc.pack(source / "recipe.yaml", source=source, output=folder / "shards")
    shutil.rmtree(source)


class Raw(Samples):
    """Pixels as they are stored, as the other ways read them."""

    def prepare(self, images: torch.Tensor, epoch: int, draws: np.ndarray) -> None:
        """Do nothing."""


class Ours:
    """Batches of our loader: an epoch at each iteration."""

    def __init__(
        self,
        folder: Path,
        batch_size: int,
        workers: int,
        kind: type[Samples],
        blocks: bool,
        engine: str,
    ):
        augmentation = make_augmentation(config.Augment(engine=engine), 0) if engine else None
        split = Split(folder / "shards", "train")
        samples = kind(split, split.manifest, "cutout", augmentation)
        self.loader = Loader(samples, batch_size, workers, torch.device("cpu"))
        self.order = Order(len(split), batch_size, 0, blocks)
        self.epoch = 0

    def __iter__(self) -> Iterator[Batch]:
        self.epoch += 1
        yield from self.loader(self.epoch, self.order.shares(self.epoch, 0, 1))


def write_bytes(folder: Path, images: np.ndarray, *_: np.ndarray) -> None:
    """Write one file of pixels."""
    images.tofile(folder / "images")


class Sequential:
    """One pass from the first byte to the last, into one buffer that is used again and again."""

    def __init__(self, folder: Path, batch_size: int, workers: int) -> None:
        self.file = os.open(folder / "images", os.O_RDONLY)
        self.images = torch.empty(batch_size, *IMAGE)
        self.steps = os.fstat(self.file).st_size // self.images.nbytes

    def __iter__(self) -> Iterator[tuple[torch.Tensor]]:
        for step in range(self.steps):
            os.preadv(self.file, [self.images.numpy()], step * self.images.nbytes)
            yield (self.images,)


def our_way(kind: type[Samples] = Raw, blocks: bool = False, engine: str = "") -> Way:
    """Return a way of our loader."""
    return Way(write_shards, partial(Ours, kind=kind, blocks=blocks, engine=engine))


ALL = {
    LIMIT: Way(write_bytes, Sequential),
    FULL: our_way(),
    BLOCKS: our_way(blocks=True),
    NORMALISED: our_way(Samples),
    **{name: way for name, way in WAYS.items() if name != AUGMENTED_NPY},
    AUGMENTED: our_way(Samples, engine="torch"),
    OF_ALBUMENTATIONS: our_way(Samples, engine="albumentations"),
    AUGMENTED_NPY: WAYS[AUGMENTED_NPY],
}

COLD = (LIMIT, FULL, BLOCKS, "npy", "h5py", "lmdb")


# ---- one measurement, in a process of its own ----


def cpu_seconds() -> float:
    """Return the CPU time of this process, and of its children that have ended or live."""
    seconds = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        seconds += usage.ru_utime + usage.ru_stime

    for child in multiprocessing.active_children():
        # proc(5): utime and stime are fields 14 and 15; a name in brackets comes before field 3.
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        seconds += ticks / os.sysconf("SC_CLK_TCK")
    return seconds


def measure(name: str, folder: Path, workers: int) -> Measured:
    """Return thousand samples a second of wall and of CPU time, in the second epoch."""
    torch.set_num_threads(1)
    batches = ALL[name].batches(folder, BATCH, workers)
    for _ in batches:
        pass

    wall_before = time.perf_counter()
    cpu_before = cpu_seconds()
    samples = sum(len(batch[0]) for batch in batches)
    cpu = cpu_seconds() - cpu_before
    wall = time.perf_counter() - wall_before
    return {"wall": samples / wall / 1e3, "cpu": samples / cpu / 1e3}


def measure_cold(name: str, folder: Path, workers: int) -> Measured:
    """Return MB a second of the first epoch, after the system was asked to forget the files."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    batches = ALL[name].batches(folder, BATCH, workers)
    began = time.perf_counter()
    size = sum(batch[0].nbytes for batch in batches)
    seconds = time.perf_counter() - began
    return {"wall": size / seconds / 1e6}


MEASUREMENTS = {"measure": measure, "measure_cold": measure_cold}


def measure_in_a_process(
    name: str, folder: Path, workers: int, how: str = "measure"
) -> Measured | None:
    """Return what a measurement gives there, or None when the library is not installed."""
    command = [sys.executable, __file__, how, name, str(folder), str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "ModuleNotFoundError" in done.stderr:
        return None
    done.check_returncode()
    return json.loads(done.stdout.splitlines()[-1])


# ---- all of them ----


def write_all(folder: Path, rows: int, names: Iterable[str] = ALL) -> dict[str, Path]:
    """Write the same cutouts in every way, once where two ways share them.

    Returns the folder of each way. What is not installed is left out.
    """
    rng = np.random.default_rng(0)
    images = rng.standard_normal((rows, *IMAGE), np.float32)
    features = rng.standard_normal((rows, N_FEATURES), np.float32)
    labels = rng.integers(0, 2, rows).astype(np.int8)

    folders = {}
    folder_of_writer = {}
    for name in names:
        write = ALL[name].write
        target = folder_of_writer.setdefault(write, folder / name)
        try:
            if not target.exists():
                target.mkdir()
                write(target, images, features, labels)
            folders[name] = target
        except ModuleNotFoundError as error:
            print(f"{name}: left out ({error})")
    return folders


def main(rows: int, repeats: int, figure: str) -> None:
    """Print the table of medians, the ratios and their limits, and draw the figure."""
    results: dict[tuple[str, int], list[Measured]] = {}
    with tempfile.TemporaryDirectory() as name:
        folders = write_all(Path(name), rows)
        runs = [
            (repeat, way, workers)
            for repeat in range(repeats)
            for way in folders
            for workers in ((0,) if way == LIMIT else (0, WORKERS))
        ]
        for repeat, way, workers in runs:
            progress = f"{repeat + 1}/{repeats}  {way}, {workers} workers"
            print(progress, end="\033[K\r", file=sys.stderr, flush=True)
            found = measure_in_a_process(way, folders[way], workers)
            if found:
                results.setdefault((way, workers), []).append(found)

    medians = {key: median_of(measured) for key, measured in results.items()}
    print_table(medians)
    print_ratios(medians)
    if figure:
        draw(Path(figure), medians)


def median_of(measured: list[Measured]) -> Measured:
    """Return the median of each kind of time."""
    return {what: statistics.median(one[what] for one in measured) for what in ("cpu", "wall")}


def main_cold(rows: int, repeats: int) -> None:
    """Print MB a second, and the ratio to one pass from the first byte to the last."""
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folders = write_all(Path(name), rows, COLD)
        for _ in range(repeats):
            for way, folder in folders.items():
                workers = 0 if way == LIMIT else WORKERS
                found = measure_in_a_process(way, folder, workers, "measure_cold")
                if found:
                    rates.setdefault(way, []).append(found["wall"])

    medians = {way: statistics.median(values) for way, values in rates.items()}
    for way, rate in medians.items():
        ratio = rate / medians[LIMIT]
        print(f"{way:<20}{rate:>8,.0f} MB/s{ratio:>8.2f} of one sequential pass")


def print_table(medians: dict[tuple[str, int], Measured]) -> None:
    """Print thousand samples a CPU-second and a second."""
    columns = f"{'in process':>12}{f'{WORKERS} workers':>12}"
    print(f"{'thousand cutouts':<26}{'a CPU-second':>24}{'a second':>24}")
    print(f"{'':<26}{columns}{columns}")

    for way in dict.fromkeys(name for name, _ in medians):
        line = f"{way:<26}"
        for what in ("cpu", "wall"):
            for workers in (0, WORKERS):
                number = medians.get((way, workers), {}).get(what)
                line += f"{number:>12.1f}" if number else f"{'':>12}"
        print(line)


def print_ratios(medians: dict[tuple[str, int], Measured]) -> None:
    """Print the ratios that we hold ourselves to."""
    ours = best_cpu(medians, FULL)
    limit = best_cpu(medians, LIMIT)
    others = {
        way: best_cpu(medians, way) for way in WAYS if way != AUGMENTED_NPY and (way, 0) in medians
    }
    fastest = max(others, key=others.get)
    print()
    print(f"{FULL} / limit, a CPU-second: {ours / limit:.2f} (at least 0.7)")
    print(f"{FULL} / {fastest}: {ours / others[fastest]:.2f} (at least 1.7)")
    print(f"{FULL} / {NPY}: {ours / others[NPY]:.1f} (at least 10)")

    ratio = medians[AUGMENTED, WORKERS]["wall"] / medians[AUGMENTED_NPY, WORKERS]["wall"]
    names = f"{AUGMENTED} / {AUGMENTED_NPY}, a second, {WORKERS} workers each"
    print(f"{names}: {ratio:.1f} (at least 5)")


def best_cpu(medians: dict[tuple[str, int], Measured], way: str) -> float:
    """Return the better of in-process and workers, thousand samples a CPU-second."""
    return max(found["cpu"] for (name, _), found in medians.items() if name == way)


def draw(file: Path, medians: dict[tuple[str, int], Measured]) -> None:
    """Draw bars of the better of in-process and workers, for reading and with augmentation."""
    import matplotlib.pyplot as plt

    ways = list(dict.fromkeys(name for name, _ in medians))
    read = [way for way in ways if "+" not in way and way != NORMALISED]
    augmented = [way for way in ways if "+" in way]

    canvas, (upper, lower) = plt.subplots(
        2,
        1,
        figsize=(7.5, 5.2),
        height_ratios=[len(read), len(augmented)],
        layout="constrained",
    )
    draw_bars(
        upper,
        "reading: thousand cutouts per CPU-second",
        {way: best_cpu(medians, way) for way in read},
    )
    draw_bars(
        lower,
        f"with augmentation: thousand per second, {WORKERS} workers",
        {way: medians[way, WORKERS]["wall"] for way in augmented},
    )
    canvas.savefig(file, dpi=160)


def draw_bars(axis: "Axes", title: str, values: dict[str, float]) -> None:
    """Draw a bar for each way, the longest on top."""
    ordered = sorted(values, key=values.get)
    bars = axis.barh(
        ordered,
        [values[name] for name in ordered],
        color=[colour_of(name) for name in ordered],
    )
    axis.bar_label(bars, fmt="%.1f", padding=3, fontsize=9)
    axis.set_title(title, loc="left", fontsize=10)
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    axis.set_xticks([])
    axis.tick_params(left=False, labelsize=9)


def colour_of(way: str) -> str:
    """Return grey for the limit, red for ours, blue for others."""
    if way == LIMIT:
        return "0.35"
    return "#c8102e" if way.startswith("lens_hpc") else "#9db4c0"


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments and arguments[0] in MEASUREMENTS:
        how, way, folder, workers = arguments
        print(json.dumps(MEASUREMENTS[how](way, Path(folder), int(workers))))
    elif "cold=1" in arguments:
        main_cold(20_000, 3)
    else:
        options = {"rows": "20000", "repeats": "5", "figure": ""}
        options |= dict(argument.split("=", 1) for argument in arguments)
        main(int(options["rows"]), int(options["repeats"]), options["figure"])
