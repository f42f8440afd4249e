"""Can an evaluation be believed, and does it scale?

    python benchmarks/evaluate.py [rows=10000000]   time and memory of one process on one core
    python benchmarks/evaluate.py coverage=all [trials=200]   how often the intervals of a report
                                                    hold the truth, and what its paired tests find
    python benchmarks/evaluate.py seeds=all [trials=200]   how often a recipe is called better than
                                                    itself, and a better one is found, by its seeds
    python benchmarks/evaluate.py audit=20000       time to audit this many mock cutouts

Scores are binormal: lenses and non-lenses normal with unit variance, 1.5 apart. Time and memory:
four parts are merged into one Parquet file, and all metrics are computed, with their intervals and
a breakdown by a column of six values; memory is what the process takes at its peak beyond what it
had after its imports.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from scipy.stats import norm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from interval_grid import print_grid  # noqa: E402
from seed_grid import print_seed_grid  # noqa: E402

from lens_hpc.reporting.breakdown import Column  # noqa: E402
from lens_hpc.reporting.results import Survey, evaluate_scores  # noqa: E402
from lens_hpc.scoring import predictions  # noqa: E402
from lens_hpc.scoring.calibration import probability_maps  # noqa: E402

APART = 1.5
TRUE_AUC = norm.cdf(APART / 2**0.5)
ROWS_PER_LENS = 100
PARTS = 4
CLASSES = 6
SURVEY = Survey(1e-3, 10**8, (0.5, 0.9))


class RowsOnly:
    """A split of some rows without images: every hundredth is a lens."""

    manifest = SimpleNamespace(grouped=False, features=())

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def ids(self, rows: np.ndarray) -> np.ndarray:
        """Return a name for each row."""
        return rows.astype(str)

    def take(self, column: str, rows: np.ndarray) -> np.ndarray:
        """Return labels, or no features."""
        if column == "labels":
            return (rows % ROWS_PER_LENS == 0).astype(np.int8)
        return np.empty((len(rows), 0), np.float32)


# ---- time and memory ----


def scale(rows: int) -> None:
    """Write the parts, and measure the rest in a process of its own."""
    split = RowsOnly(rows)
    rng = np.random.default_rng(0)
    maps = probability_maps(None)
    with tempfile.TemporaryDirectory() as folder:
        for rank, share in enumerate(np.array_split(np.arange(rows), PARTS)):
            noise = rng.standard_normal(len(share), np.float32)
            logits = (noise + APART * split.take("labels", share)).astype(np.float32)
            predictions.write_part(Path(folder), rank, split, share, logits, maps)

        command = [sys.executable, __file__, f"measure={rows}", f"folder={folder}"]
        subprocess.run(command, check=True)


def measure(rows: int, folder: Path) -> None:
    """Do what `evaluate` does on its first process, but for the report."""
    one_core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {one_core})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    began = time.perf_counter()
    scores = predictions.merge_parts(folder, RowsOnly(rows))
    merged = time.perf_counter()
    classes = Column(np.arange(rows) // ROWS_PER_LENS % CLASSES, list(map(str, range(CLASSES))))
    results = evaluate_scores(scores.labels, scores.logits, SURVEY, columns={"class": classes})
    ended = time.perf_counter()

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    auc = results.quantities["auc"].value
    print(f"{rows:,} scores on one core: AUC {auc:.4f} (truth {TRUE_AUC:.4f})")
    print(f"  merging {PARTS} parts  {merged - began:6.1f} s")
    print(f"  metrics          {ended - merged:6.1f} s (at most 30 for ten million)")
    print(f"  peak memory      {peak / 1e6:6.2f} GB (at most 2)")
    print(f"  a sample         {(peak - before) * 1024 / rows:6.0f} bytes (at most 100)")


# ---- audit ----


def audit(rows: int) -> None:
    """Time the audit of a mock survey, as a user would run it."""
    with tempfile.TemporaryDirectory() as folder:
        survey = f"{folder}/survey"
        dataset = f"{folder}/dataset"
        lens_hpc("simulate", survey, f"objects={rows}", quiet=True)
        lens_hpc(
            "pack", f"{survey}/recipe.yaml", f"source={survey}", f"output={dataset}", quiet=True
        )

        began = time.perf_counter()
        lens_hpc("audit", dataset)
        seconds = time.perf_counter() - began
    print(f"audit of {rows:,} cutouts: {seconds:.0f} s (at most 120 for 20,000 on two cores)")


def lens_hpc(*arguments: str, quiet: bool = False) -> None:
    """Run a command, and hide what it says if `quiet`."""
    output = subprocess.DEVNULL if quiet else None
    command = [sys.executable, "-m", "lens_hpc", *arguments]
    subprocess.run(command, check=True, cwd=ROOT, stdout=output, stderr=output)


def main() -> None:
    """Do what the command line asks for."""
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    if "measure" in options:
        measure(int(options["measure"]), Path(options["folder"]))
    elif options.get("coverage") == "all":
        print_grid(int(options.get("trials", 200)), int(options.get("seed", 0)))
    elif options.get("seeds") == "all":
        print_seed_grid(int(options.get("trials", 200)), int(options.get("seed", 0)))
    elif "audit" in options:
        audit(int(options["audit"]))
    else:
        scale(int(options.get("rows", 10_000_000)))


if __name__ == "__main__":
    main()
