"""Does it help to grade the top of a ranking and to train on the grades, where lenses are rare?

    python benchmarks/vetting.py [folder=DIR] [objects=100000] [prevalence=1e-3] [views=8]
                                 [rounds=3] [grades=500] [soft=0] [seeds=0,1,2] [demo=4000]
                                 [processes=2]

The first run is the demo's, trained on `demo` objects of the demo's mock survey. A survey of other
objects, one in a thousand a lens, has two halves: a pool that is graded, and a frozen test that is
not. In each round the run scores the pool, and a simulated grader looks at `grades` objects: 80 %
the highest scores, 20 % at random among the other candidates. 5 % of the answers are wrong. The
graded objects join the training set as lenses or none, as `combine` has A and X, and the run's
weights are trained on. All of this was fixed before any figure was seen.

Where lenses are rare, most objects that he takes for one are none. With `soft=1`, which was thought
of later, the soft label is what Bayes' rule makes of the run's calibrated probability and of his
answer. It needs another folder.

Printed for each round of each seed: how many objects of the test have to be inspected until 80 % of
its lenses are found, and at last the ratio of that before and after, with its mean over the seeds.
A row of the test in training is an error.

To paint 100,000 galaxies would take most of the time. So each galaxy that is no lens is seen from
`views` sides (flips and quarter turns of its pixels), all of which are in the same half; views=1
paints all of them. What lies in `folder` (default: vetting/ in the system's folder for temporary
files) is not made again: a benchmark that was stopped goes on.
"""

import math
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from ablation import lens_hpc  # noqa: E402

from lens_hpc import Dataset, layout  # noqa: E402
from lens_hpc.dataset.shards import BLOCK_ROWS, RowBlock, encode_texts  # noqa: E402
from lens_hpc.dataset.split import Split  # noqa: E402
from lens_hpc.grading.choosing import choose  # noqa: E402
from lens_hpc.grading.generations import make_generation  # noqa: E402
from lens_hpc.packing.derived import SplitRows, write_dataset  # noqa: E402
from lens_hpc.packing.describing import DatasetFacts  # noqa: E402
from lens_hpc.scoring.views import VIEWS, View  # noqa: E402

HALVES = ("pool", "test")
MIX = {"top": 0.8, "random": 0.2}
ERRORS = 0.05
WANTED = 0.8
"""Completeness that is asked for."""
EPOCHS = 6
"""Of each round's training; the demo's has 14."""
SURVEY_SEED = 19


class Options(NamedTuple):
    """What the command line says."""

    folder: Path
    objects: int
    prevalence: float
    views: int
    rounds: int
    grades: int
    soft: bool
    seeds: list[int]
    demo: int
    processes: int


# ---- data ----


def make_demo(options: Options) -> Path:
    """Return the run of the demo, trained here as far as that is not done."""
    survey, shards, run = (options.folder / name for name in ("demo-survey", "shards", "run"))
    if not survey.exists():
        lens_hpc("simulate", str(survey), f"objects={options.demo}", "seed=0")
    if not shards.exists():
        lens_hpc("pack", str(survey / "recipe.yaml"), f"source={survey}", f"output={shards}")
    train(run, shards, options)
    return run


def make_survey(options: Options) -> None:
    """Simulate the survey and pack its halves, as far as that is not done."""
    lenses = round(options.objects * options.prevalence)
    galaxies = lenses + round((options.objects - lenses) / options.views)
    survey, packed = options.folder / "survey", options.folder / "galaxies"
    if not survey.exists():
        share = f"prevalence={lenses / galaxies}"
        lens_hpc("simulate", str(survey), f"objects={galaxies}", share, f"seed={SURVEY_SEED}")
    if not packed.exists():
        # Mock surveys give the same ids to different objects.
        table = pd.read_csv(survey / "catalogue.csv")
        table["name"] = "survey-" + table["id"]
        table.to_csv(survey / "named.csv", index=False)
        where = f"source={survey}", f"output={packed}"
        changed = "catalogue=named.csv", "columns.id=name", "splits={pool: 0.5, test: 0.5}"
        lens_hpc("pack", str(survey / "recipe.yaml"), *where, *changed)

    for half in HALVES:
        if not (options.folder / half).exists():
            write_views(Dataset(packed)[half], options.folder / half, options.views)


