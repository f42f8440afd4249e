"""Can an evaluation be believed, and does it scale?

    python benchmarks/evaluate.py [rows=10000000]     time and memory of one process on one core
    python benchmarks/evaluate.py coverage=1000       how often the 95% intervals hold the truth, on simulated scores
    python benchmarks/evaluate.py audit=20000         time of the audit of so many mock cutouts

Scores are binormal: lenses and non-lenses normal with unit variance, 1.5 apart, where every metric's true value is
known. Time and memory: four parts are merged into one Parquet file, and all metrics computed, intervals too; memory is
what the process takes at its peak beyond what it had after its imports.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from scipy.stats import norm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from lens_hpc.analysis import calibration, metrics, results  # noqa: E402
from lens_hpc.engine import predictions  # noqa: E402

APART = 1.5
PARTS = 4
SURVEY = results.Survey(1e-3, 10**8, (0.5, 0.9))


class Rows:
    """A split of so many rows without images: every hundredth is a lens."""

    manifest = SimpleNamespace(grouped=False, features=())

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def ids(self, rows: np.ndarray) -> np.ndarray:
        """A name each."""
        return rows.astype(str)

    def take(self, column: str, rows: np.ndarray) -> np.ndarray:
        """Labels, or no features."""
        return (rows % 100 == 0).astype(np.int8) if column == "labels" else np.empty((len(rows), 0), np.float32)


def scale(rows: int) -> None:
    """Merge and measure in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        split, rng = Rows(rows), np.random.default_rng(0)
        for rank, some in enumerate(np.array_split(np.arange(rows), PARTS)):
            logits = (rng.standard_normal(len(some), np.float32) + APART * (some % 100 == 0)).astype(np.float32)
            predictions.write_part(Path(name), rank, split, some, logits, calibration.maps(None))
        subprocess.run([sys.executable, __file__, f"measure={rows}", f"folder={name}"], check=True)


def measure(rows: int, folder: Path) -> None:
    """What `evaluate` does on its first process, but for the report."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    scores = predictions.merge(folder, Rows(rows))
    merged = time.perf_counter()
    found = results.evaluate(scores.labels, scores.logits, SURVEY, None, None)
    ended = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{rows:,} scores on one core: AUC {found.quantities['auc'].value:.4f} (truth {norm.cdf(APART / 2**0.5):.4f})"
    )
    print(f"  merging {PARTS} parts  {merged - began:6.1f} s")
    print(f"  metrics          {ended - merged:6.1f} s (at most 30 for ten million)")
    print(f"  peak memory      {peak / 1e6:6.2f} GB (at most 2)")
    print(f"  a sample         {(peak - before) * 1024 / rows:6.0f} bytes (at most 100)")


def coverage(trials: int) -> None:
    """Of DeLong's interval and the bootstrap's, for two sizes of a sample."""
    truth = {"auc": norm.cdf(APART / 2**0.5), "tpr_at_fpr": norm.sf(norm.isf(0.1) - APART)}
    statistics = {"auc": metrics.auc, "tpr_at_fpr": partial(metrics.completeness_at_rate, rate=0.1)}
    for lenses, others in ((50, 200), (200, 2000)):
        held = {"AUC, DeLong": 0, "AUC, bootstrap": 0, "TPR at FPR 0.1, bootstrap": 0}
        for seed in range(trials):
            rng = np.random.default_rng([lenses, seed])
            scores = np.concatenate([rng.normal(APART, 1, lenses), rng.normal(0, 1, others)])
            curve = metrics.rank(np.repeat([1, 0], [lenses, others]), scores)
            area, variance = metrics.delong(curve)
            drawn = metrics.bootstrap(curve, metrics.resample(curve, seed), statistics)
            intervals = (metrics.interval(area, variance, lenses), drawn["auc"], drawn["tpr_at_fpr"])
            for name, key, interval in zip(held, ("auc", "auc", "tpr_at_fpr"), intervals, strict=True):
                held[name] += interval is not None and interval[0] <= truth[key] <= interval[1]
        for name, times in held.items():
            print(f"{lenses} lenses, {others} others: {name:<26} {times / trials:.3f} (0.93 to 0.97)")


def audit(rows: int) -> None:
    """Of a mock survey, as a user would run it."""
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "lens_hpc"]
        quiet = {"check": True, "cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([*command, "simulate", f"{name}/s", f"objects={rows}"], **quiet)
        subprocess.run([*command, "pack", f"{name}/s/recipe.yaml", f"source={name}/s", f"output={name}/d"], **quiet)
        began = time.perf_counter()
        subprocess.run([*command, "audit", f"{name}/d"], check=True, cwd=ROOT)
        print(f"audit of {rows:,} cutouts: {time.perf_counter() - began:.0f} s (at most 120 for 20,000 on two cores)")


if __name__ == "__main__":
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    if "measure" in options:
        measure(int(options["measure"]), Path(options["folder"]))
    elif "coverage" in options:
        coverage(int(options["coverage"]))
    elif "audit" in options:
        audit(int(options["audit"]))
    else:
        scale(int(options.get("rows", 10_000_000)))
