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
    assert len(pictures) == 7
    assert dict(matplotlib.rcParams) == style

    for name, svg in pictures.items():
        assert svg.startswith("<?xml")
        assert len(svg) < 400_000, "a curve of many samples is thinned"
        assert (folder / f"{name}.pdf").stat().st_size > 5000
        color = figures.ORANGE if name == "scores" else figures.BLUE
        assert pixels_of(folder / f"{name}.png", color) > 200, name


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


def test_one_class_has_no_curves() -> None:
    labels = np.ones(5)
    scores = np.arange(5.0)
    results = evaluate_scores(labels, scores, SURVEY)
    assert figures.make_drawings(results, labels, scores, {}) == {}


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
