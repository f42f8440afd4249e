"""Figures of an evaluation: PNG and PDF files, and SVG for the report. Each function draws one."""

from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lens_hpc.metrics import Curve, purity_at_least
from lens_hpc.reporting.results import Results
from lens_hpc.texts import printable

BLUE = "#1f5fa8"
ORANGE = "#c8590b"
GREY = "#8a8a8a"
OTHERS = ("#238b45", "#b3446c", "#a1712b", "#444444")
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.hashsalt": "lens_hpc",
    "text.usetex": False,
}
# Lines of chance, or of what would be perfect.
REFERENCE: dict[str, Any] = {"color": GREY, "linestyle": ":", "linewidth": 1}
SIZE_INCHES = (5.2, 4.0)
DOTS_PER_INCH = 160
CURVE_WIDTH = 1.8
# A curve is drawn with at most twice this many points: evenly spaced, and dense at the top.
POINTS = 1500
HISTOGRAM_BINS = 60

# How each kind of probability is drawn: name, colour and marker.
PROBABILITY_STYLES = {
    "probability": ("the model's own", BLUE, "o"),
    "probability_temperature": ("temperature", ORANGE, "s"),
    "probability_isotonic": ("isotonic", OTHERS[0], "^"),
}

# What draw_learning needs of each epoch.
LEARNING = ("epoch", "loss", "val_auc")

Draw = Callable[[Axes], None]
Curves = dict[str, Curve]


# ---- all figures ----


def save_figures(folder: Path, drawings: dict[str, Draw]) -> dict[str, str]:
    """Draw each into folder/NAME.png and NAME.pdf, and return the SVG of each."""
    folder.mkdir()
    pictures = {}
    for name, draw in drawings.items():
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=SIZE_INCHES, layout="constrained")
            draw(figure.subplots())

            (folder / f"{name}.png").write_bytes(_render(figure, "png", dpi=DOTS_PER_INCH))
            # To lay it out once is enough: that takes most of the time.
            figure.set_layout_engine("none")
            (folder / f"{name}.pdf").write_bytes(_render(figure, "pdf"))
            pictures[name] = _render(figure, "svg", metadata={"Date": None}).decode()
    return pictures


def _render(figure: Figure, kind: str, **options: Any) -> bytes:
    """Return what a file of a figure holds: matplotlib hides what the disk refuses."""
    content = BytesIO()
    figure.savefig(content, format=kind, **options)
    return content.getvalue()


def make_drawings(
    results: Results, labels: np.ndarray, logits: np.ndarray, others: Curves
) -> dict[str, Draw]:
    """Return a function that draws each figure, by its name; none if a class is missing.

    `labels` and `logits` are (N,). `others` are the curves of other runs, by their names.
    """
    if results.curve is None:
        return {}

    curves = {"this run": results.curve, **others}
    return {
        "roc": partial(draw_roc, curves=curves, results=results),
        "roc_log": partial(draw_roc_log, curves=curves, results=results),
        "precision_recall": partial(draw_precision_recall, curves=curves, results=results),
        "scores": partial(draw_scores, labels=labels, logits=logits),
        "calibration": partial(draw_calibration, results=results),
        "survey": partial(draw_survey, results=results),
    }


# ---- the ranking ----


def draw_roc(axes: Axes, curves: Curves, results: Results) -> None:
    """Draw the true against the false positive rate."""
    axes.plot([0, 1], [0, 1], **REFERENCE)
    for color, name, curve in _coloured(curves):
        false_rate, true_rate = _rates(curve)
        _draw_curve(axes, np.append(0, false_rate), np.append(0, true_rate), color, name)

    auc = results.quantities["auc"]
    title = f"ROC: AUC {auc.value:.4f}"
    if auc.ci95:
        low, high = auc.ci95
        title += f" [{low:.4f}, {high:.4f}]"

    _label(axes, title, "false positive rate", "true positive rate (completeness)")
    _add_legend(axes, curves)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))


def draw_roc_log(axes: Axes, curves: Curves, results: Results) -> None:
    """Draw the top of the ranking: the false positive rate is logarithmic."""
    assert results.curve is not None
    non_lenses = int(results.curve.non_lenses)
    # No false positive at all is drawn half a false positive from the left.
    left = 0.5 / non_lenses
    chance = np.geomspace(left, 1, 200)
    axes.plot(chance, chance, **REFERENCE)
    for color, name, curve in _coloured(curves):
        false_rate, true_rate = _rates(curve)
        _draw_curve(axes, np.clip(false_rate, left, None), true_rate, color, name)

    for quantity in results.quantities.values():
        metric = quantity.metric
        if metric.false_positives is not None and quantity.value is not None:
            point = metric.false_positives / non_lenses, quantity.value
            axes.plot(*point, marker="o", color=BLUE, markersize=5)
            text = f"{metric.name} {quantity.value:.3f}"
            axes.annotate(text, point, (7, -11), textcoords="offset points", fontsize=9)

    axes.set_xscale("log")
    title = "ROC, the top of the ranking"
    _label(axes, title, "false positive rate", "true positive rate (completeness)")
    _add_legend(axes, curves)
    axes.set(xlim=(left, 1), ylim=(0, 1.02))


def draw_precision_recall(axes: Axes, curves: Curves, results: Results) -> None:
    """Draw precision against recall, with as many lenses as the split has."""
    lens_fraction = results.n_lenses / results.n
    axes.axhline(lens_fraction, **REFERENCE)
    for color, name, curve in _coloured(curves):
        shown = _thin(curve)
        true_positives = curve.true_positives[shown]
        selected = true_positives + curve.false_positives[shown]
        recall = true_positives / curve.lenses
        _draw_curve(axes, recall, true_positives / selected, color, name)

    average_precision = results.quantities["average_precision"].value
    axes.text(0.03, 0.05, f"average precision {average_precision:.4f}")
    title = f"precision and recall in this split ({lens_fraction:.1%} lenses)"
    _label(axes, title, "recall (completeness)", "precision (purity)")
    _add_legend(axes, curves)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))


