"""RUN/completeness/NAME: what is measured of a selection function, written and told."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lens_hpc import files, layout
from lens_hpc.reporting.breakdown import make_column
from lens_hpc.reporting.figures import save_figures
from lens_hpc.selection import figures
from lens_hpc.selection.cells import (
    FEWEST_TRIALS,
    ArcTest,
    Found,
    Map,
    judge_arcs,
    make_map,
    maps_by,
)
from lens_hpc.selection.grid import TrialGrid
from lens_hpc.selection.part_files import write_scored
from lens_hpc.selection.threshold import Cut


@dataclass(frozen=True)
class ScoredTrials:
    """The scores of all hosts and trials, and what is asked of them."""

    folder: Path
    grid: TrialGrid
    cut: Cut
    hosts: pd.DataFrame
    """A row each, with its logit."""
    trials: pd.DataFrame
    """A row each: its truth and its logits."""
    axis: pd.Series | None
    """The third axis: a value for each trial, under the name that was asked for."""
    fingerprint: str
    """Of all that the scores are a function of."""
    record: dict[str, Any]
    """The same in words, for completeness.json."""


@dataclass(frozen=True, repr=False)
class Completeness:
    """A selection function, as it lies on disk."""

    folder: Path
    """RUN/completeness/NAME."""
    record: dict[str, Any]
    """What completeness.json holds."""
    text: str
    """What the terminal prints."""

    @property
    def cells(self) -> pd.DataFrame:
        """What was found in each cell: a row each, with the 95% interval of the fraction."""
        return pd.read_parquet(self.folder / layout.CELLS)

    @property
    def trials(self) -> pd.DataFrame:
        """What was painted and scored: a row a trial."""
        return pd.read_parquet(self.folder / layout.TRIALS)

    def __repr__(self) -> str:
        return f"<Completeness: {self.text.partition(chr(10))[0]}>"


def write_selection(measured: ScoredTrials) -> Completeness:
    """Write the folder of a selection function, in place of one that is there."""
    threshold = measured.cut.find(measured.hosts["logit"].to_numpy())
    trials = _judged(measured, threshold)
    whole = make_map(measured.grid, trials)
    by: str | None = None
    parts: list[Map] = []
    if measured.axis is not None:
        by = str(measured.axis.name)
        parts = maps_by(measured.grid, trials, by, make_column(measured.axis))
    arcs = judge_arcs(trials, threshold)
    drawings = figures.draw_selection(whole, parts, trials, threshold)
    cells = [cell for row in whole.cells for cell in row]
    record = {
        **measured.record,
        "threshold": threshold,
        "threshold_told": str(measured.cut),
        "by": by,
        "captions": {name: figures.CAPTIONS.get(name, "") for name in drawings},
        "arc_test": arcs.as_dict(),
        "selected_without_arc": arcs.are_found_without,
        "few_cells": sum(not cell.is_enough for cell in cells),
        "fewest_trials": FEWEST_TRIALS,
        "cells": list(whole.rows()),
    }

    with files.whole_folder(measured.folder, replace=True) as folder:
        write_scored(folder / layout.TRIALS, trials, measured.fingerprint)
        write_scored(folder / layout.HOST_SCORES, measured.hosts, measured.fingerprint)
        rows = [row for one in (whole, *parts) for row in one.rows()]
        pd.DataFrame(rows).to_parquet(folder / layout.CELLS)
        for name, svg in save_figures(folder / layout.FIGURES, drawings).items():
            (folder / layout.FIGURES / f"{name}.svg").write_text(svg, encoding="utf-8")
        files.write_text(folder / layout.COMPLETENESS, json.dumps(record, indent=1) + "\n")
    text = _summarize(measured, record, arcs)
    return Completeness(measured.folder, record, text)


def _judged(measured: ScoredTrials, threshold: float) -> pd.DataFrame:
    """Return the trials with the score of their host without an arc, and whether they are found."""
    host_logits = measured.hosts["logit"].to_numpy()
    trials = measured.trials
    return trials.assign(
        logit_host=host_logits[trials["host"].to_numpy()],
        found=trials["logit"].to_numpy() >= threshold,
    )


# ---- what is told ----


def _summarize(measured: ScoredTrials, record: dict[str, Any], arcs: ArcTest) -> str:
    """Return the headline numbers and where everything else is, for the terminal."""
    lines = [
        f"{arcs.found.trials:,} lenses painted on {len(measured.hosts):,} galaxies: "
        f"{_percent(arcs.found)} found",
        f"  found           from logit {record['threshold']:.3f} on, {measured.cut}",
        f"  without the arc {_percent(arcs.without)} of them are lost",
    ]
    if arcs.hidden.trials:
        lines += [
            f"  arc hidden      {_percent(arcs.hidden)} lost",
            f"  beside it       {_percent(arcs.control)} lost, where as much is hidden there",
        ]
    if arcs.are_found_without:
        lines.append("  most are selected for their galaxy alone: do not trust these fractions")
    if record["few_cells"]:
        count = len(record["cells"])
        lines.append(
            f"  {record['few_cells']} of {count} cells have fewer than {FEWEST_TRIALS} trials"
        )
    written = f"{layout.CELLS}, {layout.TRIALS}, {layout.COMPLETENESS} and {layout.FIGURES}/"
    lines.append(f"{written} are in {measured.folder}")
    return "\n".join(lines)


def _percent(found: Found) -> str:
    if not found.trials:
        return "none"
    low, high = found.ci95
    return f"{found.fraction:.1%} [{low:.1%}, {high:.1%}]"
