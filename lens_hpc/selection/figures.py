"""Figures of a selection function: the map, curves, and what happens without the arc."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from lens_hpc.reporting.figures import BLUE, GREY, ORANGE, REFERENCE, Draw
from lens_hpc.selection.cells import FEWEST_TRIALS, CurvePoint, Map, make_curve

PALE_TO_BLUE = LinearSegmentedColormap.from_list("found", ["#f5f7fa", "#8fb4dc", BLUE, "#0d2c52"])
DARK_FROM = 0.45
"""From this fraction on, the number in a cell is white."""
MOST_NUMBERS = 10
"""Cells along an axis beyond which their numbers would not be legible."""
HALF = 0.5

RADIUS = "Einstein radius (arcsec)"
MAGNITUDE = "source magnitude, unlensed (AB)"
FRACTION = "fraction found"

CAPTIONS = {
    "map": "Which fraction of the lenses painted in each cell is found, in percent; along the "
    f"orange line it is half. Hatched: fewer than {FEWEST_TRIALS} trials.",
    "radius_over_seeing": "The same along the Einstein radius in units of the seeing (FWHM), for "
    "the brighter and the fainter half of the sources. Bars: 95% confidence.",
    "arc_snr": "The same along the signal-to-noise of all arcs together, in the band where it is "
    "highest. Bars: 95% confidence.",
    "without_arc": "Scores of the lenses that were found (top), and of the same galaxies without "
    "their arc, with the arc hidden by sky, and with as much hidden beside it. A finder that looks "
    "at the arc falls below the threshold (dotted) in the second and third row, and not in the "
    "last.",
}


def draw_selection(
    whole: Map, parts: Sequence[Map], trials: pd.DataFrame, threshold: float
) -> dict[str, Draw]:
    """Return a function that draws each figure, by its name."""
    drawings: dict[str, Draw] = {"map": partial(draw_map, drawn=whole)}
    if trials["radius_over_seeing"].notna().any():
        drawings["radius_over_seeing"] = partial(draw_radius_curves, trials=trials)
    if trials["arc_snr"].notna().any():
        drawings["arc_snr"] = partial(draw_snr_curve, trials=trials)
    if trials["found"].any():
        drawings["without_arc"] = partial(draw_without_arc, trials=trials, threshold=threshold)
    for number, part in enumerate(parts):
        drawings[f"map_{number + 1}"] = partial(draw_map, drawn=part)
    return drawings


# ---- maps ----


def draw_map(axes: Axes, drawn: Map) -> None:
    """Draw the fraction found in each cell, and the line along which it is half."""
    radii, magnitudes = drawn.grid.einstein_radius, drawn.grid.source_magnitude
    fractions = drawn.fractions
    mesh = axes.pcolormesh(
        magnitudes, radii, fractions, cmap=PALE_TO_BLUE, vmin=0, vmax=1, edgecolors="white"
    )
    mesh.set_linewidth(0.6)
    _hatch_few(axes, drawn)
    if max(drawn.grid.shape) <= MOST_NUMBERS:
        _write_percents(axes, drawn)
        axes.set_xticks(magnitudes, [f"{edge:g}" for edge in magnitudes])
        axes.set_yticks(radii, [f"{edge:g}" for edge in radii])
    _draw_half(axes, drawn)

    assert axes.figure is not None
    bar = axes.figure.colorbar(mesh, ax=axes, pad=0.02)
    bar.set_label(FRACTION)
    bar.outline.set_visible(False)
    axes.set(title=drawn.title or "lenses found", xlabel=MAGNITUDE, ylabel=RADIUS)
    axes.set(xlim=(magnitudes[0], magnitudes[-1]), ylim=(radii[0], radii[-1]))


def _middles(edges: Sequence[float]) -> np.ndarray:
    return (np.array(edges[1:]) + np.array(edges[:-1])) / 2


def _hatch_few(axes: Axes, drawn: Map) -> None:
    """Hatch the cells with too few trials."""
    radii, magnitudes = drawn.grid.einstein_radius, drawn.grid.source_magnitude
    for row, cells in enumerate(drawn.cells):
        for column, cell in enumerate(cells):
            if not cell.is_enough:
                width = magnitudes[column + 1] - magnitudes[column]
                height = radii[row + 1] - radii[row]
                corner = magnitudes[column], radii[row]
                look: dict[str, Any] = {"hatch": "//", "edgecolor": f"{GREY}55", "linewidth": 0}
                axes.add_patch(Rectangle(corner, width, height, fill=False, **look))


def _write_percents(axes: Axes, drawn: Map) -> None:
    middles = _middles(drawn.grid.source_magnitude), _middles(drawn.grid.einstein_radius)
    for y, cells in zip(middles[1], drawn.cells, strict=True):
        for x, cell in zip(middles[0], cells, strict=True):
            if cell.trials:
                color = "white" if cell.fraction > DARK_FROM else "#1d2733"
                text = f"{100 * cell.fraction:.0f}"
                axes.text(x, y, text, color=color, ha="center", va="center", fontsize=8)


def _draw_half(axes: Axes, drawn: Map) -> None:
    """Draw the line of a half, between the middles of cells, where there is one."""
    fractions = drawn.fractions
    known = fractions[np.isfinite(fractions)]
    if min(drawn.grid.shape) < 2 or not len(known) or not known.min() < HALF < known.max():
        return
    axes.contour(
        _middles(drawn.grid.source_magnitude),
        _middles(drawn.grid.einstein_radius),
        fractions,
        levels=[HALF],
        colors=[ORANGE],
        linewidths=[2.2],
    )


# ---- curves ----


def draw_radius_curves(axes: Axes, trials: pd.DataFrame) -> None:
    """Draw the fraction found along the Einstein radius over the seeing."""
    magnitudes = trials["source_magnitude"]
    middle = magnitudes.median()
    halves = {
        f"sources brighter than {middle:.1f}": (magnitudes < middle, BLUE),
        "fainter ones": (magnitudes >= middle, ORANGE),
    }
    for name, (chosen, color) in halves.items():
        half = trials[chosen]
        curve = make_curve(half["radius_over_seeing"].to_numpy(), half["found"].to_numpy())
        _draw_curve(axes, curve, color, name)
    axes.set(title="Einstein radius over seeing", xlabel="Einstein radius / seeing FWHM")
    axes.legend(loc="upper left")
    _finish_curve(axes)


def draw_snr_curve(axes: Axes, trials: pd.DataFrame) -> None:
    """Draw the fraction found along the signal-to-noise of the arcs."""
    is_seen = trials[trials["arc_snr"] > 0]
    curve = make_curve(is_seen["arc_snr"].to_numpy(), is_seen["found"].to_numpy())
    _draw_curve(axes, curve, BLUE, "")
    axes.set(title="signal-to-noise of the arcs", xlabel="signal-to-noise of all arcs together")
    axes.set_xscale("log")
    _finish_curve(axes)


def _draw_curve(axes: Axes, curve: Sequence[CurvePoint], color: str, label: str) -> None:
    fractions = np.array([point.found.fraction for point in curve])
    ends = np.array([point.found.ci95 for point in curve]).reshape(-1, 2).T
    axes.errorbar(
        [point.middle for point in curve],
        fractions,
        abs(ends - fractions),
        color=color,
        marker="o",
        markersize=5,
        linewidth=1.6,
        elinewidth=1.2,
        capsize=2.5,
        label=label,
    )


def _finish_curve(axes: Axes) -> None:
    axes.axhline(HALF, **REFERENCE)
    axes.grid(alpha=0.25, linewidth=0.6)
    # The curves rise to the right, so there is room above the left of them.
    axes.set(ylabel=FRACTION, ylim=(-0.02, 1.15), yticks=np.linspace(0, 1, 6))


# ---- without the arc ----


def draw_without_arc(axes: Axes, trials: pd.DataFrame, threshold: float) -> None:
    """Draw the scores of found lenses, with their arc and without."""
    found = trials[trials["found"]]
    rows = {
        "with its arc": ("logit", BLUE),
        "without it": ("logit_host", ORANGE),
        "arc hidden": ("logit_hidden", ORANGE),
        "as much hidden\nbeside it": ("logit_control", BLUE),
    }
    shown = {title: row for title, row in rows.items() if found[row[0]].notna().any()}
    for place, (name, color) in enumerate(shown.values()):
        scores = found[name].dropna().to_numpy()
        look: dict[str, Any] = {"color": color, "linewidth": 1.4}
        axes.boxplot(
            scores,
            positions=[place],
            orientation="horizontal",
            widths=0.55,
            whis=(2.5, 97.5),
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": f"{color}33", "edgecolor": color, "linewidth": 1.4},
            medianprops=look | {"linewidth": 2.4},
            whiskerprops=look,
            capprops=look,
            manage_ticks=False,
        )
    axes.axvline(threshold, **(REFERENCE | {"color": "#1d2733", "linewidth": 1.4}))
    axes.set_yticks(range(len(shown)), list(shown))
    axes.set(title="lenses that were found", xlabel="score (logit); box: half, whiskers: 95%")
    axes.invert_yaxis()
