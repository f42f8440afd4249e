"""The gate of an injection: are painted arcs like those of known lenses, or such as nobody sees?

The usual trap is arcs that are a hundred times too bright: a network that has learned to find them
misses the real ones.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from lens_hpc.dataset.bands import by_wavelength
from lens_hpc.errors import UserError
from lens_hpc.logs import logger
from lens_hpc.packing.tables import read_table

KNOWN_QUANTILES = (0.05, 0.95)
"""Between these quantiles of the known lenses the painted median must lie."""
FEWEST_KNOWN = 20
"""Of n lenses of the same law, the true median lies below the second-lowest with a probability of
(n + 1) / 2^n: 2e-5 for 20, so that such a law is next to never refused; 0.2 for 5."""


class ArcQuantity(NamedTuple):
    """Something that is measured of each arc."""

    family: str
    """What it is, whatever the band."""
    unit: str
    part: str
    """Its band or bands; empty where it has none."""
    columns: tuple[str, ...]
    """Of the truth table: one, or two that are divided or subtracted."""
    operation: Literal["", "/", "-"] = ""

    @property
    def title(self) -> str:
        """Its name in a message."""
        return f"{self.family}, {self.part}" if self.part else self.family

    def of(self, table: pd.DataFrame) -> np.ndarray:
        """Return its finite values in a table, (n,); none where the table lacks a column."""
        if not set(self.columns) <= set(table.columns):
            return np.empty(0)

        operands = [table[name].to_numpy(dtype=np.float64) for name in self.columns]
        with np.errstate(divide="ignore", invalid="ignore"):
            values = _combine(operands, self.operation)
        return values[np.isfinite(values)]


class ArcVerdict(NamedTuple):
    """What the gate says of one quantity."""

    quantity: ArcQuantity
    painted: np.ndarray
    """(n,) finite values, as they were painted."""
    known: np.ndarray
    """(k,) finite values of known lenses; none where there is nothing to compare with."""

    @property
    def is_compared(self) -> bool:
        """Whether there are enough values to compare."""
        return len(self.painted) > 0 and len(self.known) >= FEWEST_KNOWN

    @property
    def median(self) -> float:
        """The median of what was painted; NaN where nothing was."""
        return float(np.median(self.painted)) if len(self.painted) else float("nan")

    @property
    def known_range(self) -> tuple[float, float]:
        """The range in which the median must lie."""
        low, high = np.quantile(self.known, KNOWN_QUANTILES)
        return float(low), float(high)

    @property
    def is_refused(self) -> bool:
        """Whether the painted median lies outside the range of the known lenses."""
        if not self.is_compared:
            return False
        low, high = self.known_range
        return not low <= self.median <= high

    def __str__(self) -> str:
        unit = f" {self.quantity.unit}" if self.quantity.unit else ""
        painted = f"{self.quantity.title}: painted median {self.median:.3g}{unit}"
        if not len(self.known):
            return f"{painted}; not compared: no known lens has it"
        if not self.is_compared:
            return f"{painted}; not compared: {len(self.known)} known lenses, {FEWEST_KNOWN} needed"

        low, high = self.known_range
        place = "outside of" if self.is_refused else "within"
        known = f"{low:.3g} to {high:.3g} (5 to 95% of {len(self.known)} known)"
        return f"{painted}, {place} {known}"


class Gate(NamedTuple):
    """What was painted, beside what is known."""

    verdicts: list[ArcVerdict]
    has_known: bool
    """Whether a list of known lenses was given."""

    def lines(self) -> list[str]:
        """Return what was compared, and a line for each quantity that was painted."""
        if not self.has_known:
            medians = [str(verdict).partition(";")[0] for verdict in self.verdicts]
            return ["compared with nothing: no list of known lenses is given (known)", *medians]

        compared = sum(verdict.is_compared for verdict in self.verdicts)
        summary = f"{compared} of {len(self.verdicts)} quantities compared with known lenses"
        return [summary, *map(str, self.verdicts)]

    def problems(self) -> list[str]:
        """Return what lies outside, a line for each quantity."""
        return [str(verdict) for verdict in self.verdicts if verdict.is_refused]

    def enforce(self, known_file: Path, gate: Literal["refuse", "warn"]) -> None:
        """Raise UserError where a painted median lies outside of the known, or warn of it."""
        problems = self.problems()
        if not problems:
            return

        listed = "; ".join(problems)
        message = f"painted arcs are not like the lenses of {known_file}: {listed}"
        if gate == "refuse":
            remedy = "change deflector and sources of the recipe, or set gate=warn"
            raise UserError(f"{message}; {remedy}")
        logger.warning(message)


def judge(truth: pd.DataFrame, known: pd.DataFrame | None, bands: Sequence[str]) -> Gate:
    """Compare what was painted with known lenses, a quantity after the other.

    `truth` has the columns of a truth table, `known` any of them. Quantities that were not painted
    are left out.
    """
    verdicts = []
    for quantity in quantities(bands):
        painted = quantity.of(truth)
        values = np.empty(0) if known is None else quantity.of(known)
        if len(painted):
            verdicts.append(ArcVerdict(quantity, painted, values))
    return Gate(verdicts, known is not None)


def read_known(file: Path, bands: Sequence[str]) -> pd.DataFrame:
    """Read those columns of a list of known lenses that a truth table has, too.

    Cells that are missing are NaN. Raises UserError where the file cannot be read, has no such
    column, or a cell that is no number.
    """
    wanted = sorted({name for quantity in quantities(bands) for name in quantity.columns})
    table = read_table(file, wanted)
    there = [name for name in wanted if name in table]
    columns = {}
    for name in there:
        numbers, wrong = table.numbers(name)
        if len(wrong):
            row = int(wrong[0])
            cell = table.text(name, row)
            raise UserError(f"{file}: {name} of row {row + 1} is no number: {cell}; correct it")
        columns[name] = numbers.to_numpy(zero_copy_only=False).astype(np.float64)

    known = pd.DataFrame(columns)
    if not any(len(quantity.of(known)) for quantity in quantities(bands)):
        raise UserError(
            f"{file}: has no value to compare arcs with: its columns are {table.names_shown()}; "
            f"name at least one as the truth does: {', '.join(wanted)}"
        )
    return known


def quantities(bands: Sequence[str]) -> Iterator[ArcQuantity]:
    """Yield what is compared, in the order in which it is shown."""
    yield ArcQuantity("Einstein radius", "arcsec", "", ("einstein_radius",))
    for band in bands:
        columns = "einstein_radius", f"seeing_{band}"
        yield ArcQuantity("Einstein radius / seeing", "", band, columns, "/")

    for band in bands:
        yield ArcQuantity("S/N of the arc", "", band, (f"arc_snr_{band}",))
    for band in bands:
        yield ArcQuantity("flux of arc / host", "", band, (f"arc_to_host_{band}",))

    bluest_first = [bands[number] for number in by_wavelength(bands)]
    for blue, red in pairwise(bluest_first):
        columns = f"arc_mag_{blue}", f"arc_mag_{red}"
        yield ArcQuantity("colour of the arc", "mag", f"{blue} - {red}", columns, "-")


def _combine(operands: list[np.ndarray], operation: str) -> np.ndarray:
    if operation == "/":
        return operands[0] / operands[1]
    if operation == "-":
        return operands[0] - operands[1]
    return operands[0]
