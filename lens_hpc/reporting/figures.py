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

from lens_hpc.metrics import Curve, highest_rate, purity_at_least
from lens_hpc.progress import Progress
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
# Points below this height have their label above them.
LOWEST_LABEL = 0.1
# A curve is drawn with at most twice this many points: evenly spaced, and dense at the top.
POINTS = 1500
HISTOGRAM_BINS = 60
# What is drawn of each label.
CLASSES = {-1: ("unlabelled", BLUE), 0: ("non-lenses", GREY), 1: ("lenses", ORANGE)}

PROBABILITY_TITLES = {
    "probability": "the model's own",
    "probability_temperature": "temperature",
    "probability_isotonic": "isotonic",
}
# Which are drawn, with colour and marker: to divide by a temperature changes little to the eye.
PROBABILITY_STYLES = {
    "probability": (BLUE, "o"),
    "probability_isotonic": (ORANGE, "s"),
}

# What the report says below each figure, in words for everybody.
CAPTIONS = {
    "scores": "The less lenses and non-lenses overlap, the better.",
    "roc_log": "Which fraction of the lenses is found, where only few of the non-lenses are taken "
    "for one. The higher, the better; dotted: by chance.",
    "inspection": "Which fraction of the lenses is found by who looks at the highest scores, one "
    "after the other.",
    "survey": "Which fraction of the candidates are lenses, where lenses are as rare as that. The "
    "higher, the better.",
    "precision_recall": "The same in this split, which has as many lenses as the title says.",
    "roc": "Which fraction of the lenses is found against which of the non-lenses is taken for "
    "one: the further up and left, the better.",
    "calibration": "Does what is given 70% turn out to be a lens in 70% of all cases? Bars: 95% "
    "confidence; perfect: on the dotted line.",
    "learning": "Where validation gets worse while the loss of training falls, more epochs do not "
    "help.",
}

# What draw_learning needs of each epoch, and what earlier versions did not record.
LEARNING = ("epoch", "loss", "val_auc")
VALIDATION_LOSS = "val_loss"

Draw = Callable[[Axes], None]
Curves = dict[str, Curve]


# ---- all figures ----


def save_figures(folder: Path, drawings: dict[str, Draw]) -> dict[str, str]:
    """Draw each into folder/NAME.png and NAME.pdf, and return the SVG of each."""
    folder.mkdir()
    pictures = {}
    with Progress(len(drawings), "draw", "figures") as progress:
        for name, draw in drawings.items():
            progress.begin(name)
            pictures[name] = _save_figure(folder, name, draw)
            progress.update(1)
    return pictures


