import io
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from lens_hpc import metrics
from lens_hpc.reporting import figures
from lens_hpc.reporting.results import Survey, evaluate_scores
from lens_hpc.scoring.calibration import Calibration
from lens_hpc.texts import printable
from tests.metrics.rankings import binormal

SURVEY = Survey(1e-3, 10**6, (0.5, 0.9))
COUNT = 10_000
NAMES = (r"$\frac{$", "a_$b", "_hidden", "\x1b[2J\x00 -->", "bytes \udcff", "two\nlines", "$" * 200)


@pytest.mark.slow
def test_each_is_a_picture_with_a_curve_in_three_formats(tmp_path: Path) -> None:
    labels, scores = binormal(COUNT, COUNT)
    results = evaluate_scores(labels, scores, SURVEY)
    another = {"another": metrics.rank(*binormal(COUNT, COUNT, 0.5))}
    drawings = figures.make_drawings(results, labels, scores, another)
    records = [{"epoch": n, "loss": 1 / n, "val_auc": 1 - 0.3 / n} for n in (1, 2, 3)]
    drawings["learning"] = partial(figures.draw_learning, records=records)

    folder = tmp_path / "figures"
    style = dict(matplotlib.rcParams)
    pictures = figures.save_figures(folder, drawings)
    assert len(pictures) == 8
    assert dict(matplotlib.rcParams) == style

    for name, svg in pictures.items():
        assert svg.startswith("<?xml")
        assert len(svg) < 400_000, "a curve of many samples is thinned"
        assert (folder / f"{name}.pdf").stat().st_size > 5000
        color = figures.ORANGE if name == "scores" else figures.BLUE
        assert pixels_of(folder / f"{name}.png", color) > 200, name


OLD_EPOCH = {"epoch": 1, "loss": 0.7, "val_auc": 0.8}
NEW_EPOCH = {"epoch": 2, "loss": 0.5, "val_auc": 0.9, "val_loss": 0.6}


@pytest.mark.parametrize(
    ("records", "lines"),
    [
        ([OLD_EPOCH], ["training loss"]),
        ([OLD_EPOCH, NEW_EPOCH], ["training loss", "validation loss"]),
    ],
)
def test_losses_share_an_axis_where_that_of_validation_was_recorded(
    records: list[dict[str, float]], lines: list[str]
) -> None:
    losses = Figure().subplots()
    figures.draw_learning(losses, records)
    assert [line.get_label() for line in losses.get_lines()] == lines
    assert losses.get_ylabel() == ("loss" if len(lines) == 2 else "training loss")
    assert (losses.get_legend() is not None) == (len(lines) == 2)
    if len(lines) == 2:
        np.testing.assert_array_equal(losses.get_lines()[1].get_ydata(), [np.nan, 0.6])


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_run_is_no_formula_and_stands_in_the_legend(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    curve = metrics.rank(*binormal(10, 10))
    curves = {"this run": curve, name: curve}
    # What a matplotlibrc of the user says.
    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)
    with matplotlib.rc_context(figures.STYLE):
        axes = Figure().subplots()
        for color, each, curve in figures._coloured(curves):
            figures._draw_curve(axes, *figures._rates(curve), color, each)
        figures._add_legend(axes, curves)
        assert axes.figure is not None
        axes.figure.savefig(io.BytesIO(), format="svg")

    _, shown = axes.get_legend().get_texts()
    assert shown.get_text().strip() == printable(name, kept="")


def pixels_of(picture: Path, color: str) -> int:
    """Number of pixels of a colour, #rrggbb."""
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    wanted = tuple(int(color[start : start + 2], 16) for start in (1, 3, 5))
    return int((pixels == wanted).all(axis=1).sum())


@pytest.mark.parametrize(("label", "name"), [(1, "lenses"), (0, "non-lenses"), (-1, "unlabelled")])
def test_one_class_has_no_curves_but_scores(label: int, name: str) -> None:
    labels = np.full(5, label)
    scores = np.arange(5.0)
    results = evaluate_scores(labels, scores, SURVEY)
    drawings = figures.make_drawings(results, labels, scores, {})
    assert list(drawings) == ["scores"]

    axes = Figure().subplots()
    drawings["scores"](axes)
    (shown,) = axes.get_legend().get_texts()
    assert shown.get_text() == f"{name} (5)"


def test_calibration_has_bars_that_hold_the_perfect_line() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=5000) * 3
    labels = (rng.random(5000) < 1 / (1 + np.exp(-logits))).astype(int)
    calibration = Calibration(2.0, (-1.0, 2.0), (0.1, 0.9), 0.5)
    results = evaluate_scores(labels, logits, SURVEY, None, calibration)

    axes = Figure().subplots()
    figures.draw_calibration(axes, results)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "the model's own",
        "isotonic",
    ]
    bins = results.probabilities["probability"].bins
    inside = (bins.low <= bins.probability) & (bins.probability <= bins.high)
    assert inside.sum() >= 9
    wrong = results.probabilities["probability_isotonic"].bins
    outside = (wrong.probability < wrong.low) | (wrong.high < wrong.probability)
    assert outside.sum() >= 3


@pytest.mark.slow
def test_all_ties_can_be_drawn(tmp_path: Path) -> None:
    labels = np.array([0, 1, 0, 1])
    scores = np.zeros(4)
    results = evaluate_scores(labels, scores, SURVEY)
    drawings = figures.make_drawings(results, labels, scores, {})
    figures.save_figures(tmp_path / "figures", drawings)


def test_a_thinned_curve_keeps_the_top_and_the_end() -> None:
    curve = metrics.rank(*binormal(50_000, 50_000))
    positions = figures._thin(curve)
    assert len(positions) <= 2 * figures.POINTS
    assert list(positions[:50]) == list(range(50))
    assert positions[-1] == len(curve.thresholds) - 1


def test_labels_of_a_ranking_by_chance_lie_within_the_figure() -> None:
    labels, scores = binormal(COUNT, COUNT)
    results = evaluate_scores(labels, -scores, SURVEY)
    assert results.curve is not None
    axes = Figure().subplots()
    figures.draw_roc_log(axes, {"this run": results.curve}, results)
    assert len(axes.texts) == 2
    assert axes.figure is not None
    axes.figure.canvas.draw()
    assert all(text.get_window_extent().y0 > axes.bbox.y0 for text in axes.texts)
