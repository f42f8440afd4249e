"""Where real lenses are few: are injected and real ones together better to train on than real ones?

    python benchmarks/injected_training.py [folder=DIR] [objects=3600] [seed=7] [seeds=0,1,2]
                                           [lenses=50] [epochs=8] [processes=1] [cfhtls=SOURCE]

A mock survey like HSC is simulated, a fifth of it lenses. Training has `lenses` of them and 45% of
the non-lenses; validation as many lenses and 10%; the test split has all others. One arm trains on
these rows. The other has arcs painted on the ellipticals of its training split besides, by a law
that was written down without a look at the test rows; its real lenses are kept. Both see only the
images, and both classes equally often. With `cfhtls`, the folder with the CFHTLS Space Warps
pictures (configs/pack/cfhtls_spacewarps.yaml), the same is done there; their pixels are 8-bit
pictures, which are taken for fluxes (pixels=assume_linear).

Printed, of the same test rows: AUC and completeness at false positive rates of 1% and 0.1% of each
run, of the mean logits with intervals, the spread of the seeds, and a paired test of the two arms.

What lies in `folder` (default: injected_training/ in the system's folder for temporary files) is
not made again: a benchmark that was stopped goes on.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from ablation import Arm, auc_of, describe, labels_of, lens_hpc, read_arm, train  # noqa: E402

from lens_hpc import Dataset, metrics  # noqa: E402
from lens_hpc.metrics import Interval, ScoredSample  # noqa: E402

ARMS = ("real", "injected")
RATES = (0.01, 0.001)
SIZE = 48
PREVALENCE = 0.22
TRAINING, VALIDATION = 0.45, 0.1

# Like the survey's own law, but not the same: a user knows neither it nor its selection.
MOCK = {
    "where": "label == 0 & startswith(`class`, 'elliptical')",
    "psf": {"g": 0.77, "r": 0.76, "i": 0.58},
    "deflector": {"einstein_radius": {"normal": [1.5, 0.4], "within": [0.75, 2.4]}},
    "sources": {
        "z": {"normal": [2.0, 0.5], "within": [1.0, 4.0]},
        "magnitude": {"normal": [24.0, 0.7], "within": [22.0, 25.5]},
        "band": "i",
        "colors": {"g": {"normal": [0.5, 0.3]}, "r": {"normal": [0.2, 0.15]}},
    },
}
# Counts of a picture have no magnitudes: a zero point of 25 and these make arcs of some 50 counts a
# pixel, and as blue, as those of the candidates are.
CFHTLS = {
    "where": "label == 0 & color_bi > 0.3 & mag_inst < -4",
    "psf": {"i": 0.65, "r": 0.7, "g": 0.75},
    "zero_point": {"i": 25.0, "r": 25.0, "g": 25.0},
    "gain": {"i": 1.0, "r": 1.0, "g": 1.0},
    "pixels": "assume_linear",
    "deflector": {"einstein_radius": {"normal": [1.8, 0.6], "within": [0.8, 3.5]}},
    "sources": {
        "z": {"normal": [2.0, 0.5], "within": [1.0, 4.0]},
        "magnitude": {"normal": [16.6, 0.6], "within": [15.0, 18.0]},
        "band": "g",
        "colors": {"r": {"normal": [0.4, 0.2]}, "i": {"normal": [0.7, 0.3]}},
    },
}


# ---- data ----


def make_mock(folder: Path, objects: int, seed: int, lenses: int) -> Path:
    """Simulate and pack a survey in which training has few lenses, as far as that is not done."""
    survey, dataset = folder / "survey", folder / "real"
    if not survey.exists():
        like = f"objects={objects}", f"prevalence={PREVALENCE}", "survey=hsc", f"size={SIZE}"
        lens_hpc("simulate", str(survey), f"seed={seed}", *like)
    if not dataset.exists():
        table = pd.read_csv(survey / "catalogue.csv")
        table["part"] = draw_parts(table["is_lens"].to_numpy(), lenses, seed)
        table.to_csv(survey / "few.csv", index=False)
        changed = "catalogue=few.csv", "columns.split=part"
        where = f"source={survey}", f"output={dataset}"
        lens_hpc("pack", str(survey / "recipe.yaml"), *where, *changed)
    return dataset


def draw_parts(is_lens: np.ndarray, lenses: int, seed: int) -> np.ndarray:
    """Draw a split for each of N rows: so many lenses to train on, and as many to validate."""
    rng = np.random.default_rng(seed)
    parts = np.full(len(is_lens), "test", dtype=object)
    others = (is_lens == 0).sum()
    wanted = {1: (lenses, lenses), 0: (round(TRAINING * others), round(VALIDATION * others))}
    for label, (training, validation) in wanted.items():
        rows = rng.permutation(np.flatnonzero(is_lens == label))
        parts[rows[:training]] = "train"
        parts[rows[training : training + validation]] = "val"
    return parts


def pack_pictures(folder: Path, source: Path) -> Path:
    """Pack the CFHTLS pictures, as far as that is not done: some 50 candidates to train on."""
    dataset = folder / "real"
    if not dataset.exists():
        recipe = ROOT / "configs/pack/cfhtls_spacewarps.yaml"
        splits = "splits={train: 0.55, val: 0.1, test: 0.35}"
        lens_hpc("pack", str(recipe), f"source={source}", f"output={dataset}", splits)
    return dataset


def inject(folder: Path, dataset: Path, law: dict[str, Any]) -> Path:
    """Paint arcs on hosts of the training split, beside all that is there."""
    output = folder / "injected"
    if not output.exists():
        recipe = folder / "inject.yaml"
        keeping = {"splits": ["train"], "others": "keep", "share": 1.0}
        recipe.write_text(yaml.safe_dump(law | keeping))
        lens_hpc("inject", str(dataset), f"output={output}", f"recipe={recipe}")
    return output


# ---- figures ----


def train_arms(folder: Path, seeds: list[int], epochs: int, processes: int) -> list[Arm]:
    """Train and evaluate both arms with all seeds, and return what they say of the test rows."""
    config = folder / "train.yaml"
    settings = yaml.safe_load((ROOT / "configs/train/demo.yaml").read_text())
    settings["data"]["balance"] = "oversample"
    settings["schedule"]["period_epochs"] = settings["train"]["epochs"] = epochs
    config.write_text(yaml.safe_dump(settings))

    arms = []
    for arm in ARMS:
        for seed in seeds:
            train_image_branch(folder, arm, config, seed, processes)
        arms.append(read_arm(folder, arm, seeds, Dataset(folder / arm)["test"]))
    return arms


def train_image_branch(folder: Path, arm: str, config: Path, seed: int, processes: int) -> None:
    """Train and evaluate one run of an arm."""
    train(folder / f"{arm}-{seed}", folder / arm, config, "image", seed, processes)


def print_arms(name: str, folder: Path, arms: list[Arm]) -> None:
    """Print what was found, and whether one arm is better than the other."""
    packed = {arm: Dataset(folder / arm) for arm in ARMS}
    labels = labels_of(packed["real"]["test"])
    assert (packed["real"]["test"].ids() == packed["injected"]["test"].ids()).all()

    print(f"\n{name}: {count_classes(labels)} to test")
    for arm in arms:
        training = labels_of(packed[arm.name]["train"])
        print(f"{arm.name}: {count_classes(training)} to train on")
        print_measures(labels, arm)

    real, injected = arms
    test = metrics.compare_aucs(labels, injected.mean, real.mean)
    print(f"injected and real - real, AUC of mean logits, paired: {describe(test)}")
    worst = min(auc_of(labels, scores) for scores in injected.logits)
    best = max(auc_of(labels, scores) for scores in real.logits)
    word = "above" if worst > best else "NOT above"
    print(f"worst seed with injected {worst:.4f}: {word} the best without, {best:.4f}", flush=True)


def count_classes(labels: np.ndarray) -> str:
    """Return how many rows of each class there are."""
    return f"{(labels == 1).sum():,} lenses and {(labels == 0).sum():,} others"


def print_measures(labels: np.ndarray, arm: Arm) -> None:
    """Print AUC and completeness of an arm: of each seed, their mean, and of the mean logits."""
    together = ScoredSample(labels, arm.mean)
    aucs = np.array([auc_of(labels, scores) for scores in arm.logits])
    print_measure("AUC", aucs, auc_of(labels, arm.mean), metrics.auc_interval(together))

    curves = [metrics.rank(labels, scores) for scores in arm.logits]
    for rate in RATES:
        shares = np.array([metrics.completeness_at_rate(curve, rate) for curve in curves])
        share = float(metrics.completeness_at_rate(together.curve, rate))
        interval = metrics.completeness_at_rate_interval(together, rate)
        print_measure(f"TPR at {rate:.1%}", shares, share, interval)


def print_measure(title: str, values: np.ndarray, value: float, interval: Interval) -> None:
    """Print a measure of each seed, (seeds,), and of the mean logits with its interval."""
    spread = values.std(ddof=1) if len(values) > 1 else np.nan
    listed = " ".join(f"{each:.4f}" for each in values)
    low, high = interval
    both = f"mean {values.mean():.4f} sd {spread:.4f}"
    print(f"  {title:<12}{listed}  {both}  of mean logits {value:.4f} [{low:.4f}, {high:.4f}]")


def main(options: dict[str, str]) -> None:
    """Do all that is not done, and print what was found."""
    default = Path(tempfile.gettempdir()) / "injected_training"
    folder = Path(options.get("folder", default)).absolute()
    seeds = [int(word) for word in options.get("seeds", "0,1,2").split(",")]
    epochs, processes = int(options.get("epochs", 8)), int(options.get("processes", 1))
    size = int(options.get("objects", 3600)), int(options.get("seed", 7))

    mock = folder / "mock"
    mock.mkdir(parents=True, exist_ok=True)
    inject(mock, make_mock(mock, *size, int(options.get("lenses", 50))), MOCK)
    print_arms("mock survey", mock, train_arms(mock, seeds, epochs, processes))

    if "cfhtls" in options:
        pictures = folder / "cfhtls"
        pictures.mkdir(exist_ok=True)
        inject(pictures, pack_pictures(pictures, Path(options["cfhtls"])), CFHTLS)
        # There are few rows, so that an epoch is short.
        arms = train_arms(pictures, seeds, 3 * epochs, processes)
        print_arms("CFHTLS pictures", pictures, arms)


if __name__ == "__main__":
    main(dict(argument.split("=", 1) for argument in sys.argv[1:]))
