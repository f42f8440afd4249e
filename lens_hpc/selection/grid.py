"""The trials of a selection function: in each cell of a grid so many lenses, each on its own host.

Within a cell all is drawn independently, and no host twice. So what is found of a cell is binomial,
and its interval is of all galaxies that the hosts are a sample of.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class TrialGrid:
    """The edges of the cells, ascending."""

    einstein_radius: tuple[float, ...]
    """*Unit: arcsec*"""
    source_magnitude: tuple[float, ...]
    """Of the unlensed source, in the reference band. *Unit: AB magnitude*"""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells along each axis."""
        return len(self.einstein_radius) - 1, len(self.source_magnitude) - 1


class Trials(NamedTuple):
    """N lenses to paint; each is an array (N,)."""

    host: np.ndarray
    """Number of its host."""
    radius_cell: np.ndarray
    """Number of its cell along the Einstein radius."""
    magnitude_cell: np.ndarray
    einstein_radius: np.ndarray
    """*Unit: arcsec*"""
    source_magnitude: np.ndarray
    """*Unit: AB magnitude*"""


def draw_trials(grid: TrialGrid, host_count: int, trials: int, seed: int) -> Trials:
    """Draw the trials of all cells, one cell behind the other.

    A cell has `trials`, or one on each host where there are fewer hosts. Radius and magnitude are
    uniform within the cell, which is a function of the seed, its place and the number of hosts.
    """
    count = min(trials, host_count)
    of_cells = []
    for row, radii in enumerate(pairwise(grid.einstein_radius)):
        for column, magnitudes in enumerate(pairwise(grid.source_magnitude)):
            rng = np.random.default_rng([seed, row, column])
            of_cell = Trials(
                host=rng.permutation(host_count)[:count],
                radius_cell=np.full(count, row),
                magnitude_cell=np.full(count, column),
                einstein_radius=rng.uniform(*radii, count),
                source_magnitude=rng.uniform(*magnitudes, count),
            )
            of_cells.append(of_cell)
    return Trials(*(np.concatenate(columns) for columns in zip(*of_cells, strict=True)))
