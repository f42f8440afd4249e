"""Figures of an evaluation."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from lens_hpc.analysis.metrics import Metrics

BLUE, GREY = "#1f5fa8", "#9a9a9a"
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
