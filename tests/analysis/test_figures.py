from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lens_hpc.analysis import figures, metrics
from lens_hpc.analysis.results import Survey, evaluate
from tests.analysis.test_metrics import binormal

SURVEY = Survey(1e-3, 10**6, (0.5, 0.9))


@pytest.mark.slow
def test_each_is_a_picture_with_a_curve_in_three_formats(tmp_path: Path) -> None:
    labels, scores = binormal(count := 10_000, count)
    found = evaluate(labels, scores, SURVEY)
    drawn = figures.drawings(found, labels, scores, {"another": metrics.rank(*binormal(count, count, 0.5))})
    records = [{"epoch": n, "loss": 1 / n, "val_auc": 1 - 0.3 / n} for n in (1, 2, 3)]
    pictures = figures.save(
        tmp_path / "figures", drawn | {"learning": lambda axes: figures.draw_learning(axes, records)}
    )
    assert len(pictures) == 7
    for name, svg in pictures.items():
        assert svg.startswith("<?xml")
        assert len(svg) < 400_000, "a curve of many samples is thinned"
        assert (tmp_path / "figures" / f"{name}.pdf").stat().st_size > 5000
        with Image.open(tmp_path / "figures" / f"{name}.png") as picture:
            pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        color = figures.ORANGE if name == "scores" else figures.BLUE
        wanted = tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))
        assert (pixels == wanted).all(axis=1).sum() > 200, name


def test_one_class_has_no_curves(tmp_path: Path) -> None:
    labels, scores = np.ones(5), np.arange(5.0)
    assert figures.drawings(evaluate(labels, scores, SURVEY), labels, scores, {}) == {}


@pytest.mark.slow
def test_all_ties_can_be_drawn(tmp_path: Path) -> None:
    labels, scores = np.array([0, 1, 0, 1]), np.zeros(4)
    figures.save(tmp_path / "figures", figures.drawings(evaluate(labels, scores, SURVEY), labels, scores, {}))


def test_a_thinned_curve_keeps_the_top_and_the_end() -> None:
    curve = metrics.rank(*binormal(50_000, 50_000))
    places = figures._thin(curve)
    assert len(places) <= 2 * figures.POINTS
    assert list(places[:50]) == list(range(50))
    assert places[-1] == len(curve.thresholds) - 1
