"""How fast is our loader, beside other libraries and the least that can be done, on the same cutouts?

    python benchmarks/loader.py [rows=20000] [repeats=5] [figure=docs/loader.png]
    python benchmarks/loader.py cold=1                  the first epoch, with nothing in the page cache

float32 cutouts of 3 x 64 x 64 with 8 features and labels, batches of 256, shuffled anew each epoch, page cache warm.
Every way runs in a process of its own, an epoch to warm up and one to measure, in turn with all others, `repeats`
times; the medians are printed. CPU time is that of all processes together. Reading is raw pixels into batch tensors for
all; the augmentation is the author's. Libraries that are not installed are left out (loader_peers.py says how).
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

import numpy as np
import pandas as pd
import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from loader_peers import IMAGE, N_FEATURES, WAYS, Way  # noqa: E402

from lens_hpc import config, pack  # noqa: E402
from lens_hpc.data.augment import Augmentation  # noqa: E402
from lens_hpc.data.loader import Batch, Loader, Samples  # noqa: E402
from lens_hpc.data.order import Order  # noqa: E402
from lens_hpc.data.reader import Split  # noqa: E402

BATCH, WORKERS = 256, 2
FULL, BLOCKS, NORMALISED, LIMIT = "lens_hpc", "lens_hpc, blocks", "lens_hpc, normalised", "limit"
AUGMENTED, OF_ALBUMENTATIONS = "lens_hpc+torch", "lens_hpc+albumentations"
NPY, AUGMENTED_NPY = "npy", "npy+albumentations"
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


# ---- our ways and the limit -------------------------------------------------------------------------------------


def write_shards(
    folder: Path, images: np.ndarray, features: np.ndarray, labels: np.ndarray, splits: str = "{train: 1.0}"
) -> None:
    """Pack them as a user would."""
    source = folder / "source"
    source.mkdir()
    names = [f"f{n}" for n in range(N_FEATURES)]
    table = pd.DataFrame(features, columns=names)
    table.insert(0, "id", np.arange(len(labels)))
    table.insert(1, "is_lens", labels)
    table.to_csv(source / "catalogue.csv", index=False)
    np.save(source / "images.npy", images)
    (source / "recipe.yaml").write_text(RECIPE % (", ".join(names), splits))
    pack.run(source / "recipe.yaml", [f"source={source}", f"output={folder / 'shards'}"])
    shutil.rmtree(source)


class Raw(Samples):
    """Pixels as they are stored, as the other ways read them."""

    def prepare(self, images: torch.Tensor, epoch: int, draws: np.ndarray) -> None:
        """Nothing."""


class Ours:
    """An epoch at each iteration."""

    def __init__(self, folder: Path, batch_size: int, workers: int, kind: type[Samples], blocks: bool, engine: str):
        split = Split(folder / "shards", "train")
        augmentation = Augmentation(config.Augment(engine=engine), 0) if engine else None  # type: ignore[arg-type]
        self.order = Order(len(split), batch_size, 0, blocks)
        self.loader = Loader(
            kind(split, split.manifest, "cutout", augmentation), batch_size, workers, torch.device("cpu")
        )
        self.epoch = 0

    def __iter__(self) -> Iterator[Batch]:
        self.epoch += 1
        yield from self.loader(self.epoch, self.order.shares(self.epoch, 0, 1))


def write_bytes(folder: Path, images: np.ndarray, *_: np.ndarray) -> None:
    """One file of pixels."""
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


def ours(kind: type[Samples] = Raw, blocks: bool = False, engine: str = "") -> Way:
    """A way of our loader."""
    return Way(write_shards, partial(Ours, kind=kind, blocks=blocks, engine=engine))


ALL = {
    LIMIT: Way(write_bytes, Sequential),
    FULL: ours(),
    BLOCKS: ours(blocks=True),
    NORMALISED: ours(Samples),
    **{name: way for name, way in WAYS.items() if name != AUGMENTED_NPY},
    AUGMENTED: ours(Samples, engine="torch"),
    OF_ALBUMENTATIONS: ours(Samples, engine="albumentations"),
    AUGMENTED_NPY: WAYS[AUGMENTED_NPY],
}


COLD = (LIMIT, FULL, BLOCKS, "npy", "h5py", "lmdb")


# ---- one measurement, in a process of its own --------------------------------------------------------------------


def cpu_seconds() -> float:
    """Of this process, of its children that have ended and of those that live."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    ticks = 0
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return sum(usage.ru_utime + usage.ru_stime for usage in usages) + ticks / os.sysconf("SC_CLK_TCK")


