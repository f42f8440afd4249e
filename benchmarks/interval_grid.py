"""How often the intervals of a report hold the truth, and its tests are right, over many cells.

A cell is a kind of sample: scores are binormal, lenses and non-lenses normal with unit variance, so
far apart that the AUC is what the cell says. In a mixture, 5% of the lenses have the scores of
non-lenses. Where they are grouped, each lens or non-lens is an object of one to five rows, whose
scores have a correlation of 0.7. There the true value of every metric is known.
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product

import numpy as np
from scipy.special import ndtr, ndtri

from lens_hpc import metrics
from lens_hpc.metrics import ScoredSample
from lens_hpc.reporting.breakdown import RATE, Column, threshold_at_rate
from lens_hpc.reporting.recovery import ranks_of, recovered_shares
from lens_hpc.reporting.results import Results, Survey, evaluate_scores

SURVEY = Survey(1e-3, 10**6, (0.5, 0.9))
AUCS = (0.8, 0.97, 0.99)
LENSES = (5, 10, 20, 50, 100, 300)
OTHERS = (200, 2000, 10_000)
UNRECOGNISABLE = (0.0, 0.05)

LENSES_PAIRED = (10, 20, 50, 300)
OTHERS_PAIRED = (200, 2000)
# Correlation of the scores of two models, of one object.
ALIKE = (0.5, 0.9)

ROWS_OF_OBJECT = 5
CORRELATION_IN_OBJECT = 0.7

# What must hold: in each cell with that many lenses, and on average over cells with so many.
LEAST, MOST = 0.92, 0.98
FEWEST, MANY = 10, 50
REJECTED_AT_MOST = 0.07
FEWEST_TO_TEST = 20
STANDARD_ERRORS = 3


@dataclass(frozen=True)
class Cell:
    """A kind of sample."""

    auc: float
    """That of the lenses that can be recognised."""
    lenses: int
    others: int
    grouped: bool = False
    unrecognisable: float = 0.0

    @property
    def apart(self) -> float:
        """Distance of the means of both classes."""
        return float(2**0.5 * ndtri(self.auc))

    def completeness(self, threshold: np.ndarray | float) -> np.ndarray:
        """Return the true completeness above a threshold, (...)."""
        hidden = self.unrecognisable * ndtr(-threshold)
        return (1 - self.unrecognisable) * ndtr(self.apart - threshold) + hidden

    @property
    def true_auc(self) -> float:
        """The true value."""
        return (1 - self.unrecognisable) * self.auc + self.unrecognisable / 2

    @cached_property
    def true_average_precision(self) -> float:
        """The true value: precision integrated over completeness."""
        thresholds = np.linspace(12, -8, 4001)
        found = self.completeness(thresholds)
        selected = self.lenses * found + self.others * ndtr(-thresholds)
        return float(np.trapezoid(self.lenses * found / selected, found))

    def draw(self, rng: np.random.Generator) -> ScoredSample:
        """Return a sample of this kind."""
        is_lens = np.arange(self.lenses + self.others) < self.lenses
        return self.draw_models(rng, is_lens, 1.0, (self.apart,))[0]

    def draw_models(
        self, rng: np.random.Generator, is_lens: np.ndarray, alike: float, apart: tuple[float, ...]
    ) -> list[ScoredSample]:
        """Return the samples of models that score the same objects, of each distance of means."""
        recognised = is_lens & (rng.random(len(is_lens)) >= self.unrecognisable)
        count = len(is_lens)
        rows = rng.integers(1, ROWS_OF_OBJECT + 1, count) if self.grouped else np.ones(count, int)
        objects = np.repeat(np.arange(count), rows)
        within = CORRELATION_IN_OBJECT if self.grouped else 1.0

        of_all = rng.normal(size=count)
        of_all_rows = rng.normal(size=len(objects))
        samples = []
        for distance in apart:
            own = mix(of_all, rng.normal(size=count), alike)
            own_rows = mix(of_all_rows, rng.normal(size=len(objects)), alike)
            scores = mix(own[objects], own_rows, within) + distance * recognised[objects]
            labels = is_lens[objects].astype(int)
            samples.append(ScoredSample(labels, scores, objects if self.grouped else None))
        return samples

    def __str__(self) -> str:
        kind = f"AUC {self.auc}, {self.lenses} lenses, {self.others:,} others"
        kind += ", grouped" * self.grouped
        return kind + ", mixture" * bool(self.unrecognisable)


def mix(one: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """Return a sum of unit variance, of which `one` has a share."""
    return np.sqrt(share) * one + np.sqrt(1 - share) * other


ALL = [Cell(*each) for each in product(AUCS, LENSES, OTHERS, (False, True), UNRECOGNISABLE)]
PAIRED = [Cell(*each) for each in product(AUCS, LENSES_PAIRED, OTHERS_PAIRED, (False, True))]


# ---- intervals ----


def truths(cell: Cell, sample: ScoredSample) -> dict[str, float]:
    """Return the true value of each metric that has an interval, by its key."""
    highest = np.sort(sample.scores[sample.labels == 0])[::-1]
    at_rate = {f"tpr_at_fpr_1e-{power}": -ndtri(10.0**-power) for power in (2, 3, 4)}
    at_threshold = {"tpr0": highest[0], "tpr10": highest[9], **at_rate}
    known = {key: float(cell.completeness(at)) for key, at in at_threshold.items()}
    return known | {"auc": cell.true_auc, "average_precision": cell.true_average_precision}


def intervals(
    cell: Cell, sample: ScoredSample, results: Results
) -> Iterator[tuple[str, float, float, float]]:
    """Yield name, truth, lower and upper bound of each interval that a report shows."""
    known = truths(cell, sample)
    for quantity in results.shown:
        if quantity.ci95:
            yield quantity.metric.key, known[quantity.metric.key], *quantity.ci95

    yield from intervals_of_the_top(cell, sample, results)
    yield from intervals_of_parts(cell, results)
    yield from intervals_of_known_lenses(cell, sample)
    for wanted, selection in zip(SURVEY.completeness, results.selections, strict=True):
        lenses = SURVEY.prevalence * float(cell.completeness(selection.threshold))
        others = (1 - SURVEY.prevalence) * float(ndtr(-selection.threshold))
        purity = lenses / (lenses + others)
        candidates = SURVEY.size * (lenses + others)
        yield f"purity at {wanted}", purity, selection.purity_at_least, 1.0
        yield f"candidates at {wanted}", candidates, 0.0, selection.candidates_at_most


def intervals_of_the_top(
    cell: Cell, sample: ScoredSample, results: Results
) -> Iterator[tuple[str, float, float, float]]:
    """Yield the intervals of what is found by inspecting so many objects.

    The truth is that between the score of the last object that is inspected, and of the next one.
    """
    highest_first = np.sort(sample.scores)[::-1]
    names = {100: "first 100", 500: "first 500", 1000: "first 1,000"}
    for found in results.inspections:
        if found.share_ci95:
            between = highest_first[found.objects - 1 : found.objects + 1].mean()
            name = names.get(found.objects, "first 1%")
            yield name, float(cell.completeness(between)), *found.share_ci95


def intervals_of_parts(cell: Cell, results: Results) -> Iterator[tuple[str, float, float, float]]:
    """Yield the intervals of what is said of half of the objects."""
    assert results.sample is not None
    assert results.at_half is not None
    at_half = results.at_half.threshold
    for part in results.breakdown["half"]:
        if part.auc_ci95:
            yield "AUC of a part", cell.true_auc, *part.auc_ci95
        if part.found and part.found.ci95:
            yield "part found at 50%", float(cell.completeness(at_half)), *part.found.ci95
        if part.false_alarms and part.false_alarms.ci95:
            rate = float(ndtr(-at_half))
            yield "part false alarms at 50%", rate, *part.false_alarms.ci95
        if part.found_at_rate and part.found_at_rate.ci95:
            threshold = threshold_at_rate(results.sample.curve, RATE)
            truth = float(cell.completeness(threshold))
            yield "part found at FPR 1%", truth, *part.found_at_rate.ci95


def intervals_of_known_lenses(
    cell: Cell, sample: ScoredSample
) -> Iterator[tuple[str, float, float, float]]:
    """Yield the intervals of how many of known lenses are recovered: every other lens is known."""
    count = len(sample.labels)
    objects = np.arange(count) if sample.groups is None else sample.groups
    _, first_rows = np.unique(objects, return_index=True)
    known = first_rows[sample.labels[first_rows] == 1][::2]
    ranks = ranks_of(sample.scores, known)

    highest_first = np.sort(sample.scores)[::-1]
    inspected = metrics.first_percent(count)
    for key, share in recovered_shares(ranks, sample.scores[known], count, sample).items():
        if key == "top_1_percent":
            threshold = highest_first[inspected - 1 : inspected + 1].mean()
        else:
            threshold = threshold_at_rate(sample.curve, float(key.removeprefix("fpr_")))
        if share.ci95:
            yield f"known at {key}", float(cell.completeness(threshold)), *share.ci95


def coverage(cell: Cell, trials: int, seed: int = 0) -> dict[str, float]:
    """Return how often each interval held the truth, in samples of a cell."""
    held: Counter[str] = Counter()
    shown: Counter[str] = Counter()
    for trial in range(trials):
        sample = cell.draw(np.random.default_rng([seed, trial]))
        results = evaluate_scores(
            sample.labels, sample.scores, SURVEY, sample.groups, columns={"half": halves(sample)}
        )
        for name, truth, low, high in intervals(cell, sample, results):
            shown[name] += 1
            held[name] += low <= truth <= high
    return {name: held[name] / times for name, times in shown.items()}


def halves(sample: ScoredSample) -> Column:
    """Return a column that has one value for every other object, and another for the rest."""
    objects = np.arange(len(sample.labels)) if sample.groups is None else sample.groups
    return Column((objects % 2).astype(np.int16), ["even", "odd"])


# ---- the paired test ----


@dataclass(frozen=True)
class Paired:
    """What the comparison of two models did in samples of a cell, as fractions of them."""

    rejected: float
    """Without a difference."""
    power: float
    """With half again as many pairs ranked wrong by the other."""
    held: float
    """The interval held the truth, in both."""


def compare(cell: Cell, alike: float, trials: int, seed: int = 0) -> Paired:
    """Compare two models in samples of a cell, whose scores have a correlation `alike`."""
    is_lens = np.arange(cell.lenses + cell.others) < cell.lenses
    worse = float(2**0.5 * ndtri(1 - 1.5 * (1 - cell.auc)))
    found: Counter[str] = Counter()
    for trial, apart in product(range(trials), (cell.apart, worse)):
        rng = np.random.default_rng([seed, trial])
        one, other = cell.draw_models(rng, is_lens, alike, (cell.apart, apart))
        result = metrics.compare_aucs(one.labels, one.scores, other.scores, one.groups)
        truth = cell.auc - float(ndtr(apart / 2**0.5))
        low, high = result.ci95
        found["held"] += low <= truth + 1e-12 and truth - 1e-12 <= high
        found["power" if apart == worse else "rejected"] += result.p_value < 0.05
    return Paired(found["rejected"] / trials, found["power"] / trials, found["held"] / (2 * trials))


# ---- what is printed ----


def print_grid(trials: int, seed: int = 0) -> None:
    """Print every cell, and what must hold."""
    print(f"{trials} samples a cell, seed {seed}; a fraction of 0.95 is known to", end=" ")
    print(f"{np.sqrt(0.95 * 0.05 / trials):.3f}")
    by_name: dict[str, dict[Cell, float]] = {}
    with ProcessPoolExecutor() as processes:
        every_cell = processes.map(partial(coverage, trials=trials, seed=seed), ALL)
        for cell, found in zip(ALL, every_cell, strict=True):
            for name, fraction in found.items():
                by_name.setdefault(name, {})[cell] = fraction
            shown = ", ".join(f"{name} {fraction:.3f}" for name, fraction in found.items())
            print(f"{cell}: {shown}", flush=True)
        by_name["difference of AUCs"] = print_paired(processes, trials, seed)
    print()
    for name, fractions in by_name.items():
        summarize(name, fractions, trials)
    enough = [found for each in by_name.values() for found in with_lenses(each, FEWEST).values()]
    large = [found for each in by_name.values() for found in with_lenses(each, MANY).values()]
    print(f"\nworst of all in cells of {FEWEST} lenses or more: {min(enough):.3f}")
    print(f"mean of all where each class has {MANY} or more: {np.mean(large):.3f}")


def print_paired(processes: Executor, trials: int, seed: int) -> dict[Cell, float]:
    """Print rejection and power of the paired test, and return how often its interval held."""
    held: dict[Cell, float] = {}
    rejected = []
    pairs = list(product(PAIRED, ALIKE))
    results = processes.map(partial(compare, trials=trials, seed=seed), *zip(*pairs, strict=True))
    for (cell, alike), found in zip(pairs, results, strict=True):
        print(
            f"{cell}, scores alike {alike}: a true null is rejected in {found.rejected:.3f}, "
            f"power {found.power:.3f}, the interval holds {found.held:.3f}",
            flush=True,
        )
        held[cell] = min(found.held, held.get(cell, 1.0))
        if cell.lenses >= FEWEST_TO_TEST:
            rejected.append(found.rejected)
    print(
        f"\npaired tests reject a true null in {max(rejected):.3f} at worst, "
        f"{np.mean(rejected):.3f} on average (at most {REJECTED_AT_MOST}; {FEWEST_TO_TEST} lenses "
        "or more)"
    )
    return held


def with_lenses(fractions: dict[Cell, float], fewest: int) -> dict[Cell, float]:
    """Return the cells with so many lenses, or more."""
    return {cell: found for cell, found in fractions.items() if cell.lenses >= fewest}


def summarize(name: str, fractions: dict[Cell, float], trials: int) -> None:
    """Print the worst cell of an interval and the mean of the large ones."""
    enough = with_lenses(fractions, FEWEST)
    worst = min(enough, key=lambda cell: enough[cell])
    chance = STANDARD_ERRORS * np.sqrt(LEAST * (1 - LEAST) / trials)
    below = sum(found < LEAST - chance for found in enough.values())
    mean = np.mean(list(with_lenses(fractions, MANY).values()))
    print(
        f"{name:<24} worst {enough[worst]:.3f} of {len(enough)} cells ({worst}), "
        f"{below} below {LEAST} by more than chance; mean {mean:.3f} (at most {MOST})"
    )