def write_views(galaxies: Split, output: Path, views: int) -> None:
    """Write a dataset of galaxies without labels, each that is no lens from so many sides."""
    is_lens = galaxies.take("labels", np.arange(len(galaxies))) == 1
    times = np.where(is_lens, 1, views)
    rows = np.repeat(np.arange(len(galaxies)), times)
    numbers = np.concatenate([np.arange(count) for count in times])

    # Neighbours in a file should not be the same galaxy.
    order = np.random.default_rng(SURVEY_SEED).permutation(len(rows))
    blocks = view_blocks(galaxies, rows[order], numbers[order])
    manifest = galaxies.manifest
    facts = {field.name: getattr(manifest, field.name) for field in fields(DatasetFacts)}
    write_dataset(output, DatasetFacts(**facts), {"objects": SplitRows(len(rows), blocks)})


def view_blocks(galaxies: Split, rows: np.ndarray, numbers: np.ndarray) -> Iterator[RowBlock]:
    """Yield the rows of galaxies, each from the side of a number; their ids end with that."""
    ids = [f"{name}-{number}" for name, number in zip(galaxies.ids(rows), numbers, strict=True)]
    encoded = encode_texts(np.array(ids))
    for start in range(0, len(rows), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        columns = {
            name: galaxies.take(name, rows[block])
            for name in ("images", "features", "labels", "ids", "groups", "sources")
        }
        seen = RowBlock(**columns)
        sides = [VIEWS["d4"][number] for number in numbers[block]]
        images = np.stack([turn(*each) for each in zip(seen.images, sides, strict=True)])
        hidden = np.full(len(images), -1, np.int8)
        yield replace(seen, images=images, ids=encoded[block], labels=hidden)


def turn(image: np.ndarray, view: View) -> np.ndarray:
    """Return a cutout (bands, height, width) as it is seen from a side."""
    return np.flip(np.rot90(image, view.quarter_turns, (-2, -1)), view.flipped_axes)


def read_truth(options: Options) -> pd.Series:
    """Return which galaxies of the survey are lenses, by their ids."""
    table = pd.read_csv(options.folder / "survey" / "named.csv").set_index("name")
    return table["is_lens"] == 1


def is_lens_of(ids: pd.Series, truth: pd.Series) -> np.ndarray:
    """Return which rows of the survey are lenses, (N,), by their ids."""
    return truth[ids.str.rsplit("-", n=1).str[0]].to_numpy()


# ---- a round ----


def train(
    run: Path, dataset: Path, options: Options, start: Path | None = None, seed: int = 0
) -> None:
    """Train a run of the demo's settings, or train the weights of another one on."""
    if (run / layout.FINAL / layout.WEIGHTS).is_file():
        return
    changed = [f"run={run}", f"data.dataset={dataset}", f"train.seed={seed}"]
    if start is not None:
        changed += [f"model.weights={start}", f"train.epochs={EPOCHS}"]
        changed.append(f"schedule.period_epochs={EPOCHS}")
    config = ROOT / "configs/train/demo.yaml"
    lens_hpc("train", str(config), *changed, processes=options.processes)


def score(run: Path, half: str, output: Path, options: Options, seed: int = 0) -> pd.DataFrame:
    """Score one half of the survey, as far as that is not done; return id and logit of each."""
    if not (output / layout.SUMMARY).is_file():
        few = min(3 * options.grades, options.objects // 10)
        wanted = [f"candidates={few}", f"random={options.grades}"] if half == "pool" else []
        words = [str(run), str(options.folder / half), f"output={output}", f"seed={seed}", *wanted]
        prevalence = f"prevalence={options.prevalence}"
        lens_hpc("predict", *words, prevalence, processes=options.processes)
    return pd.read_parquet(output / layout.SCORES, columns=["id", "logit"])


def grade(candidates: Split, truth: pd.Series, options: Options, seed: int) -> pd.DataFrame:
    """Return what the chosen candidates teach, after the simulated grader has seen them."""
    kept = candidates.kept_columns()
    rows = choose(kept, options.grades, MIX, seed=seed).rows
    ids = candidates.ids(rows)
    is_lens = is_lens_of(pd.Series(ids), truth)
    is_wrong = np.random.default_rng(seed).random(len(ids)) < ERRORS
    says_lens = is_lens ^ is_wrong

    targets = says_lens.astype(np.float64)
    if options.soft:
        targets = posterior(kept["probability"].to_numpy(np.float64)[rows], says_lens)
    labels = (targets >= 0.5).astype(np.int8)
    columns = {"id": ids, "label": labels, "target": targets, "weight": 1.0}
    return pd.DataFrame(columns).assign(other_ids=[()] * len(ids))


def posterior(prior: np.ndarray, says_lens: np.ndarray) -> np.ndarray:
    """Return the probability of a lens, (N,), after the grader's answers: Bayes' rule."""
    if_lens = prior * np.where(says_lens, 1 - ERRORS, ERRORS)
    if_none = (1 - prior) * np.where(says_lens, ERRORS, 1 - ERRORS)
    return if_lens / (if_lens + if_none)


def objects_to_inspect(table: pd.DataFrame, truth: pd.Series) -> int:
    """Return how many objects stand before the last of 80 % of the lenses, and that one."""
    ordered = table.sort_values("logit", ascending=False, kind="stable")
    found = is_lens_of(ordered["id"], truth).cumsum()
    return int(np.searchsorted(found, math.ceil(WANTED * found[-1]))) + 1


def check_test_is_frozen(dataset: Path, test: Path) -> None:
    """Raise an error where a row of the test is among those that are trained on."""
    trained_on = Dataset(dataset)["train"]
    frozen = Dataset(test)["objects"]
    for name in ("ids", "pixel_hashes"):
        columns = [split.take(name, np.arange(len(split))) for split in (trained_on, frozen)]
        assert not np.isin(*columns).any(), f"{dataset}: rows of {test} are trained on"


# ---- all rounds ----


def run_rounds(first: Path, options: Options, seed: int, truth: pd.Series) -> list[int]:
    """Return the objects to inspect before any round, and after each."""
    run, dataset = first, options.folder / "shards"
    inspected = [measure(first, options.folder / "before", options, truth)]
    for number in range(1, options.rounds + 1):
        folder = options.folder / f"seed-{seed}" / f"round-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        score(run, "pool", folder / "scored", options, seed=1000 * seed + number)
        candidates = Dataset(folder / "scored" / layout.CANDIDATES)[layout.CANDIDATES]
        graded = grade(candidates, truth, options, 1000 * seed + number)

        if not (folder / "dataset").exists():
            make_generation(dataset, graded, candidates, folder / "dataset")
        check_test_is_frozen(folder / "dataset", options.folder / "test")
        train(folder / "run", folder / "dataset", options, start=run, seed=seed)
        run, dataset = folder / "run", folder / "dataset"
        inspected.append(measure(run, folder / "test", options, truth))
        print_round(seed, number, graded, truth, inspected)
    return inspected


def measure(run: Path, output: Path, options: Options, truth: pd.Series) -> int:
    """Return how many objects of the test have to be inspected, as a run ranks them."""
    return objects_to_inspect(score(run, "test", output, options), truth)


def print_round(
    seed: int, number: int, graded: pd.DataFrame, truth: pd.Series, inspected: list[int]
) -> None:
    """Print what a round has found."""
    lenses = int(is_lens_of(graded["id"], truth).sum())
    print(
        f"seed {seed}, round {number}: {len(graded)} graded, {lenses} lenses among them; "
        f"{inspected[-1]:,} objects to inspect for {WANTED:.0%} completeness, "
        f"{inspected[0]:,} before",
        flush=True,
    )


def main(words: dict[str, str]) -> None:
    """Do all that is not done, and print what was found."""
    default = Path(tempfile.gettempdir()) / "vetting"
    options = Options(
        folder=Path(words.get("folder", default)).absolute(),
        objects=int(words.get("objects", 100_000)),
        prevalence=float(words.get("prevalence", 1e-3)),
        views=int(words.get("views", 8)),
        rounds=int(words.get("rounds", 3)),
        grades=int(words.get("grades", 500)),
        soft=words.get("soft", "0") == "1",
        seeds=[int(word) for word in words.get("seeds", "0,1,2").split(",")],
        demo=int(words.get("demo", 4000)),
        processes=int(words.get("processes", 2)),
    )
    options.folder.mkdir(parents=True, exist_ok=True)
    make_survey(options)
    first, truth = make_demo(options), read_truth(options)

    before_and_after = []
    for seed in options.seeds:
        inspected = run_rounds(first, options, seed, truth)
        before_and_after.append((inspected[0], inspected[-1]))
    ratios = [after / before for before, after in before_and_after]
    print(f"objects to inspect, after / before: {', '.join(f'{each:.2f}' for each in ratios)}")
    word = "halved" if np.mean(ratios) <= 0.5 else "NOT halved"
    print(f"mean of {len(ratios)} seeds {np.mean(ratios):.2f}: {word}")


if __name__ == "__main__":
    main(dict(argument.split("=", 1) for argument in sys.argv[1:]))