def draw_scores(axes: Axes, labels: np.ndarray, logits: np.ndarray) -> None:
    """Draw a histogram of the logits of each class."""
    edges = np.linspace(logits.min(), logits.max(), HISTOGRAM_BINS + 1)
    if edges[0] == edges[-1]:
        edges = edges[0] + np.array([-0.5, 0.5])

    _draw_histogram(axes, logits[labels == 0], edges, GREY, "non-lenses")
    _draw_histogram(axes, logits[labels == 1], edges, ORANGE, "lenses")

    axes.set_yscale("log")
    # Leave room for the legend.
    axes.set_ylim(0.7, 4 * axes.get_ylim()[1])
    _label(axes, "scores by class", "logit", "samples")
    axes.legend()


# ---- probabilities and surveys ----


def draw_calibration(axes: Axes, results: Results) -> None:
    """Draw how often a stated probability comes true, before and after calibration."""
    axes.plot([0, 1], [0, 1], **REFERENCE)
    for name, quality in results.probabilities.items():
        title, color, marker = PROBABILITY_STYLES[name]
        reliability = quality.reliability
        filled = reliability.counts > 0
        axes.plot(
            reliability.probability[filled],
            reliability.lenses[filled],
            color=color,
            marker=marker,
            markersize=4,
            label=f"{title} (error {reliability.expected_calibration_error:.3f})",
        )

    _label(axes, "calibration", "stated probability", "share of lenses")
    axes.legend()
    axes.set(xlim=(0, 1), ylim=(0, 1.02))


def draw_survey(axes: Axes, results: Results) -> None:
    """Draw purity against completeness in the survey that the model is meant for.

    The band shows what few lenses and false positives leave open.
    """
    sample = results.sample
    assert sample is not None
    curve = sample.curve
    shown = _thin(curve)
    completeness = curve.true_positives[shown] / curve.lenses
    prevalence = results.survey.prevalence

    lenses = prevalence * completeness
    others = (1 - prevalence) * curve.false_positives[shown] / curve.non_lenses
    as_found = lenses / np.maximum(lenses + others, 1e-300)
    at_least = purity_at_least(sample, shown, prevalence)
    axes.plot(completeness, as_found, color=BLUE, linewidth=CURVE_WIDTH, label="as found")
    axes.fill_between(
        completeness,
        at_least,
        as_found,
        color=BLUE,
        alpha=0.18,
        linewidth=0,
        label="95% confidence",
    )

    _label(axes, f"a survey with one lens in {1 / prevalence:,.0f}", "completeness", "purity")
    axes.legend()
    axes.set_yscale("log")
    axes.set(xlim=(0, 1.02), ylim=(prevalence / 2, 1.2))


# ---- training ----


def draw_learning(axes: Axes, records: list[dict[str, float]]) -> None:
    """Draw training loss and validation AUC by epoch."""
    epochs, losses, aucs = ([record[key] for record in records] for key in LEARNING)
    axes.plot(epochs, losses, color=GREY, marker=".", label="training loss")

    right = axes.twinx()
    right.spines["right"].set_visible(True)
    right.plot(epochs, aucs, color=BLUE, marker=".", label="validation AUC")
    right.set_ylabel("validation AUC", color=BLUE)

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _label(axes, "learning", "epoch", "training loss")


# ---- parts of a figure ----


def _draw_curve(axes: Axes, x: np.ndarray, y: np.ndarray, color: str, name: str) -> None:
    label = printable(name, kept="")
    # Matplotlib has no place in a legend for what begins with an underscore.
    if label.startswith("_"):
        label = f" {label}"
    axes.plot(x, y, color=color, label=label, linewidth=CURVE_WIDTH)


def _draw_histogram(
    axes: Axes, values: np.ndarray, edges: np.ndarray, color: str, name: str
) -> None:
    bins: Any = edges
    title = f"{name} ({len(values):,})"
    axes.hist(values, bins, histtype="stepfilled", alpha=0.45, color=color)
    axes.hist(values, bins, histtype="step", linewidth=1.4, color=color, label=title)


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.25, linewidth=0.6)


def _add_legend(axes: Axes, curves: Curves) -> None:
    if len(curves) > 1:
        for text in axes.legend().get_texts():
            # A run may have dollars in its name, which are no formula.
            text.set_parse_math(False)


def _coloured(curves: Curves) -> Iterator[tuple[str, str, Curve]]:
    """Yield colour, name and curve of each, the evaluated run first."""
    for number, (name, curve) in enumerate(curves.items()):
        color = BLUE if number == 0 else OTHERS[(number - 1) % len(OTHERS)]
        yield color, name, curve


def _rates(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Return the false and the true positive rate at the points that are drawn."""
    shown = _thin(curve)
    false_rate = curve.false_positives[shown] / curve.non_lenses
    return false_rate, curve.true_positives[shown] / curve.lenses


def _thin(curve: Curve) -> np.ndarray:
    """Return positions of a curve that show all of it, and every one at the top."""
    size = len(curve.thresholds)
    if size <= 2 * POINTS:
        return np.arange(size)

    even = np.linspace(0, size - 1, POINTS)
    top = np.geomspace(1, size, POINTS) - 1
    return np.unique(np.concatenate([even, top]).astype(np.int64))
