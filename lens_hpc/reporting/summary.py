"""What the terminal says of an evaluation."""

from pathlib import Path

import numpy as np

from lens_hpc import layout
from lens_hpc.dataset.split import Split
from lens_hpc.reporting.comparison import Ablation
from lens_hpc.reporting.results import Results
from lens_hpc.scoring.calibration import probability
from lens_hpc.scoring.predictions import Scores
from lens_hpc.texts import printable

IDS_SHOWN = 5
# Values are below each other.
TITLE_WIDTH = 18


def best_ranked(split: Split, scores: Scores) -> str:
    """Return the ids of the highest scores, with their probabilities."""
    rows = np.argsort(-scores.logits, kind="stable")[:IDS_SHOWN]
    named = zip(split.ids(rows).tolist(), probability(scores.logits[rows]), strict=True)
    return ", ".join(f"{printable(text, kept='')} ({value:.4f})" for text, value in named)


def summarize(folder: Path, results: Results, ablation: Ablation, best: str) -> str:
    """Return the headline numbers and where everything else is, for the terminal."""
    if results.sample is None:
        lines = _lines_without_ranking(results, best)
    else:
        lines = [f"{results.n:,} samples, {results.n_lenses:,} lenses", *_headlines(results)]

    lines += [f"  {name:<{TITLE_WIDTH}} {found}" for name, found in results.told_besides]
    lines += [f"  {line}" for line in ablation.lines()]
    written = f"{layout.REPORT}, {layout.METRICS}, {layout.PREDICTIONS} and {layout.FIGURES}/"
    lines.append(f"{written} are in {folder}")
    return "\n".join(lines)


def _lines_without_ranking(results: Results, best: str) -> list[str]:
    """Return what helps where a class is missing: how many scores are high, and whose."""
    above = [f"{count:,} above {name}" for name, count in results.counts_above.items()]
    return [
        f"{results.n + results.n_unlabelled:,} samples are scored; {results.why_no_ranking}, so "
        "that there is no ranking of lenses and non-lenses to measure",
        f"  {'probabilities':<{TITLE_WIDTH}} {', '.join(above)}",
        f"  {'highest':<{TITLE_WIDTH}} {best}",
    ]


def _headlines(results: Results) -> list[str]:
    lines = []
    for quantity in results.headlines:
        value = quantity.why_not if quantity.value is None else f"{quantity.value:.4f}"
        line = f"  {quantity.metric.name:<{TITLE_WIDTH}} {value}"
        if quantity.ci95:
            low, high = quantity.ci95
            line += f"  95% interval [{low:.4f}, {high:.4f}]{quantity.metric.interval_of}"
        elif quantity.why_no_interval:
            line += f"  no interval: {quantity.why_no_interval}"
        lines.append(line)
    return lines
