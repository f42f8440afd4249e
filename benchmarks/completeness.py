"""How long does a selection function take?

    python benchmarks/completeness.py [injections=20000] [hosts=1000] [processes=2] [size=64]

Lenses are painted on `hosts` galaxies of three bands and scored by the demo's small network, as
lens-hpc completeness does: 25 cells, worker processes, part files, figures and all. It prints the
injections a second by the clock, which other work on the machine slows, and what of the processor's
time one injection takes, workers included, which it slows less; and from that the minutes that
20,000 injections take on two cores of one's own.
"""

import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from lens_hpc import config, verbs  # noqa: E402
from lens_hpc.dataset.manifest import read_manifest  # noqa: E402
from lens_hpc.dataset.shards import BLOCK_ROWS, RowBlock  # noqa: E402
from lens_hpc.layout import BEST  # noqa: E402
from lens_hpc.model.build import build_model  # noqa: E402
from lens_hpc.model.trained import save_trained  # noqa: E402
from lens_hpc.packing.derived import SplitRows, write_dataset  # noqa: E402
from lens_hpc.packing.describing import DatasetFacts  # noqa: E402

BANDS = ("g", "r", "i")
PIXEL_SCALE = 0.2
CELLS = 25
WANTED, CORES = 20_000, 2
RECIPE = """
where: label == 0
psf: {g: 0.8, r: 0.7, i: 0.6}
deflector:
  einstein_radius: {uniform: [0.5, 2.5]}
  z_lens: {uniform: [0.3, 0.7]}
sources:
  z: {normal: [1.8, 0.5], within: [1.0, 3.5]}
  magnitude: {normal: [24, 1], within: [21, 26]}
  band: i
  colors: {g: {fixed: 0.6}, r: {fixed: 0.3}}
"""


def draw_galaxies(count: int, size: int) -> Iterator[RowBlock]:
    """Yield galaxies of elliptical Gaussian light in noise, some lenses among them by label."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    for start in range(0, count, BLOCK_ROWS):
        rows = min(BLOCK_ROWS, count - start)
        q, phi, radius = rng.uniform([0.5, 0, 3], [1, np.pi, 6], (rows, 3)).T[:, :, None, None]
        along = x * np.cos(phi) + y * np.sin(phi)
        across = (y * np.cos(phi) - x * np.sin(phi)) / q
        light = 40 * np.exp(-(along**2 + across**2) / (2 * radius**2))
        images = light[:, None] * np.array([0.4, 0.8, 1.0])[:, None, None]
        images += rng.normal(size=images.shape)
        numbers = np.arange(start, start + rows)
        texts = np.full(rows, b"made float32", dtype="S12")
        yield RowBlock(
            images=images.astype(np.float32),
            features=np.empty((rows, 0), np.float32),
            labels=(numbers % 50 == 0).astype(np.int8),
            ids=np.array([f"host{number:07d}".encode() for number in numbers]),
            groups=np.full(rows, b"", dtype="S1"),
            sources=texts,
        )


def make_hosts(folder: Path, count: int, size: int) -> Path:
    """Write a packed dataset of galaxies."""
    facts = DatasetFacts(
        name="galaxies",
        bands=BANDS,
        height=size,
        width=size,
        dtype="float32",
        pixel_scale_arcsec=PIXEL_SCALE,
        units="flux",
        features=(),
        recipe={},
        zero_point=dict.fromkeys(BANDS, 27.0),
        gain=dict.fromkeys(BANDS, 500.0),
    )
    rows = SplitRows(count, draw_galaxies(count, size))
    write_dataset(folder, facts, {"train": rows})
    return folder


def make_run(folder: Path, hosts: Path) -> Path:
    """Save the demo's network, untrained: it takes as long as a trained one."""
    model = {"backbone": "test_resnet", "weights": "none", "inputs": "image"}
    tree = {"run": folder, "data": {"dataset": hosts, "image_scale": "asinh"}, "model": model}
    settings = config.Train.model_validate(tree)
    manifest = read_manifest(hosts)
    torch.manual_seed(0)
    network = build_model(settings.model, manifest)
    facts = {"step": "1", "epoch": "1"}
    save_trained(folder / BEST, network, settings, manifest, facts)
    return folder


def processor_seconds() -> float:
    """Return what this process and its workers that have ended have used."""
    used = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    """Make hosts and a run, measure, and print."""
    settings = {"injections": 20_000, "hosts": 1000, "processes": 2, "size": 64}
    for word in sys.argv[1:]:
        key, _, value = word.partition("=")
        if key not in settings:
            sys.exit(f"{key}: unknown; valid: {', '.join(settings)}")
        settings[key] = int(value)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hosts = make_hosts(folder / "hosts", settings["hosts"], settings["size"])
        run = make_run(folder / "run", hosts)
        (folder / "recipe.yaml").write_text(RECIPE)
        words = [
            f"recipe={folder / 'recipe.yaml'}",
            f"trials={settings['injections'] // CELLS}",
            f"processes={settings['processes']}",
            "einstein_radius=[0.5,0.9,1.3,1.7,2.1,2.5]",
            "source_magnitude=[21,22,23,24,25,26]",
            "fpr=0.05",
        ]
        read = verbs.read_settings("completeness", [run, hosts], words)
        began, used = time.perf_counter(), processor_seconds()
        result = verbs.module("completeness").run(read)
        seconds, used = time.perf_counter() - began, processor_seconds() - used

    count = len_of(result.record)
    minutes = used / count * WANTED / CORES / 60
    print(f"injections                     {count:,}")
    print(f"by the clock                   {seconds:.0f} s, {count / seconds:.0f} a second")
    print(f"of the processor's time        {used:.0f} s, {1000 * used / count:.1f} ms an injection")
    print(f"{WANTED:,} on {CORES} cores of one's own  {minutes:.1f} minutes")


def len_of(record: dict) -> int:
    """Return the number of trials of all cells."""
    return sum(cell["trials"] for cell in record["cells"])


if __name__ == "__main__":
    main()