def measure(name: str, folder: Path, workers: int) -> dict[str, float]:
    """Thousand samples a second, by the wall and by CPU time, in the second epoch."""
    torch.set_num_threads(1)
    batches = ALL[name].batches(folder, BATCH, workers)
    for _ in batches:
        pass
    wall, cpu = time.perf_counter(), cpu_seconds()
    samples = sum(len(batch[0]) for batch in batches)
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
    return {"wall": samples / wall / 1e3, "cpu": samples / cpu / 1e3}


def measure_cold(name: str, folder: Path, workers: int) -> dict[str, float]:
    """MB a second of the first epoch, by the wall, after the system was asked to forget the files."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    batches = ALL[name].batches(folder, BATCH, workers)
    began = time.perf_counter()
    size = sum(batch[0].nbytes for batch in batches)
    return {"wall": size / (time.perf_counter() - began) / 1e6}


def in_a_process(name: str, folder: Path, workers: int, how: str = "measure") -> dict[str, float] | None:
    """What `measure` says there, or None when the library is not installed."""
    command = [sys.executable, __file__, how, name, str(folder), str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "ModuleNotFoundError" in done.stderr:
        return None
    done.check_returncode()
    return json.loads(done.stdout.splitlines()[-1])


# ---- all of them ------------------------------------------------------------------------------------------------


def write_all(folder: Path, rows: int, names: Iterable[str] = ALL) -> dict[str, Path]:
    """The same cutouts in every way, once where two ways share them; what is not installed is left out."""
    rng = np.random.default_rng(0)
    images, features = (rng.standard_normal((rows, *shape), np.float32) for shape in (IMAGE, (N_FEATURES,)))
    labels = rng.integers(0, 2, rows).astype(np.int8)
    places, written = {}, {}
    for name in names:
        way = ALL[name]
        place = written.setdefault(way.write, folder / name)
        try:
            if not place.exists():
                place.mkdir()
                way.write(place, images, features, labels)
            places[name] = place
        except ModuleNotFoundError as error:
            print(f"{name}: left out ({error})")
    return places


def main(rows: int, repeats: int, figure: str) -> None:
    """Print the table of medians, the ratios and their limits, and draw the figure."""
    with tempfile.TemporaryDirectory() as name:
        places = write_all(Path(name), rows)
        results: dict[tuple[str, int], list[dict[str, float]]] = {}
        for repeat in range(repeats):
            for way, place in places.items():
                for workers in (0,) if way == LIMIT else (0, WORKERS):
                    print(
                        f"{repeat + 1}/{repeats}  {way}, {workers} workers", end="\033[K\r", file=sys.stderr, flush=True
                    )
                    if found := in_a_process(way, place, workers):
                        results.setdefault((way, workers), []).append(found)
    medians = {
        key: {what: statistics.median(found[what] for found in all_found) for what in ("cpu", "wall")}
        for key, all_found in results.items()
    }
    print_table(medians)
    if figure:
        draw(Path(figure), medians)


def main_cold(rows: int, repeats: int) -> None:
    """Print MB a second, and the ratio to one pass from the first byte to the last."""
    with tempfile.TemporaryDirectory() as name:
        places = write_all(Path(name), rows, COLD)
        rates: dict[str, list[float]] = {way: [] for way in places}
        for _ in range(repeats):
            for way, place in places.items():
                found = in_a_process(way, place, 0 if way == LIMIT else WORKERS, "measure_cold")
                rates[way] += [found["wall"]] if found else []
    median = {way: statistics.median(values) for way, values in rates.items() if values}
    for way, rate in median.items():
        print(f"{way:<20}{rate:>8,.0f} MB/s{rate / median[LIMIT]:>8.2f} of one sequential pass")


def print_table(medians: dict[tuple[str, int], dict[str, float]]) -> None:
    """Thousand samples a CPU-second and a second, then the ratios that we hold ourselves to."""
    print(f"{'thousand cutouts':<26}{'a CPU-second':>24}{'a second':>24}")
    print(f"{'':<26}{'in process':>12}{f'{WORKERS} workers':>12}" * 1 + f"{'in process':>12}{f'{WORKERS} workers':>12}")
    for way in dict.fromkeys(name for name, _ in medians):
        numbers = [medians.get((way, workers), {}).get(what) for what in ("cpu", "wall") for workers in (0, WORKERS)]
        print(f"{way:<26}" + "".join(f"{number:>12.1f}" if number else f"{'':>12}" for number in numbers))

    def best(way: str, what: str = "cpu") -> float:
        return max(found[what] for (name, _), found in medians.items() if name == way)

    others = {name: best(name) for name in WAYS if name != AUGMENTED_NPY and (name, 0) in medians}
    print()
    print(f"{FULL} / limit, a CPU-second: {best(FULL) / best(LIMIT):.2f} (at least 0.7)")
    print(f"{FULL} / {max(others, key=others.get)}: {best(FULL) / max(others.values()):.2f} (at least 1.7)")
    print(f"{FULL} / {NPY}: {best(FULL) / others[NPY]:.1f} (at least 10)")
    pair = [medians[way, WORKERS]["wall"] for way in (AUGMENTED, AUGMENTED_NPY)]
    print(f"{AUGMENTED} / {AUGMENTED_NPY}, a second, {WORKERS} workers each: {pair[0] / pair[1]:.1f} (at least 5)")


def draw(file: Path, medians: dict[tuple[str, int], dict[str, float]]) -> None:
    """Bars of the better of in-process and workers, for reading and with augmentation."""
    import matplotlib.pyplot as plt

    ways = list(dict.fromkeys(name for name, _ in medians))
    groups = {
        "reading: thousand cutouts per CPU-second": ("cpu", [w for w in ways if "+" not in w and w != NORMALISED]),
        f"with augmentation: thousand per second, {WORKERS} workers": ("wall", [w for w in ways if "+" in w]),
    }
    heights = [len(names) for _, names in groups.values()]
    canvas, axes = plt.subplots(2, 1, figsize=(7.5, 5.2), height_ratios=heights, layout="constrained")
    for axis, (title, (what, names)) in zip(axes, groups.items(), strict=True):
        values = {
            name: max(
                found[what] for (way, workers), found in medians.items() if way == name and (what == "cpu" or workers)
            )
            for name in names
        }
        ordered = sorted(values, key=values.get)
        colours = ["0.35" if n == LIMIT else "#c8102e" if n.startswith("lens_hpc") else "#9db4c0" for n in ordered]
        bars = axis.barh(ordered, [values[name] for name in ordered], color=colours)
        axis.bar_label(bars, fmt="%.1f", padding=3, fontsize=9)
        axis.set_title(title, loc="left", fontsize=10)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.set_xticks([])
        axis.tick_params(left=False, labelsize=9)
    canvas.savefig(file, dpi=160)


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].startswith("measure"):
        how = {"measure": measure, "measure_cold": measure_cold}[sys.argv[1]]
        print(json.dumps(how(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))))
    elif "cold=1" in sys.argv[1:]:
        main_cold(20_000, 3)
    else:
        options = dict(argument.split("=", 1) for argument in sys.argv[1:])
        main(int(options.get("rows", 20_000)), int(options.get("repeats", 5)), options.get("figure", ""))
