"""Figures of an injection: what was painted beside what is known, and some arcs on their hosts."""

from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from lens_hpc import files, layout
from lens_hpc.dataset.dataset import Dataset
from lens_hpc.packing.injection_gate import ArcVerdict, Gate
from lens_hpc.reporting.figures import BLUE, DOTS_PER_INCH, GREY, ORANGE, STYLE
from lens_hpc.reporting.injected_sheet import choose_examples, draw_sheet
from lens_hpc.texts import printable

# Quantities that range over powers of ten.
LOGARITHMIC = ("S/N of the arc", "flux of arc / host")
# Largest ratio of an axis's ends at which 1, 2 and 5 are labelled.
FEW_POWERS = 60
BINS = 30
# Shares of the values that an axis shows at least, so that an outlier does not squeeze the rest.
SHOWN_QUANTILES = (0.005, 0.995)
# Ends of the histograms of a band, and the line of the known below them, in rows of a panel.
ABOVE, BELOW, LOWEST = 0.52, -0.34, -0.41
RED = "#b00020"
PANEL_COLUMNS = 3
PANEL_WIDTH_INCHES = 3.1
BAND_HEIGHT_INCHES = 0.62
TITLE_HEIGHT_INCHES = 1.1
LEAST_PANEL_HEIGHT_INCHES = 2.2


def draw(dataset: Path, hosts: Path, gate: Gate) -> None:
    """Draw an injected dataset: DATASET/injection.png and DATASET/injection_sheet.png.

    `hosts` is the dataset that was painted on. Each file is written whole, in place of an older
    one.
    """
    examples = choose_examples(Dataset(dataset), Dataset(hosts))
    with matplotlib.rc_context(STYLE):
        _save(draw_distributions(gate), dataset / layout.INJECTION_FIGURE)
        _save(draw_sheet(examples), dataset / layout.INJECTION_SHEET)


def _save(figure: Figure, path: Path) -> None:
    with files.whole_file(path) as partial:
        figure.savefig(partial, dpi=DOTS_PER_INCH, format="png")


# ---- distributions ----


def draw_distributions(gate: Gate) -> Figure:
    """Draw a panel for each quantity, with a row for each band: painted above, known below."""
    families = [list(group) for _, group in groupby(gate.verdicts, lambda v: v.quantity.family)]
    panel_rows = -(-(len(families) + 1) // PANEL_COLUMNS)
    most_bands = max((len(verdicts) for verdicts in families), default=1)
    needed = TITLE_HEIGHT_INCHES + BAND_HEIGHT_INCHES * most_bands
    height = max(LEAST_PANEL_HEIGHT_INCHES, needed) * panel_rows

    figure = Figure((PANEL_WIDTH_INCHES * PANEL_COLUMNS, height), layout="constrained")
    panels = list(figure.subplots(panel_rows, PANEL_COLUMNS, squeeze=False).flat)
    for axes, verdicts in zip(panels, families, strict=False):
        _draw_family(axes, verdicts)
    for axes in panels[len(families) :]:
        axes.set_axis_off()
    _draw_legend(panels[len(families)], gate)
    return figure


def _draw_family(axes: Axes, verdicts: list[ArcVerdict]) -> None:
    """Draw one quantity, the first band on top."""
    quantity = verdicts[0].quantity
    is_logarithmic = quantity.family in LOGARITHMIC
    edges = _edges(verdicts, is_logarithmic)
    if is_logarithmic:
        _make_logarithmic(axes, edges)
    heights = range(len(verdicts) - 1, -1, -1)
    for height, verdict in zip(heights, verdicts, strict=True):
        _draw_row(axes, verdict, edges, height)

    names = [printable(verdict.quantity.part, kept="") for verdict in verdicts]
    axes.set_yticks(list(heights), names, parse_math=False)
    axes.tick_params(axis="y", length=0)
    unit = f" [{quantity.unit}]" if quantity.unit else ""
    axes.set(xlabel=quantity.family + unit, xlim=(edges[0], edges[-1]))
    axes.set_ylim(-0.6, len(verdicts) - 0.3)
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    axes.spines["left"].set_visible(False)


def _make_logarithmic(axes: Axes, edges: np.ndarray) -> None:
    """Label powers of ten, and what lies between them where there are few of those."""
    axes.set_xscale("log")
    subdivisions = (1.0,) if edges[-1] / edges[0] > FEW_POWERS else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=subdivisions))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")


