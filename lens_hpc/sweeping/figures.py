"""The picture of a sweep: how the best was found, and what each setting does."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from lens_hpc.reporting.figures import BLUE, DOTS_PER_INCH, GREY, ORANGE, STYLE
from lens_hpc.sweeping.space import Knob, shown_value
from lens_hpc.sweeping.study import FAILED, SweepTrial
from lens_hpc.texts import printable

COLUMNS = 3
WIDTH_INCHES, ROW_INCHES = 11.0, 3.1
EARLY_TO_LATE = LinearSegmentedColormap.from_list("trials", ["#c9d8ea", BLUE, "#0d2c52"])
JITTER = 0.13
FEW_DECADES = 200
LONGEST_LABEL = 18
LONGEST_ROW = 28
"""Labels of more characters would run into each other, and are slanted."""


class Drawn(NamedTuple):
    """What a picture shows."""

    knobs: Sequence[Knob]
    trials: Sequence[SweepTrial]
    best: SweepTrial
    importance: Mapping[str, float]
    """Of each setting; none where it cannot be told."""
    title: str
    """Of the number that is made better."""
    is_minimised: bool

    @property
    def done(self) -> list[SweepTrial]:
        """Return the trials that have a number."""
        return [trial for trial in self.trials if trial.value is not None]

    @property
    def numbers(self) -> np.ndarray:
        """Return these numbers, (n,)."""
        return np.array([trial.value for trial in self.done], dtype=float)


def draw_sweep(drawn: Drawn) -> bytes:
    """Return a PNG of all trials: in their order, and along each setting that varies."""
    rows = 1 + -(-len(drawn.knobs) // COLUMNS)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, ROW_INCHES * rows), layout="constrained")
        grid = GridSpec(rows, COLUMNS, figure)
        of_history = COLUMNS - bool(drawn.importance)
        _draw_history(figure.add_subplot(grid[0, :of_history]), drawn)
        if drawn.importance:
            _draw_importance(figure.add_subplot(grid[0, of_history:]), drawn.importance)

        for number, knob in enumerate(drawn.knobs):
            row, column = divmod(number, COLUMNS)
            axes = figure.add_subplot(grid[row + 1, column])
            _draw_knob(axes, knob, drawn)
            axes.set_ylabel("" if column else drawn.title)

        content = BytesIO()
        figure.savefig(content, format="png", dpi=DOTS_PER_INCH)
    return content.getvalue()


def _draw_history(axes: Axes, drawn: Drawn) -> None:
    """Draw each trial's number, and the best so far."""
    order = [trial.number for trial in drawn.done]
    accumulate = np.minimum if drawn.is_minimised else np.maximum
    axes.step(
        order, accumulate.accumulate(drawn.numbers), where="post", color=ORANGE, label="best so far"
    )
    _scatter(axes, np.array(order), drawn)

    failed = [trial.number for trial in drawn.trials if trial.state == FAILED]
    if failed:
        low = axes.get_ylim()[0]
        axes.plot(failed, [low] * len(failed), "x", color=GREY, clip_on=False, label="failed")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel=drawn.title, title="trials, the later the darker")
    axes.legend(loc="best")


def _draw_importance(axes: Axes, importance: Mapping[str, float]) -> None:
    """Draw which part of the numbers' variance each setting explains."""
    names = [_short(key.rpartition(".")[2]) for key in importance]
    places = np.arange(len(names))
    axes.barh(places, [100 * part for part in importance.values()], color=BLUE, height=0.6)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set(xlabel="variance explained (%)", title="importance")


def _draw_knob(axes: Axes, knob: Knob, drawn: Drawn) -> None:
    """Draw the numbers along one setting."""
    values = [trial.settings[knob.key] for trial in drawn.done]
    if knob.range.choices:
        choices = list(knob.range.choices)
        # Points of one choice lie beside each other, always in the same places.
        offsets = np.random.default_rng(0).uniform(-JITTER, JITTER, len(values))
        places = np.array([choices.index(value) for value in values]) + offsets
        labels = [_short(shown_value(choice)) for choice in choices]
        axes.set_xticks(range(len(choices)), labels)
        if sum(map(len, labels)) > LONGEST_ROW:
            axes.tick_params(axis="x", labelrotation=25)
        axes.set_xlim(-0.5, len(choices) - 0.5)
    else:
        places = np.array(values, dtype=float)
        axes.set_xlim(*knob.range.ends)
        if knob.range.log:
            _make_logarithmic(axes, *knob.range.ends)
    _scatter(axes, places, drawn)
    axes.set(xlabel=printable(knob.key))


def _make_logarithmic(axes: Axes, low: float, high: float) -> None:
    """Make an axis logarithmic; over few decades, 2 and 5 have ticks, too."""
    axes.set_xscale("log")
    if high / low < FEW_DECADES:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())


def _scatter(axes: Axes, places: np.ndarray, drawn: Drawn) -> None:
    """Draw a point for each trial, the later the darker, and the best one as a star."""
    order = [trial.number for trial in drawn.done]
    axes.scatter(places, drawn.numbers, c=order, cmap=EARLY_TO_LATE, s=26, zorder=3, clip_on=False)
    best = drawn.done.index(drawn.best)
    axes.plot(
        places[best],
        drawn.numbers[best],
        "*",
        color=ORANGE,
        markersize=14,
        zorder=4,
        clip_on=False,
        label="best",
    )


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"
