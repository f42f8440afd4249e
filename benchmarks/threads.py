"""What do our threads save where others use the cores, too, and do they cost anything elsewhere?

    python benchmarks/threads.py [rows=640] [repeats=3]

`lens-hpc train` as benchmarks/train.py has it, on this machine as it is and then beside one program
a core that computes without end, in turn, each time:

- as it is;
- with threads that wait for each other as GNU OpenMP has it by default (lens_hpc/process.py);
- with one thread, which many advise.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from train import ours, write_data

from lens_hpc.resources import usable_cpus

VARIABLES = ("GOMP_SPINCOUNT", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")
AS_IT_IS = "lens_hpc train"
WAYS: dict[str, dict[str, str]] = {
    AS_IT_IS: {},
    "OpenMP's own waiting": {"GOMP_SPINCOUNT": "300000"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}


def main(rows: int, repeats: int) -> None:
    """Print the cutouts a second of each way, on idle and on busy cores."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, rows)
        for title, others in (("idle", 0), ("busy", usable_cpus())):
            with other_programs(others):
                rates = measure(folder, repeats)
            print(f"{title} cores:")
            for way, rate in rates.items():
                print(f"  {way:<24}{rate:>8.1f} cutouts/s{rates[AS_IT_IS] / rate:>8.2f} times")


@contextmanager
def other_programs(count: int) -> Iterator[None]:
    """Keep so many cores busy meanwhile."""
    endless = [sys.executable, "-c", "while True: pass"]
    programs = [subprocess.Popen(endless) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def measure(folder: Path, repeats: int) -> dict[str, float]:
    """Return the median cutouts a second of each way."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way, variables in WAYS.items():
            for variable in VARIABLES:
                os.environ.pop(variable, None)
            os.environ.update(variables)  # a training inherits them
            found[way].append(ours(folder)["cutouts_per_second"])
    return {way: statistics.median(rates) for way, rates in found.items()}


if __name__ == "__main__":
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    main(int(options.get("rows", 640)), int(options.get("repeats", 3)))
