"""Is a recipe called better for the luck of its seeds? Arms of several seeds, over many cells.

The scores of every run are those of a cell (interval_grid.py), but each seed has an AUC of its own:
that of its recipe, and a normal scatter. In a true null, both arms have the same recipe; for the
power, the other one ranks more pairs wrong. Beside it stands the paired test of the first seed of
each, which knows nothing of seeds.
"""

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
from interval_grid import REJECTED_AT_MOST, Cell
from scipy.special import ndtri

from lens_hpc import metrics

CELLS = [
    Cell(*each)
    for each in product((0.8, 0.97), (20, 50, 300), (200, 2000), (False, True))
    if each[1] < each[2]
]
SCATTERS = (0.0, 0.003, 0.01)
SEEDS = (2, 3, 5)
ALIKE = 0.9
# Of a worse recipe, in the power.
MORE_WRONG = 1.5
# As small as a pair of seeds of one recipe once was, "significantly" different.
SMALL = 0.0007


@dataclass(frozen=True)
class Arms:
    """What the comparison of two arms did in samples of a cell, as fractions of them."""

    rejected: float
    """One recipe called better than itself."""
    rejected_far: float
    """The same, with a p-value below `SMALL`."""
    power: float
    """A worse recipe told from a better one."""
    pair_rejected: float
    """One recipe called better than itself by the paired test of one seed each."""
    pair_rejected_far: float
    """The same, with a p-value below `SMALL`."""


def compare_recipes(cell: Cell, scatter: float, seeds: int, trials: int, seed: int = 0) -> Arms:
    """Compare two arms of so many seeds in samples of a cell; their AUCs scatter so much."""
    is_lens = np.arange(cell.lenses + cell.others) < cell.lenses
    worse = 1 - MORE_WRONG * (1 - cell.auc)
    found: Counter[str] = Counter()
    for trial, other_auc in product(range(trials), (cell.auc, worse)):
        rng = np.random.default_rng([seed, trial])
        means = np.repeat([cell.auc, other_auc], seeds)
        aucs = np.clip(rng.normal(means, scatter), 0.5, 1 - 1e-6)
        runs = cell.draw_models(rng, is_lens, ALIKE, tuple(2**0.5 * ndtri(aucs)))

        labels, groups = runs[0].labels, runs[0].groups
        scores = [run.scores for run in runs]
        arms = metrics.compare_arms(labels, scores[:seeds], scores[seeds:], groups)
        if other_auc == worse:
            found["power"] += arms.p_value < 0.05
            continue

        pair = metrics.compare_aucs(labels, scores[0], scores[seeds], groups)
        found["rejected"] += arms.p_value < 0.05
        found["rejected_far"] += arms.p_value < SMALL
        found["pair_rejected"] += pair.p_value < 0.05
        found["pair_rejected_far"] += pair.p_value < SMALL
    names = ("rejected", "rejected_far", "power", "pair_rejected", "pair_rejected_far")
    return Arms(*(found[name] / trials for name in names))


def print_seed_grid(trials: int, seed: int = 0) -> None:
    """Print every cell, and what must hold."""
    cells = list(product(CELLS, SCATTERS, SEEDS))
    results: list[Arms] = []
    with ProcessPoolExecutor() as processes:
        run = partial(compare_recipes, trials=trials, seed=seed)
        for (cell, scatter, seeds), found in zip(
            cells, processes.map(run, *zip(*cells, strict=True)), strict=True
        ):
            results.append(found)
            print(
                f"{cell}, {seeds} seeds that scatter by {scatter}: one recipe is better than "
                f"itself in {found.rejected:.3f} (p < {SMALL}: {found.rejected_far:.3f}; by one "
                f"seed each {found.pair_rejected:.3f} and {found.pair_rejected_far:.3f}), power "
                f"{found.power:.3f}",
                flush=True,
            )

    rejected = [found.rejected for found in results]
    pairs = [found.pair_rejected for found in results]
    far = [found.rejected_far for found in results]
    print(
        f"\none recipe is better than itself in {max(rejected):.3f} at worst, "
        f"{np.mean(rejected):.3f} on average (at most {REJECTED_AT_MOST}); p < {SMALL} in "
        f"{np.mean(far):.4f} on average; by one seed each in {max(pairs):.3f} at worst, "
        f"{np.mean(pairs):.3f} on average"
    )