def _save_figure(folder: Path, name: str, draw: Draw) -> str:
    """Draw one figure into its two files, and return its SVG."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        draw(figure.subplots())

        (folder / f"{name}.png").write_bytes(_render(figure, "png", dpi=DOTS_PER_INCH))
        # To lay it out once is enough: that takes most of the time.
        figure.set_layout_engine("none")
        (folder / f"{name}.pdf").write_bytes(_render(figure, "pdf"))
        return _render(figure, "svg", metadata={"Date": None}).decode()


def _render(figure: Figure, kind: str, **options: Any) -> bytes:
    """Return what a file of a figure holds: matplotlib hides what the disk refuses."""
    content = BytesIO()
    figure.savefig(content, format=kind, **options)
    return content.getvalue()


def make_drawings(
    results: Results, labels: np.ndarray, logits: np.ndarray, others: Curves
) -> dict[str, Draw]:
    """Return a function that draws each figure, by its name; only scores if a class is missing.

    `labels` and `logits` are (N,). `others` are the curves of other runs, by their names.
    """
    if results.curve is None:
        return {"scores": partial(draw_scores, labels=labels, logits=logits)}

    curves = {"this run": results.curve, **others}
    # In the order of the report: what a newcomer understands comes first.
    return {
        "scores": partial(draw_scores, labels=labels, logits=logits),
        "roc_log": partial(draw_roc_log, curves=curves, results=results),
        "inspection": partial(draw_inspection, results=results),
        "survey": partial(draw_survey, results=results),
        "precision_recall": partial(draw_precision_recall, curves=curves, results=results),
        "roc": partial(draw_roc, curves=curves, results=results),
        "calibration": partial(draw_calibration, results=results),
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
            # Below the point, but not below the axis.
            place = (7, -11) if quantity.value > LOWEST_LABEL else (5, 7)
            axes.annotate(text, point, place, textcoords="offset points", fontsize=9)

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
    """Draw a histogram of the logits of each class, the unlabelled among them."""
    edges = np.linspace(logits.min(), logits.max(), HISTOGRAM_BINS + 1)
    if edges[0] == edges[-1]:
        edges = edges[0] + np.array([-0.5, 0.5])

    for label, (name, color) in CLASSES.items():
        if (labels == label).any():
            # The unlabelled may be many: they hide nothing.
            alpha = 0.45 if label >= 0 else 0.12
            _draw_histogram(axes, logits[labels == label], edges, color, name, alpha)

    axes.set_yscale("log")
    # Leave room for the legend.
    axes.set_ylim(0.7, 4 * axes.get_ylim()[1])
    _label(axes, "scores by class", "score (logit)", "objects")
    axes.legend()


# ---- probabilities and surveys ----


def draw_calibration(axes: Axes, results: Results) -> None:
    """Draw how often a stated probability comes true, before and after calibration."""
    axes.plot([0, 1], [0, 1], **REFERENCE)
    for name, (color, marker) in PROBABILITY_STYLES.items():
        if name in results.probabilities:
            bins = results.probabilities[name].bins
            below, above = bins.lenses - bins.low, bins.high - bins.lenses
            axes.errorbar(
                bins.probability,
                bins.lenses,
                np.clip([below, above], 0, None),
                color=color,
                marker=marker,
                markersize=5,
                linestyle="none",
                elinewidth=1.3,
                capsize=2.5,
                label=PROBABILITY_TITLES[name],
            )

    _label(axes, "calibration", "stated probability", "share of lenses")
    axes.legend(loc="upper left")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))


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


def draw_inspection(axes: Axes, results: Results) -> None:
    """Draw which fraction of the lenses is found against how many objects are inspected.

    In this split, and above the same thresholds in the survey that the model is meant for. The band
    shows what few false positives leave open there.
    """
    sample = results.sample
    assert sample is not None
    curve = sample.curve
    shown = _thin(curve)
    false_positives = curve.false_positives[shown]
    found = curve.true_positives[shown] / curve.lenses
    here = curve.true_positives[shown] + false_positives
    title = f"this split: {results.n:,} objects"
    axes.plot(here, found, color=BLUE, linewidth=CURVE_WIDTH, label=title)

    # Groups tell less of the rate than as many samples would.
    survey = results.survey
    trials = sample.sizes_by_number_above[1][false_positives]
    rate = false_positives / curve.non_lenses
    lenses = survey.prevalence * found
    others = np.stack([rate, highest_rate(rate * trials, trials)]) * (1 - survey.prevalence)
    there, at_most = survey.size * (lenses + others)
    title = f"a survey of {survey.size:,}, one lens in {1 / survey.prevalence:,.0f}"
    axes.plot(there, found, color=ORANGE, linewidth=CURVE_WIDTH, label=title)
    axes.fill_betweenx(
        found, there, at_most, color=ORANGE, alpha=0.18, linewidth=0, label="95% confidence"
    )

    _label(axes, "lenses found per object inspected", "objects inspected", "lenses found")
    # The curves rise to the right, so there is room above the left of them.
    axes.legend(loc="upper left")
    axes.set_xscale("log")
    most = max(survey.size, results.n)
    axes.set(xlim=(1, most), ylim=(0, 1.35), yticks=np.linspace(0, 1, 6))


# ---- training ----


def draw_learning(axes: Axes, records: list[dict[str, float]]) -> None:
    """Draw the losses of training and validation, and validation AUC, by epoch."""
    epochs, losses, aucs = ([record[key] for record in records] for key in LEARNING)
    axes.plot(epochs, losses, color=GREY, marker=".", label="training loss")

    validation = np.array([record.get(VALIDATION_LOSS, np.nan) for record in records])
    has_both = np.isfinite(validation).any()
    if has_both:
        axes.plot(epochs, validation, color=ORANGE, marker=".", label="validation loss")
        # Beside the title, where no line can come.
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)

    right = axes.twinx()
    right.spines["right"].set_visible(True)
    right.plot(epochs, aucs, color=BLUE, marker=".", label="validation AUC")
    right.set_ylabel("validation AUC", color=BLUE)

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _label(axes, "learning", "epoch", "loss" if has_both else "training loss")


# ---- parts of a figure ----


def _draw_curve(axes: Axes, x: np.ndarray, y: np.ndarray, color: str, name: str) -> None:
    label = printable(name, kept="")
    # Matplotlib has no place in a legend for what begins with an underscore.
    if label.startswith("_"):
        label = f" {label}"
    axes.plot(x, y, color=color, label=label, linewidth=CURVE_WIDTH)


def _draw_histogram(
    axes: Axes, values: np.ndarray, edges: np.ndarray, color: str, name: str, alpha: float
) -> None:
    bins: Any = edges
    title = f"{name} ({len(values):,})"
    axes.hist(values, bins, histtype="stepfilled", alpha=alpha, color=color)
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
