"""Figures of an evaluation. Each draws one panel, which is saved as PNG and PDF, and returned as SVG for the report."""

from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lens_hpc.analysis.metrics import Curve, highest_rate
from lens_hpc.analysis.results import Results

BLUE, ORANGE, GREY = "#1f5fa8", "#c8590b", "#8a8a8a"
OTHERS = ("#6a51a3", "#238b45", "#a1712b", "#b3446c")
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.hashsalt": "lens_hpc",
}
SIZE_INCHES = (5.2, 4.0)
POINTS = 1500
BINS = 60

Draw = Callable[[Axes], None]
Curves = dict[str, Curve]


def save(folder: Path, drawings: dict[str, Draw]) -> dict[str, str]:
    """Draw each into folder/NAME.png and .pdf; return the SVG of each."""
    folder.mkdir()
    pictures = {}
    for name, draw in drawings.items():
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=SIZE_INCHES, layout="constrained")
            draw(figure.subplots())
            figure.savefig(folder / f"{name}.png", dpi=160)
            figure.set_layout_engine("none")  # laid out once is enough: it takes most of the time
            figure.savefig(folder / f"{name}.pdf")
            text = StringIO()
            figure.savefig(text, format="svg", metadata={"Date": None})
            pictures[name] = text.getvalue()
    return pictures


def drawings(found: Results, labels: np.ndarray, logits: np.ndarray, others: Curves) -> dict[str, Draw]:
    """The figures that results allow: none of the ranking where one class is missing."""
    if found.curve is None:
        return {}
    curves = {"this run": found.curve, **others}
    return {
        "roc": lambda axes: draw_roc(axes, curves, found),
        "roc_log": lambda axes: draw_roc_log(axes, curves, found),
        "precision_recall": lambda axes: draw_precision_recall(axes, curves, found),
        "scores": lambda axes: draw_scores(axes, labels, logits),
        "calibration": lambda axes: draw_calibration(axes, found),
        "survey": lambda axes: draw_survey(axes, found),
    }


def draw_roc(axes: Axes, curves: Curves, found: Results) -> None:
    """True against false positive rate."""
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
    for color, name, curve in _coloured(curves):
        false_rate, true_rate = _rates(curve)
        axes.plot(np.append(0, false_rate), np.append(0, true_rate), color=color, label=name, linewidth=1.8)
    auc = found.quantities["auc"]
    if auc.ci95:
        axes.text(0.97, 0.05, f"AUC {auc.value:.4f}  [{auc.ci95[0]:.4f}, {auc.ci95[1]:.4f}]", ha="right")
    _finish(axes, "ROC", "false positive rate", "true positive rate (completeness)", len(curves) > 1)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))


def draw_roc_log(axes: Axes, curves: Curves, found: Results) -> None:
    """The top of the ranking: true positive rate over the logarithm of the false positive rate."""
    assert found.curve is not None
    negatives = int(found.curve.non_lenses)
    left = 0.5 / negatives
    chance = np.geomspace(left, 1, 200)
    axes.plot(chance, chance, color=GREY, linestyle=":", linewidth=1)
    for color, name, curve in _coloured(curves):
        false_rate, true_rate = _rates(curve)
        axes.plot(np.clip(false_rate, left, None), true_rate, color=color, label=name, linewidth=1.8)
    for key, count in (("tpr0", 1), ("tpr10", 10)):
        value = found.quantities[key].value
        if value is not None:
            axes.plot(count / negatives, value, marker="o", color=BLUE, markersize=5)
            told = f"{key.upper()} {value:.3f}"
            axes.annotate(told, (count / negatives, value), (7, -11), textcoords="offset points", fontsize=9)
    axes.set_xscale("log")
    _finish(
        axes, "ROC, the top of the ranking", "false positive rate", "true positive rate (completeness)", len(curves) > 1
    )
    axes.set(xlim=(left, 1), ylim=(0, 1.02))


def draw_precision_recall(axes: Axes, curves: Curves, found: Results) -> None:
    """Precision against recall, in the split as it is."""
    axes.axhline(found.n_lenses / found.n, color=GREY, linestyle=":", linewidth=1)
    for color, name, curve in _coloured(curves):
        some = _thin(curve)
        above = curve.true_positives[some] + curve.false_positives[some]
        recall, precision = curve.true_positives[some] / curve.lenses, curve.true_positives[some] / above
        axes.plot(recall, precision, color=color, label=name, linewidth=1.8)
    axes.text(0.03, 0.05, f"average precision {found.quantities['average_precision'].value:.4f}")
    title = f"precision and recall in this split ({found.n_lenses / found.n:.1%} lenses)"
    _finish(axes, title, "recall (completeness)", "precision (purity)", len(curves) > 1)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))


