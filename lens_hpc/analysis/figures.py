"""Figures: the ROC of an evaluation, cutouts of a dataset."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from lens_hpc.analysis.metrics import Metrics

BLUE, GREY = "#1f5fa8", "#9a9a9a"
# counts of sky noise at which the stretch turns from linear to logarithmic
SOFTENING = 4.0
STYLE: dict[Any, Any] = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 11}


def draw_roc(path: Path, labels: np.ndarray, scores: np.ndarray, metrics: Metrics, title: str) -> None:
    """PNG with the ROC curve over a linear and over a logarithmic false positive rate, side by side."""
    false_rate, true_rate, _ = roc_curve(labels, scores, drop_intermediate=False)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.6), layout="constrained")
        linear, logarithmic = figure.subplots(1, 2, sharey=True)
        _draw_linear(linear, false_rate, true_rate, metrics)
        _draw_logarithmic(logarithmic, false_rate, true_rate, metrics)
        for axes in (linear, logarithmic):
            axes.set_xlabel("false positive rate")
            axes.set_ylim(0, 1.02)
            axes.grid(alpha=0.25, linewidth=0.6)
        figure.suptitle(title, fontsize=12)
        figure.savefig(path, dpi=160)


def _draw_linear(axes: Axes, false_rate: np.ndarray, true_rate: np.ndarray, metrics: Metrics) -> None:
    low, high = metrics.auc_ci95
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
    axes.text(0.62, 0.56, "by chance", color=GREY, rotation=40, fontsize=9)
    axes.plot(false_rate, true_rate, color=BLUE, linewidth=2)
    axes.set_xlim(0, 1)
    axes.set_ylabel("true positive rate")
    facts = f"AUC {metrics.auc:.3f}   95% [{low:.3f}, {high:.3f}]\naverage precision {metrics.average_precision:.3f}"
    axes.text(0.97, 0.05, facts, ha="right", transform=axes.transAxes, linespacing=1.5)


def _draw_logarithmic(axes: Axes, false_rate: np.ndarray, true_rate: np.ndarray, metrics: Metrics) -> None:
    negatives = metrics.n - metrics.n_lenses
    left = 0.5 / negatives
    by_chance = np.geomspace(left, 1, 200)
    axes.plot(by_chance, by_chance, color=GREY, linestyle=":", linewidth=1)
    axes.plot(np.clip(false_rate, left, None), true_rate, color=BLUE, linewidth=2)
    axes.set_xscale("log")
    axes.set_xlim(left, 1)
    for rate, count, name in ((metrics.tpr0, 1, "TPR0"), (metrics.tpr10, 10, "TPR10")):
        if rate is not None:
            axes.plot(count / negatives, rate, marker="o", color=BLUE, markersize=5)
            axes.annotate(f"{name} {rate:.3f}", (count / negatives, rate), (8, -12), textcoords="offset points")
    facts = f"{metrics.n_lenses:,} lenses, {negatives:,} non-lenses"
    axes.text(0.03, 0.94, facts, transform=axes.transAxes)


def draw_cutouts(
    path: Path, sheets: dict[str, tuple[np.ndarray, list[str]]], bands: tuple[str, ...], columns: int
) -> None:
    """PNG with a contact sheet: for each title, images (n, bands, height, width) and their n names."""
    rows = sum(-(-len(names) // columns) for _, names in sheets.values())
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.35 * columns, 1.5 * rows + 0.35 * len(sheets)), layout="constrained")
        heights = [-(-len(names) // columns) * 1.5 + 0.35 for _, names in sheets.values()]
        parts = figure.subfigures(len(sheets), 1, height_ratios=heights, squeeze=False).flat
        for part, (title, (images, names)) in zip(parts, sheets.items(), strict=True):
            part.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
            grid = part.subplots(-(-len(names) // columns), columns, squeeze=False)
            for axes in grid.flat:
                axes.set_axis_off()
            for axes, image, name in zip(grid.flat, images, names, strict=False):
                axes.imshow(composite(image, bands), origin="lower", interpolation="nearest")
                axes.set_title(name if len(name) <= 16 else "…" + name[-15:], fontsize=6, pad=2)
        figure.savefig(path, dpi=160, format="png")


def composite(image: np.ndarray, bands: tuple[str, ...]) -> np.ndarray:
    """An RGB picture (height, width, 3), 0 to 1, of one cutout (bands, height, width).

    Three bands or more: an arcsinh stretch of the mean intensity that keeps colours (Lupton et al. 2004, PASP 116,
    133), the third of the first three bands in red. Fewer: a grey arcsinh of the first. Pictures of 8 bits stay as
    they are.
    """
    if image.dtype == np.uint8:
        planes = image[:3] if len(image) >= 3 else image[:1].repeat(3, axis=0)
        return np.moveaxis(planes, 0, -1) / 255
    planes = image[:3].astype(np.float64) if len(image) >= 3 else image[:1].astype(np.float64)
    # each band in units of its own sky noise, so that a faint blue arc is not lost beside a bright red galaxy
    sky = np.median(planes, axis=(1, 2), keepdims=True)
    noise = 1.48 * np.median(abs(planes - sky), axis=(1, 2), keepdims=True)
    planes = (planes - sky) / np.where(noise > 0, noise, 1)
    intensity = planes.mean(axis=0)
    peak = max(float(np.percentile(intensity, 99.7)), SOFTENING)
    stretched = np.arcsinh(np.clip(intensity, 0, None) / SOFTENING) / np.arcsinh(peak / SOFTENING)
    colours = planes * stretched / np.where(intensity > 0, intensity, np.inf)
    reddest_first = colours[::-1] if len(colours) == 3 else colours.repeat(3, axis=0)
    return np.clip(np.moveaxis(reddest_first, 0, -1), 0, 1)
