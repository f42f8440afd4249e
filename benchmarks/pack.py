"""How fast does pack write, beside a bare loop over the same files?

    python benchmarks/pack.py [rows=40000] [repeats=5]   ratios, medians of interleaved repeats,
                                                         with a warm page cache
    python benchmarks/pack.py dry_run=2000000 [repeats=5]   a dry run of so many rows, beside pandas
    python benchmarks/pack.py kills=200                  SIGKILLs at random instants, same bytes?

Where the disk is slower than two processes, TMPDIR=/dev/shm measures the program instead.

Ratios of times: pack on one process over np.load of every file and one h5py dataset; one process
over two; packing FITS over astropy opening the same files. And the peak memory of a process at one
and ten times the rows. A dry run reads the catalogue of a stack and makes the plan; beside it,
pandas reads the same CSV file, whole, in a process of its own as well.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.io import fits

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

# The others' modules are compiled where they were installed, so ours must not be each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
SHAPE = (3, 64, 64)
RECIPE = """
name: benchmark
catalogue: catalogue.csv
columns: {id: id, label: is_lens, features: [mag]}
images: "{id}.%s"
bands: [g, r, i]
pixel_scale: 0.168
units: counts
"""


def write_survey(folder: Path, rows: int, kind: str) -> Path:
    """Write `rows` files of one kind, a catalogue and a recipe."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(rows):
        cutout = rng.normal(size=SHAPE).astype(np.float32)
        if kind == "npy":
            np.save(folder / f"{i}.npy", cutout)
        else:
            fits.PrimaryHDU(cutout).writeto(folder / f"{i}.fits")
    write_tables(folder, rows, kind)
    return folder


def multiply(survey: Path, folder: Path, count: int, rows: int) -> Path:
    """Make a survey of `count` rows of another one's `rows` files, each under several names."""
    folder.mkdir()
    for i in range(count):
        (folder / f"{i}.npy").hardlink_to(survey / f"{i % rows}.npy")
    write_tables(folder, count, "npy")
    return folder


def write_tables(folder: Path, rows: int, kind: str) -> None:
    """Write a catalogue and a recipe."""
    lines = "".join(f"{i},{i % 2},{i % 97}\n" for i in range(rows))
    (folder / "catalogue.csv").write_text("id,is_lens,mag\n" + lines)
    (folder / "recipe.yaml").write_text(RECIPE % kind)


def pack(survey: Path, output: Path, processes: int) -> None:
    """Run the real command, as a user types it."""
    program = [sys.executable, "-m", "lens_hpc", "pack", str(survey / "recipe.yaml")]
    settings = [f"source={survey}", f"output={output}", f"processes={processes}", "shard_mib=128"]
    subprocess.run([*program, *settings], check=True, capture_output=True, cwd=ROOT)