def _draw_row(axes: Axes, verdict: ArcVerdict, edges: np.ndarray, height: float) -> None:
    """Draw what was painted above a line, what is known below it, and the painted median."""
    _draw_histogram(axes, verdict.painted, edges, height, ABOVE, ORANGE)
    _draw_histogram(axes, verdict.known, edges, height, BELOW, BLUE)
    axes.axhline(height, color=GREY, linewidth=0.6)
    if verdict.is_compared:
        low, high = verdict.known_range
        axes.plot([low, high], [height + LOWEST] * 2, color=BLUE, linewidth=2.5)

    if verdict.median < edges[0]:
        # A median of 0 has no place on a logarithmic axis.
        return
    end = LOWEST if len(verdict.known) else 0
    color = RED if verdict.is_refused else "black"
    axes.plot([verdict.median] * 2, [height + end, height + ABOVE], color=color, linewidth=1.6)
    if verdict.is_refused:
        # Beside the known, on the side where they are not.
        is_right = verdict.median > verdict.known_range[1]
        point = verdict.median, height + (BELOW + LOWEST) / 2
        axes.annotate(
            "outside",
            point,
            (5 if is_right else -5, 0),
            textcoords="offset points",
            ha="left" if is_right else "right",
            va="center",
            color=color,
            fontsize=9,
            fontweight="bold",
        )


def _draw_histogram(
    axes: Axes, values: np.ndarray, edges: np.ndarray, height: float, scale: float, color: str
) -> None:
    counts = np.histogram(values, edges)[0]
    if counts.any():
        outline = height + scale * counts / counts.max()
        axes.stairs(outline, edges, baseline=height, fill=True, color=color, alpha=0.6)


def _edges(verdicts: list[ArcVerdict], is_logarithmic: bool) -> np.ndarray:
    """Return the edges of bins that hold nearly all values of all bands, painted and known."""
    parts = [part for verdict in verdicts for part in (verdict.painted, verdict.known)]
    if is_logarithmic:
        parts = [values[values > 0] for values in parts]
    ends = [np.quantile(values, SHOWN_QUANTILES) for values in parts if len(values)]
    if not ends:
        return np.geomspace(0.1, 10, BINS + 1)

    # Each part counts by itself, for the known are few beside the painted.
    low, high = np.min(ends), np.max(ends)
    if is_logarithmic:
        return np.geomspace(low / 1.2, high * 1.2, BINS + 1)
    margin = 0.05 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, BINS + 1)


def _draw_legend(axes: Axes, gate: Gate) -> None:
    """Say what the colours mean, and how many lenses were compared."""
    patch = matplotlib.patches.Patch
    line = matplotlib.lines.Line2D
    painted = max((len(verdict.painted) for verdict in gate.verdicts), default=0)
    known = max((len(verdict.known) for verdict in gate.verdicts), default=0)

    handles: list[Any] = [
        patch(color=ORANGE, alpha=0.6, label=f"painted: {painted:,}"),
        line([], [], color="black", linewidth=1.6, label="median of the painted"),
    ]
    note = "compared with nothing:\nno list of known lenses is given"
    if gate.has_known:
        handles.append(patch(color=BLUE, alpha=0.6, label=f"known: {known:,}"))
        handles.append(line([], [], color=BLUE, linewidth=2.5, label="5 to 95% of the known"))
        compared = sum(verdict.is_compared for verdict in gate.verdicts)
        note = f"{compared} of {len(gate.verdicts)} distributions compared,\n"
        note += f"medians outside: {len(gate.problems())}"
    axes.legend(handles=handles, loc="upper left", fontsize=10)
    axes.text(0.04, 0.28, note, fontsize=10, va="top", transform=axes.transAxes)