def draw_scores(axes: Axes, labels: np.ndarray, logits: np.ndarray) -> None:
    """Histogram of the logits of each class."""
    edges = np.linspace(logits.min(), logits.max(), BINS + 1)
    if edges[0] == edges[-1]:
        edges = edges[0] + np.array([-0.5, 0.5])
    for label, color, name in ((0, GREY, "non-lenses"), (1, ORANGE, "lenses")):
        some = logits[labels == label]
        options: dict[str, Any] = {"bins": edges, "color": color, "label": f"{name} ({len(some):,})"}
        axes.hist(some, histtype="stepfilled", alpha=0.45, **options | {"label": None})
        axes.hist(some, histtype="step", linewidth=1.4, **options)
    axes.set_yscale("log")
    axes.set_ylim(0.7, 4 * axes.get_ylim()[1])  # room for the legend
    _finish(axes, "scores by class", "logit", "samples", legend=True)


def draw_calibration(axes: Axes, found: Results) -> None:
    """How often a stated probability comes true, before and after calibration."""
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
    shown = {"probability": ("the model's own", BLUE, "o"), "probability_temperature": ("temperature", ORANGE, "s"),
             "probability_isotonic": ("isotonic", OTHERS[1], "^")}  # fmt: skip
    for name, judged in found.probabilities.items():
        title, color, marker = shown[name]
        full, reliability = judged.reliability.counts > 0, judged.reliability
        told = f"{title} (error {reliability.expected_calibration_error:.3f})"
        axes.plot(
            reliability.probability[full],
            reliability.lenses[full],
            color=color,
            marker=marker,
            markersize=4,
            label=told,
        )
    _finish(axes, "calibration", "stated probability", "share of lenses", legend=True)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))


def draw_survey(axes: Axes, found: Results) -> None:
    """Purity against completeness in a survey of the stated prevalence, and what few false positives leave open."""
    curve, prevalence = found.curve, found.survey.prevalence
    assert curve is not None
    some = _thin(curve)
    completeness, false = curve.true_positives[some] / curve.lenses, curve.false_positives[some]
    good = prevalence * completeness
    highest = highest_rate(false, curve.non_lenses)

    def purity(rate: np.ndarray) -> np.ndarray:
        return good / np.maximum(good + (1 - prevalence) * rate, 1e-300)

    axes.plot(completeness, purity(false / curve.non_lenses), color=BLUE, linewidth=1.8, label="as found")
    axes.fill_between(
        completeness, purity(highest), purity(false / curve.non_lenses), color=BLUE, alpha=0.18, linewidth=0,
        label="95% confidence",
    )  # fmt: skip
    _finish(axes, f"a survey with one lens in {1 / prevalence:,.0f}", "completeness", "purity", legend=True)
    axes.set_yscale("log")
    axes.set(xlim=(0, 1.02), ylim=(prevalence / 2, 1.2))


def draw_learning(axes: Axes, records: list[dict[str, float]]) -> None:
    """Training loss and validation AUC by epoch."""
    epochs = [record["epoch"] for record in records]
    axes.plot(epochs, [record["loss"] for record in records], color=GREY, marker=".", label="training loss")
    right = axes.twinx()
    right.spines["right"].set_visible(True)
    right.plot(epochs, [record["val_auc"] for record in records], color=BLUE, marker=".", label="validation AUC")
    right.set_ylabel("validation AUC", color=BLUE)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axes, "learning", "epoch", "training loss")


def _finish(axes: Axes, title: str, x: str, y: str, legend: bool = False) -> None:
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.25, linewidth=0.6)
    if legend:
        axes.legend()


def _coloured(curves: Curves) -> Iterator[tuple[str, str, Curve]]:
    for number, (name, curve) in enumerate(curves.items()):
        yield BLUE if number == 0 else OTHERS[(number - 1) % len(OTHERS)], name, curve


def _rates(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    some = _thin(curve)
    return curve.false_positives[some] / curve.non_lenses, curve.true_positives[some] / curve.lenses


def _thin(curve: Curve) -> np.ndarray:
    """Places of a curve that show all of it, the top of the ranking in full."""
    size = len(curve.thresholds)
    if size <= 2 * POINTS:
        return np.arange(size)
    even, top = np.linspace(0, size - 1, POINTS), np.geomspace(1, size, POINTS) - 1
    return np.unique(np.concatenate([even, top]).astype(np.int64))
