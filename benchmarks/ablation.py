"""Is the fusion better than both of its halves, and the network than hand-made statistics?

    python benchmarks/ablation.py [folder=DIR] [survey=DIR] [seed=100] [seeds=0,1,2]
                                  [config=configs/train/demo.yaml] [processes=2]

A mock survey of 6,400 objects is simulated with `seed` (or `survey` is taken) and packed: 2,800
rows to train on, 600 to validate and 3,000 to test. `lens-hpc train` trains the image branch, the
feature branch and the fusion with each of `seeds`, as `make demo` does. Printed, of the test rows:

- the AUC of each run and its interval, and how far the seeds of an arm are apart;
- paired tests of the fusion against each half, by the mean logit of an arm's seeds;
- boosted trees on hand-made statistics of the same cutouts (hand_made.py), with and without the
  catalogue, from the same training rows; `statistics=show` lists their names;
- completeness at a false positive rate of 1% by Einstein radius, from the survey's truth table.

What lies in `folder` (default: ablation/ in the system's folder for temporary files) is not made
again: a benchmark that was stopped goes on, and other seeds add their runs.
"""

import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
import hand_made  # noqa: E402

from lens_hpc import Dataset, layout, metrics  # noqa: E402
from lens_hpc.dataset.split import Split  # noqa: E402
from lens_hpc.metrics import ScoredSample  # noqa: E402

TRAINING, VALIDATION, TEST = 2800, 600, 3000
ARMS = ("features", "image", "fusion")
LAUNCH = ["accelerate.commands.launch", "--main_process_port", "0", "--config_file"]
CPU = "configs/accelerate/cpu.yaml"

RATE = 0.01
BINS = 5
NORMAL_QUANTILE = 1.96

# What must hold.
LARGEST_P = 0.01
LEAST_ADVANTAGE = 0.02


class Arm(NamedTuple):
    """What one way to find lenses says of the test rows."""

    name: str
    logits: np.ndarray
    """(seeds, N)."""

    @property
    def mean(self) -> np.ndarray:
        """The mean logit of the seeds, (N,)."""
        return self.logits.mean(axis=0)


# ---- to simulate, pack and train ----


def make_dataset(survey: Path, dataset: Path, seed: int) -> None:
    """Simulate and pack a survey, as far as that is not done."""
    objects = TRAINING + VALIDATION + TEST
    if not survey.exists():
        lens_hpc("simulate", str(survey), f"objects={objects}", f"seed={seed}")
    if dataset.exists():
        return

    rows = len(pd.read_csv(survey / "catalogue.csv"))
    test, validation = TEST / rows, VALIDATION / rows
    splits = f"{{train: {1 - validation - test}, val: {validation}, test: {test}}}"
    recipe, source, output = survey / "recipe.yaml", f"source={survey}", f"output={dataset}"
    lens_hpc("pack", str(recipe), source, output, f"splits={splits}")


def train(run: Path, dataset: Path, config: Path, arm: str, seed: int, processes: int) -> None:
    """Train and evaluate a run, as far as that is not done."""
    changed = [f"run={run}", f"data.dataset={dataset}", f"model.inputs={arm}", f"train.seed={seed}"]
    if not (run / layout.FINAL / layout.WEIGHTS).is_file():
        lens_hpc("train", str(config), *changed, processes=processes)
    if not (layout.evaluation_folder(run, "test") / layout.PREDICTIONS).is_file():
        lens_hpc("evaluate", str(run), processes=processes)