def bare_loop(survey: Path, output: Path, rows: int) -> None:
    """Call np.load on every file, and write the same bytes into one dataset."""
    code = (
        "import sys, h5py, numpy as np\n"
        "folder, output, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])\n"
        "with h5py.File(output, 'w') as file:\n"
        f"    images = file.create_dataset('images', (rows, *{SHAPE}), 'f4')\n"
        "    for i in range(rows):\n"
        "        images[i] = np.load(f'{folder}/{i}.npy')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(survey), str(output), str(rows)], check=True)


def open_fits(survey: Path, rows: int) -> None:
    """Open the files with astropy, which hands over their data."""
    code = (
        "import sys\nfrom astropy.io import fits\n"
        "for i in range(int(sys.argv[2])):\n"
        "    with fits.open(f'{sys.argv[1]}/{i}.fits', memmap=False) as hdus:\n"
        "        hdus[0].data\n"
    )
    subprocess.run([sys.executable, "-c", code, str(survey), str(rows)], check=True)


def seconds(folder: Path, work: Callable[[], None]) -> float:
    """Return the wall time of one call, which finds no earlier output in `folder`."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "out").mkdir()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def peak_megabytes(survey: Path, output: Path, *more: str) -> float:
    """Return the largest resident set of a packing process, in a child of its own."""
    code = (
        "import resource, sys\n"
        "from lens_hpc.cli import main\n"
        "status = main(sys.argv[1:])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)\n"
        "sys.exit(status)\n"
    )
    shutil.rmtree(output, ignore_errors=True)
    program = [sys.executable, "-c", code, "pack", str(survey / "recipe.yaml")]
    settings = [f"source={survey}", f"output={output}", "processes=1", *more]
    done = subprocess.run(
        [*program, *settings], check=True, capture_output=True, text=True, cwd=ROOT
    )
    return float(done.stdout.split()[-1])


def measure(folder: Path, rows: int, repeats: int) -> None:
    """Print the table of ratios."""
    npy = write_survey(folder / "npy", rows, "npy")
    few = min(rows, 10_000)
    flexible = write_survey(folder / "fits", few, "fits")
    ways: dict[str, Callable[[], None]] = {
        "bare loop, .npy": lambda: bare_loop(npy, folder / "out" / "bare.h5", rows),
        "pack, .npy, one process": lambda: pack(npy, folder / "out" / "d", 1),
        "pack, .npy, two processes": lambda: pack(npy, folder / "out" / "d", 2),
        "astropy opens, .fits": lambda: open_fits(flexible, few),
        "pack, .fits, one process": lambda: pack(flexible, folder / "out" / "d", 1),
    }

    # The first round warms the page cache.
    for way in ways.values():
        seconds(folder, way)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            times[name].append(seconds(folder, way))

    median = {name: statistics.median(values) for name, values in times.items()}
    for name, value in median.items():
        count = few if ".fits" in name else rows
        print(f"{name:<28}{value:>8.2f} s{count / value:>10,.0f} cutouts/s")

    bare, one, two, opened, packed = median.values()
    print(f"one process / bare loop      {one / bare:>6.2f}   (at most 1.5)")
    print(f"one process / two            {one / two:>6.2f}   (at least 1.6)")
    print(f"pack .fits / astropy opens   {packed / opened:>6.2f}   (at most 1.3)")

    shutil.rmtree(folder / "out")
    for count in (rows // 2, rows * 5):
        survey = multiply(npy, folder / f"survey-{count}", count, rows)
        peak = peak_megabytes(survey, folder / "d")
        print(f"peak memory of a process     {peak:.0f} MB at {count:,} rows")
    print("                             (below 500)")


def write_stack(folder: Path, rows: int) -> Path:
    """Write a stack of tiny cutouts, and a catalogue of 20 columns, as surveys have them."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    np.save(folder / "stack.npy", rng.normal(size=(rows, 1, 4, 4)).astype(np.float32))
    table = pd.DataFrame({"id": [f"obj{i:07d}" for i in range(rows)], "is_lens": range(rows)})
    table["is_lens"] = (table["is_lens"] % 50 == 0).astype(int)
    for name in (*(f"{kind}_{band}" for kind in ("mag", "err", "radius") for band in "grizy"), "z"):
        table[name] = rng.normal(22, 1, rows).round(4)
    for name in ("ra", "dec"):
        table[name] = (rng.random(rows) * 90).round(6)
    table.to_csv(folder / "catalogue.csv", index=False)

    recipe = RECIPE.replace('images: "{id}.%s"', "stack: stack.npy").replace("[g, r, i]", "[g]")
    (folder / "recipe.yaml").write_text(recipe.replace("[mag]", "[mag_i, z]"))
    return folder


def measure_dry_run(folder: Path, rows: int, repeats: int) -> None:
    """Print how long a dry run takes, beside pandas, and its memory."""
    survey = write_stack(folder / "stack", rows)
    read = [sys.executable, "-c", f"import pandas; pandas.read_csv('{survey}/catalogue.csv')"]
    plan = [sys.executable, "-m", "lens_hpc", "pack", str(survey / "recipe.yaml"), "dry_run=true"]
    plan += [f"source={survey}", f"output={folder / 'never'}"]
    times: dict[str, list[float]] = {"pandas": [], "dry run": []}
    for _ in range(repeats + 1):
        for name, command in zip(times, (read, plan), strict=True):
            times[name].append(
                seconds(folder, partial(subprocess.run, command, check=True, capture_output=True))
            )

    # The first round warmed the page cache.
    median = {name: statistics.median(values[1:]) for name, values in times.items()}
    for name, value in median.items():
        print(f"{name:<28}{value:>8.2f} s for {rows:,} rows of 20 columns")
    print(
        f"dry run / pandas             {median['dry run'] / median['pandas']:>6.2f}   (at most 2)"
    )
    peak = peak_megabytes(survey, folder / "never", "dry_run=true")
    print(f"peak memory of a dry run     {peak:.0f} MB   (at most 600)")


def main(options: dict[str, int]) -> None:
    """Run what the command line asks for."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kills := options.get("kills"):
            from tests.kills import kill_and_restart_pack

            survey = write_survey(folder / "survey", 3000, "npy")
            settings = ("shard_mib=12", "processes=2")
            ends = kill_and_restart_pack(survey, folder / "d", settings, kills, seed=0)
            print(
                f"{kills} kills at random instants; {ends} times it came to its end, "
                "each time with the same bytes"
            )
        elif dry_rows := options.get("dry_run"):
            measure_dry_run(folder, dry_rows, options.get("repeats", 5))
        else:
            measure(folder, options.get("rows", 40_000), options.get("repeats", 5))


if __name__ == "__main__":
    options = {}
    for argument in sys.argv[1:]:
        key, _, value = argument.partition("=")
        options[key] = int(value)
    main(options)
