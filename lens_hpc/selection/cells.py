"""What was found of the trials: by cell of the grid, along a curve, and without the arc."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lens_hpc.metrics import Interval, blaker
from lens_hpc.reporting.breakdown import Column
from lens_hpc.selection.grid import TrialGrid

FEWEST_TRIALS = 20
"""A cell with fewer says so: its interval is nearly as wide as all there is."""
BINS = 8
MOST = 0.5

interval = cache(blaker)


@dataclass(frozen=True)
class Found:
    """How many of some trials were found."""

    trials: int
    found: int

    @property
    def fraction(self) -> float:
        """NaN without trials."""
        return self.found / self.trials if self.trials else float("nan")

    @property
    def ci95(self) -> Interval:
        """Of the fraction (Blaker 2000)."""
        return interval(self.found, self.trials) if self.trials else (0.0, 1.0)

    @property
    def is_enough(self) -> bool:
        """Whether there are as many trials as a cell needs."""
        return self.trials >= FEWEST_TRIALS

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        low, high = self.ci95
        fraction = self.fraction if self.trials else None
        numbers = {"fraction": fraction, "ci95_low": low, "ci95_high": high}
        return asdict(self) | numbers | {"few_trials": not self.is_enough}


def count_found(is_found: np.ndarray) -> Found:
    """Count the trials (N,) bool that were found."""
    return Found(len(is_found), int(np.count_nonzero(is_found)))


# ---- the map ----


class Map(NamedTuple):
    """What was found in each cell of a grid."""

    grid: TrialGrid
    cells: list[list[Found]]
    """By Einstein radius, then by source magnitude."""
    title: str = ""
    """The value of the third axis; empty: all trials."""

    @property
    def fractions(self) -> np.ndarray:
        """Found fractions (radii, magnitudes); NaN without trials."""
        return np.array([[cell.fraction for cell in row] for row in self.cells])

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each cell, for a table."""
        for radii, row in zip(pairwise(self.grid.einstein_radius), self.cells, strict=True):
            for magnitudes, cell in zip(pairwise(self.grid.source_magnitude), row, strict=True):
                edges = {
                    "einstein_radius_low": radii[0],
                    "einstein_radius_high": radii[1],
                    "source_magnitude_low": magnitudes[0],
                    "source_magnitude_high": magnitudes[1],
                }
                yield {"by": self.title or None} | edges | cell.as_dict()


def make_map(grid: TrialGrid, trials: pd.DataFrame, title: str = "") -> Map:
    """Count the trials in each cell; they have columns radius_cell, magnitude_cell and found."""
    rows, columns = grid.shape
    cell = trials["radius_cell"].to_numpy() * columns + trials["magnitude_cell"].to_numpy()
    is_found = trials["found"].to_numpy()
    total = np.bincount(cell, minlength=rows * columns).reshape(rows, columns)
    found = np.bincount(cell[is_found], minlength=rows * columns).reshape(rows, columns)

    cells = [
        [Found(int(of), int(number)) for of, number in zip(*row, strict=True)]
        for row in zip(total, found, strict=True)
    ]
    return Map(grid, cells, title)


def maps_by(grid: TrialGrid, trials: pd.DataFrame, name: str, column: Column) -> list[Map]:
    """Return a map for each value of a third axis, (N,) as the trials."""
    maps = []
    for code, value in enumerate(column.names):
        chosen = trials[column.codes == code]
        if len(chosen):
            maps.append(make_map(grid, chosen, f"{name} {value}"))
    return maps


# ---- curves ----


class CurvePoint(NamedTuple):
    """What was found of the trials with a value in a bin."""

    low: float
    middle: float
    """Median of the values."""
    high: float
    found: Found


def make_curve(values: np.ndarray, is_found: np.ndarray) -> list[CurvePoint]:
    """Return what was found along values (N,), in bins of equal count; NaN is left out."""
    known = np.isfinite(values)
    values, is_found = values[known], is_found[known]
    bins = min(BINS, len(values) // FEWEST_TRIALS)
    if not bins:
        return []
    ascending = np.argsort(values, kind="stable")
    points = []
    for rows in np.array_split(ascending, bins):
        own = values[rows]
        found = count_found(is_found[rows])
        points.append(CurvePoint(own[0], float(np.median(own)), own[-1], found))
    return points


# ---- does it look at the arc? ----


@dataclass(frozen=True)
class ArcTest:
    """What becomes of the lenses that were found when their arc is not there."""

    found: Found
    """Of all trials."""
    without: Found
    """Of those found: below the threshold without the arc, which is the host as it is."""
    hidden: Found
    """Of those found whose arc was hidden by sky: below the threshold then."""
    control: Found
    """Of those found where as much was hidden beside the arc: below the threshold then."""
    attention_arc: float
    """Median attention on the arc over that on the whole cutout; NaN for a model without."""
    attention_control: float
    """The same on as many pixels beside the arc."""

    @property
    def are_found_without(self) -> bool:
        """Whether most of the lenses that were found are found without their arc, too."""
        return self.without.trials > 0 and self.without.fraction < MOST

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        shares = {
            "found": self.found,
            "lost_without_arc": self.without,
            "lost_arc_hidden": self.hidden,
            "lost_control_hidden": self.control,
        }
        attention = {"arc": self.attention_arc, "control": self.attention_control}
        plain = {key: None if np.isnan(value) else value for key, value in attention.items()}
        return {key: one.as_dict() for key, one in shares.items()} | {"attention": plain}


def judge_arcs(trials: pd.DataFrame, threshold: float) -> ArcTest:
    """Say what becomes of the trials that were found, by their scores without the arc."""
    found = trials[trials["found"]]
    # Arc and control are compared on the same trials.
    tried = found.dropna(subset=["logit_hidden", "logit_control"])

    def lost(rows: pd.DataFrame, name: str) -> Found:
        return count_found(rows[name].to_numpy() < threshold)

    both = trials[["attention_arc", "attention_control"]].dropna()
    return ArcTest(
        found=count_found(trials["found"].to_numpy()),
        without=lost(found, "logit_host"),
        hidden=lost(tried, "logit_hidden"),
        control=lost(tried, "logit_control"),
        attention_arc=float(both["attention_arc"].median()),
        attention_control=float(both["attention_control"].median()),
    )
