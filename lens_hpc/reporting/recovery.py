"""Known lenses that lie in a split: where they are ranked, and how many of them are recovered.

They come from a list with a position each, such as that of lenscat (Vujeva et al. 2024, arXiv
2406.04398), whose columns are name, RA [deg], DEC [deg], zlens, type, grading and ref.
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lens_hpc.dataset.positions import (
    find_nearest,
    find_position_columns,
    first_of_each_place,
    positions_of,
)
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.logs import logger
from lens_hpc.metrics import ScoredSample, agresti_coull, first_percent
from lens_hpc.packing.tables import read_table
from lens_hpc.reporting.breakdown import ShareAbove, threshold_at_rate
from lens_hpc.reporting.too_few import FEWEST_FOR_SHARE
from lens_hpc.scoring.predictions import Scores
from lens_hpc.texts import csv_text

SAME_LENS_ARCSEC = 2.0
NAMES = ("name", "id", "objid", "object", "target", "lens")
RATES = {"fpr_1e-2": 1e-2, "fpr_1e-3": 1e-3, "fpr_1e-4": 1e-4}
TITLES = {
    "top_1_percent": "in the first 1% of the ranking",
    "fpr_1e-2": "at a false positive rate of 1%",
    "fpr_1e-3": "at a false positive rate of 0.1%",
    "fpr_1e-4": "at a false positive rate of 0.01%",
}
NORMAL_QUANTILE = 1.959964


@dataclass(frozen=True)
class KnownLenses:
    """A list of known lenses, each of which is in it once."""

    file: Path
    names: list[str]
    positions: np.ndarray
    """(K, 2), right ascension and declination. *Unit: degrees*"""
    unplaced: int = 0
    """Rows of the list that have no position, and are left out."""


@dataclass(frozen=True)
class Recovered:
    """A known lens that lies in the split."""

    name: str
    id: str
    """Of the row that is nearest to it."""
    rank: int
    """Of that row among all, from 1; equal scores count against it."""
    score: float
    label: int
    separation_arcsec: float


@dataclass(frozen=True)
class Recovery:
    """Which known lenses lie in a split, and how many of them are ranked high."""

    file: Path
    listed: int
    """Lenses of the list."""
    within_arcsec: float
    """So near to its position they are looked for."""
    lenses: list[Recovered]
    """Those that lie in the split, the best-ranked first."""
    ranked: int
    """Rows of the split."""
    nearest_arcsec: float
    """How far apart a row of the split and a lens of the list are, at least."""
    shares: dict[str, ShareAbove]
    """How many are recovered, by the keys of TITLES."""

    @property
    def called_non_lenses(self) -> int:
        """Those that the dataset calls no lenses."""
        return sum(lens.label == 0 for lens in self.lenses)

    @property
    def summary(self) -> str:
        """What was found, in a sentence."""
        if not self.lenses:
            return (
                f"none of the {self.listed:,} of {self.file.name} lies in this split; the nearest "
                f"is {self.nearest} away"
            )
        text = f"{len(self.lenses):,} of the {self.listed:,} of {self.file.name} lie in this split"
        middle = np.median([lens.rank for lens in self.lenses])
        text += f", median rank {middle:,.0f} of {self.ranked:,}"
        if self.shares:
            title, share = self.titled_shares[0]
            text += f", {share.above:,} of them {title}"
        return text

    @property
    def nearest(self) -> str:
        """How far a lens of the list and a row of the split are apart at least, for a reader."""
        arcsec = self.nearest_arcsec
        return f"{arcsec:.1f} arcsec" if arcsec < 60 else f"{arcsec / 3600:.3g} degrees"

    @property
    def titled_shares(self) -> list[tuple[str, ShareAbove]]:
        """How many are recovered, for a reader."""
        return [(TITLES[key], share) for key, share in self.shares.items()]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "known": str(self.file),
            "listed": self.listed,
            "in_split": len(self.lenses),
            "called_non_lenses": self.called_non_lenses,
            "nearest_arcsec": self.nearest_arcsec,
            "ranks": [lens.rank for lens in self.lenses],
            "recovered": {key: share.as_dict() for key, share in self.shares.items()},
        }

    def write(self, file: Path) -> None:
        """Write the lenses that lie in the split as CSV."""
        header = [field.name for field in fields(Recovered)]
        rows = [list(asdict(lens).values()) for lens in self.lenses]
        file.write_text(csv_text([header, *rows]), encoding="utf-8")


# ---- the list ----


def read_known_lenses(file: Path) -> KnownLenses:
    """Read a list of known lenses, in any format of a catalogue.

    Raise UserError without columns of right ascension and declination in degrees.
    """
    existing = read_table(file, ()).existing
    found = find_position_columns(existing)
    if found is None:
        raise UserError(
            f"known = {file}: has no columns of right ascension and declination, such as ra and "
            f"dec; it has: {', '.join(existing) or 'none'}"
        )

    by_small_letters = {name.lower(): name for name in existing}
    name_column = next((by_small_letters[name] for name in NAMES if name in by_small_letters), "")
    table = read_table(file, {*found, name_column})
    columns = {name: table.numbers(name)[0].to_numpy(zero_copy_only=False) for name in found}
    positions = positions_of(pd.DataFrame(columns))
    is_placed = np.isfinite(positions).all(axis=1)
    if not is_placed.any():
        raise UserError(
            f"known = {file}: no row has a position in {found[0]} and {found[1]}; give them as "
            "decimal degrees"
        )

    placed = np.flatnonzero(is_placed)
    placed = placed[first_of_each_place(positions[placed], SAME_LENS_ARCSEC)]
    names = [f"row {row + 1}" for row in range(len(table))]
    if name_column:
        given = table.texts(name_column).to_pylist()
        names = [name or row for name, row in zip(given, names, strict=True)]
    unplaced = int((~is_placed).sum())
    return KnownLenses(file, [names[row] for row in placed], positions[placed], unplaced)


# ---- where they are in a split ----


def split_positions(split: Split) -> np.ndarray:
    """Return right ascension and declination of the rows, (N, 2), NaN where unknown.

    *Unit: degrees*. Raise UserError for a dataset that keeps none.
    """
    kept = split.kept_columns()
    if find_position_columns(kept.columns) is None:
        raise UserError(
            f"known: {split.dataset} keeps no positions to find known lenses by; name the columns "
            "of right ascension and declination in columns.keep of the recipe, and pack it again"
        )
    positions = positions_of(kept)
    if not np.isfinite(positions).all(axis=1).any():
        raise UserError(f"known: no row of {split.name} in {split.dataset} has a position")
    return positions


def find_known_lenses(
    known: KnownLenses, split: Split, scores: Scores, sample: ScoredSample | None
) -> Recovery:
    """Find known lenses among the rows of a split.

    `sample` are its labelled scores, where it has both classes.
    """
    if known.unplaced:
        logger.warning(
            "%s: %d rows have no position in degrees, and are left out", known.file, known.unplaced
        )
    logits = scores.logits
    positions = split_positions(split)
    rows = np.flatnonzero(np.isfinite(positions).all(axis=1))
    numbers, separations = find_nearest(positions[rows], known.positions, SAME_LENS_ARCSEC)
    near = np.flatnonzero(np.isfinite(separations))
    nearest_arcsec = separations.min()
    if not len(near):
        _, distances = find_nearest(positions[rows], known.positions)
        nearest_arcsec = distances.min()

    # Of several rows of one lens, the nearest counts.
    near = near[np.lexsort((separations[near], numbers[near]))]
    _, first = np.unique(numbers[near], return_index=True)
    chosen = near[first]

    found = rows[chosen]
    ranks = ranks_of(logits, found)
    best_first = np.argsort(ranks, kind="stable")
    lenses = [
        Recovered(
            name=known.names[numbers[chosen[number]]],
            id=str(split.ids(found[[number]])[0]),
            rank=int(ranks[number]),
            score=float(logits[found[number]]),
            label=int(scores.labels[found[number]]),
            separation_arcsec=round(float(separations[chosen[number]]), 3),
        )
        for number in best_first
    ]
    return Recovery(
        file=known.file,
        listed=len(known.names),
        within_arcsec=SAME_LENS_ARCSEC,
        lenses=lenses,
        ranked=len(logits),
        nearest_arcsec=float(nearest_arcsec),
        shares=recovered_shares(ranks, logits[found], len(logits), sample) if lenses else {},
    )


def ranks_of(logits: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return how many rows have the score of each of `rows` or a higher one."""
    ordered = np.sort(logits)
    return len(logits) - np.searchsorted(ordered, logits[rows], side="left")


def recovered_shares(
    ranks: np.ndarray, scores: np.ndarray, row_count: int, sample: ScoredSample | None
) -> dict[str, ShareAbove]:
    """Return how many known lenses, with these ranks and scores, are recovered."""
    shares = {}
    inspected = first_percent(row_count)
    if inspected:
        shares["top_1_percent"] = _share(ranks <= inspected)

    for key, rate in RATES.items():
        threshold = None if sample is None else threshold_at_rate(sample.curve, rate)
        if threshold is not None:
            shares[key] = _share(scores >= threshold)
    return shares


def _share(is_recovered: np.ndarray) -> ShareAbove:
    above, total = int(np.count_nonzero(is_recovered)), len(is_recovered)
    interval = None
    if total >= FEWEST_FOR_SHARE:
        interval = agresti_coull(above / total, total, NORMAL_QUANTILE)
    return ShareAbove(above, total, interval)
