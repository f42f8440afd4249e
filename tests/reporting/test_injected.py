"""Figures of an injection show what was painted, what is known, and hosts with their arcs."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from lens_hpc import layout
from lens_hpc.dataset.dataset import Dataset
from lens_hpc.packing.injection_gate import judge
from lens_hpc.reporting import injected, injected_sheet
from lens_hpc.reporting.figures import BLUE
from tests.conftest import pack_survey, write_survey
from tests.packing.test_injection_gate import BANDS, lenses
from tests.reporting.test_figures import pixels_of

ARC = 50.0


@pytest.fixture
def datasets(tmp_path: Path) -> tuple[Path, Path]:
    """Hosts, and the same rows again, in which every second has an arc in a corner."""
    survey = write_survey(tmp_path / "survey", rows=60, size=24)
    hosts = pack_survey(survey, tmp_path / "hosts")
    for row in range(0, 60, 2):
        image = np.load(survey / f"obj{row}.npy")
        image[:, :8, :8] += ARC
        np.save(survey / f"obj{row}.npy", image)

    painted = pack_survey(survey, tmp_path / "painted")
    ids = [f"obj{row}" for row in range(0, 60, 2)]
    columns = {"id": ids, "host_id": ids, "einstein_radius": 1.2}
    snr = {"arc_snr_g": np.arange(30.0), "arc_snr_r": np.zeros(30)}
    pd.DataFrame(columns | snr).to_parquet(painted / layout.TRUTH)
    return painted, hosts


def texts_of(figure: Figure) -> list[str]:
    axes = figure.axes
    texts = [text.get_text() for each in axes for text in (*each.texts, each.title)]
    legends = [legend for each in axes if (legend := each.get_legend())]
    return texts + [text.get_text() for legend in legends for text in legend.get_texts()]


# ---- distributions ----


def test_painted_and_known_are_drawn_and_what_lies_outside_is_named(tmp_path: Path) -> None:
    gate = judge(lenses(500, brighter=100), lenses(200, seed=1), BANDS)
    style = dict(matplotlib.rcParams)
    figure = injected.draw_distributions(gate)
    assert dict(matplotlib.rcParams) == style

    texts = texts_of(figure)
    assert texts.count("outside") == len(gate.problems()) == 4
    assert "painted: 500" in texts
    assert "known: 200" in texts
    assert "8 of 8 distributions compared,\nmedians outside: 4" in texts
    labels = {axes.get_xlabel() for axes in figure.axes}
    assert {"Einstein radius [arcsec]", "colour of the arc [mag]", "S/N of the arc"} <= labels


def test_medians_and_the_range_of_the_known_lie_within_the_axes() -> None:
    gate = judge(lenses(5000, brighter=1e4), lenses(30, seed=1), BANDS)
    figure = injected.draw_distributions(gate)
    for axes in figure.axes:
        low, high = axes.get_xlim()
        # The others are as wide as the axes.
        lines = [line for line in axes.get_lines() if line.get_transform() == axes.transData]
        assert len(lines) >= 2 or not axes.get_xlabel()
        for line in lines:
            x = np.asarray(line.get_xdata(), dtype=float)
            assert (x >= low).all()
            assert (x <= high).all()


def test_without_a_list_only_the_painted_are_drawn() -> None:
    texts = texts_of(injected.draw_distributions(judge(lenses(50), None, BANDS)))
    assert "compared with nothing:\nno list of known lenses is given" in texts
    assert not any(text.startswith("known") for text in texts)


@pytest.mark.parametrize("value", [1.0, -3.0, 0.0])
def test_values_that_are_all_the_same_or_not_positive_are_drawn(value: float) -> None:
    truth = lenses(5)
    truth[:] = value
    injected.draw_distributions(judge(truth, None, BANDS)).canvas.draw()


# ---- the contact sheet ----


@pytest.mark.slow
def test_both_figures_are_written_beside_the_dataset(datasets: tuple[Path, Path]) -> None:
    painted, hosts = datasets
    (painted / layout.INJECTION_SHEET).write_text("an older one")
    gate = judge(lenses(50), lenses(30), BANDS)
    injected.draw(painted, hosts, gate)
    for name in (layout.INJECTION_FIGURE, layout.INJECTION_SHEET):
        with Image.open(painted / name) as picture:
            assert picture.format == "PNG"
            assert picture.width > 1000
            assert np.asarray(picture.convert("L")).std() > 10
    # The range of the known.
    assert pixels_of(painted / layout.INJECTION_FIGURE, BLUE) > 200


def test_examples_go_from_the_faintest_arc_to_the_brightest(datasets: tuple[Path, Path]) -> None:
    painted, hosts = map(Dataset, datasets)
    sheet = injected_sheet.choose_examples(painted, hosts)
    assert len(sheet.examples) == injected_sheet.EXAMPLES
    assert sheet.examples[0].title.endswith("1.20″   S/N 0")
    assert sheet.examples[-1].title.endswith("1.20″   S/N 29")

    for example in sheet.examples:
        added = example.painted - example.host
        np.testing.assert_allclose(added[:, :8, :8], ARC, rtol=1e-5)
        assert not added[:, 8:].any()


def test_each_example_has_host_arc_and_sum(datasets: tuple[Path, Path]) -> None:
    painted, hosts = map(Dataset, datasets)
    sheet = injected_sheet.choose_examples(painted, hosts)
    odd = sheet._replace(examples=sheet.examples[:3])
    texts = texts_of(injected_sheet.draw_sheet(odd))
    for view in injected_sheet.VIEWS:
        assert texts.count(view) == 2
    for example in odd.examples:
        assert example.title in texts


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_the_picture_of_the_arc_shows_only_the_arc(dtype: str) -> None:
    host = np.random.default_rng(0).normal(50, 3, (3, 24, 24)).astype(dtype)
    host[:, 10:14, 10:14] += np.array(150, dtype)
    painted = host.copy()
    painted[:, :4, :4] += np.array(40, dtype)
    example = injected_sheet.Example(host, painted, "")
    picture = injected_sheet._picture_of_arc(example, ("g", "r", "i"))
    assert picture[:4, :4].min() > 0.1
    assert picture[4:].max() == pytest.approx(0, abs=1e-6)