def lens_hpc(*arguments: str, processes: int = 1) -> None:
    """Run a command, in one process or several."""
    module = ["lens_hpc", *arguments]
    if processes > 1:
        launch = [*LAUNCH, str(ROOT / CPU), "--num_processes", str(processes)]
        module = [*launch, "-m", *module]
    environment = {"ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)} | os.environ
    subprocess.run([sys.executable, "-m", *module], check=True, env=environment)


# ---- what was found ----


def read_arm(folder: Path, arm: str, seeds: list[int], split: Split) -> Arm:
    """Read the logits of an arm's runs, in the order of the split's rows."""
    logits = []
    for seed in seeds:
        evaluation = layout.evaluation_folder(folder / f"{arm}-{seed}", split.name)
        table = pd.read_parquet(evaluation / layout.PREDICTIONS).set_index("index").sort_index()
        logits.append(table["logit"].to_numpy())
    return Arm(arm, np.array(logits))


def grow_trees(dataset: Dataset, seeds: list[int], show: bool) -> list[Arm]:
    """Train boosted trees on statistics of the cutouts, alone and beside the catalogue."""
    pixel_scale = dataset.manifest.pixel_scale_arcsec
    tables = {}
    for name in ("train", "test"):
        split = dataset[name]
        rows = np.arange(len(split))
        images, features = split.take("images", rows), split.take("features", rows)
        statistics, names = hand_made.measure(images, dataset.manifest.bands, pixel_scale)
        tables[name] = statistics, np.hstack([statistics, features])

    print(f"{len(names)} hand-made statistics")
    if show:
        print("  " + "\n  ".join(names))

    labels = labels_of(dataset["train"])
    arms = []
    kinds = zip(("statistics", "statistics + catalogue"), *tables.values(), strict=True)
    for kind, training, test in kinds:
        scores = [hand_made.score(training, labels, test, seed) for seed in seeds]
        arms.append(Arm(kind, np.array(scores)))
    return arms


def labels_of(split: Split) -> np.ndarray:
    """Return the labels of all rows, (N,)."""
    return split.take("labels", np.arange(len(split)))


def auc_of(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the ROC curve."""
    return float(metrics.auc(metrics.rank(labels, scores)))


# ---- tables ----


def print_aucs(labels: np.ndarray, arms: list[Arm]) -> None:
    """Print a line for each run, and one for each arm."""
    print(
        f"\n{'AUC of ' + f'{len(labels):,} rows':<28}{'by seed':<28}  mean  sd     of mean logits"
    )
    for arm in arms:
        aucs = np.array([auc_of(labels, scores) for scores in arm.logits])
        low, high = metrics.auc_interval(ScoredSample(labels, arm.mean))
        apart = aucs.std(ddof=1) if len(aucs) > 1 else np.nan
        listed = " ".join(f"{value:.4f}" for value in aucs)
        together = f"{auc_of(labels, arm.mean):.4f} [{low:.4f}, {high:.4f}]"
        print(f"{arm.name:<28}{listed:<28}  {aucs.mean():.4f} {apart:.4f} {together}")


def print_judgement(labels: np.ndarray, arms: dict[str, Arm]) -> None:
    """Print whether what must hold does."""
    fusion = [auc_of(labels, scores) for scores in arms["fusion"].logits]
    halves = {
        name: max(auc_of(labels, scores) for scores in arms[name].logits)
        for name in ("image", "features")
    }
    best = max(halves.values())
    word = "above" if min(fusion) > best else "NOT above"
    print(f"\nworst fusion seed {min(fusion):.4f}: {word} the best seed of either half, {best:.4f}")

    pairs = [(name, "fusion", name) for name in halves]
    for name, one, other in pairs:
        test = metrics.compare_aucs(labels, arms[one].mean, arms[other].mean)
        print(f"{one} - {name}, paired: {describe(test)}; p < {LARGEST_P} is wanted")

    print(f"network - trees, paired; {LEAST_ADVANTAGE} is wanted:")
    for one, other in (("image", "statistics"), ("fusion", "statistics + catalogue")):
        test = metrics.compare_aucs(labels, arms[one].mean, arms[other].mean)
        print(f"  {one} - {other}: {describe(test)}")


def describe(test: metrics.Difference) -> str:
    """Return a difference, its interval and its p-value."""
    low, high = test.ci95
    p_value = f"p = {test.shown_p}".replace("= <", "<")
    return f"{test.difference:+.4f} [{low:+.4f}, {high:+.4f}], {p_value}"


def print_completeness(split: Split, survey: Path, arms: list[Arm]) -> None:
    """Print the completeness of each arm at one false positive rate, by Einstein radius."""
    labels = labels_of(split)
    truth = pd.read_csv(survey / "truth.csv", dtype={"id": str}).set_index("id")
    radii = truth["einstein_radius"].reindex(split.ids()).to_numpy()[labels == 1]
    edges = np.quantile(radii, np.linspace(0, 1, BINS + 1))
    bin_of = np.clip(np.searchsorted(edges, radii, "right") - 1, 0, BINS - 1)

    print(f"\ncompleteness (and 95%) at FPR {RATE:.0%} by Einstein radius, arcsec")
    bins = [f"{low:.2f}-{high:.2f}" for low, high in pairwise(edges)]
    print(f"{'':<24}" + "".join(f"{name:>19}" for name in bins))
    for arm in arms:
        threshold = np.quantile(arm.mean[labels == 0], 1 - RATE, method="higher")
        found = arm.mean[labels == 1] > threshold
        cells = [found[bin_of == number] for number in range(BINS)]
        print(f"{arm.name:<24}" + "".join(f"{describe_share(cell):>19}" for cell in cells))


def describe_share(found: np.ndarray) -> str:
    """Return the share of what was found, (N,) bool, with Wilson's interval."""
    low, high = metrics.wilson(found.mean(), len(found), NORMAL_QUANTILE)
    return f"{found.mean():.2f} [{low:.2f}, {high:.2f}]"


def main(options: dict[str, str]) -> None:
    """Do all that is not done, and print what was found."""
    temporary = Path(tempfile.gettempdir())
    folder = Path(options.get("folder", temporary / "ablation")).absolute()
    survey = Path(options.get("survey", folder / "survey")).absolute()
    config = Path(options.get("config", ROOT / "configs/train/demo.yaml")).absolute()
    seeds = [int(word) for word in options.get("seeds", "0,1,2").split(",")]
    processes = int(options.get("processes", 2))

    dataset = folder / "dataset"
    make_dataset(survey, dataset, int(options.get("seed", 100)))
    for seed in seeds:
        for arm in ARMS:
            train(folder / f"{arm}-{seed}", dataset, config, arm, seed, processes)

    packed = Dataset(dataset)
    split = packed["test"]
    arms = [read_arm(folder, arm, seeds, split) for arm in ARMS]
    arms += grow_trees(packed, seeds, options.get("statistics") == "show")

    labels = labels_of(split)
    print_aucs(labels, arms)
    print_judgement(labels, {arm.name: arm for arm in arms})
    if (survey / "truth.csv").is_file():
        print_completeness(split, survey, arms)


if __name__ == "__main__":
    main(dict(argument.split("=", 1) for argument in sys.argv[1:]))
