"""What the figures show; how they look is for eyes."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lens_hpc.reporting.figures import STYLE
from lens_hpc.selection.cells import Found, Map
from lens_hpc.selection.figures import CAPTIONS, draw_map, draw_selection
from lens_hpc.selection.grid import TrialGrid

GRID = TrialGrid((0.5, 1.0, 2.0), (22.0, 23.0, 24.0))


def axes() -> Axes:
    with matplotlib.rc_context(STYLE):
        return Figure(layout="constrained").subplots()


def drawn(cells: list[list[Found]]) -> Axes:
    on = axes()
    draw_map(on, Map(GRID, cells))
    on.figure.canvas.draw()
    return on


def test_a_map_says_the_percentage_of_each_cell_and_hatches_those_of_few_trials() -> None:
    on = drawn([[Found(40, 30), Found(40, 2)], [Found(10, 9), Found(0, 0)]])
    assert [text.get_text() for text in on.texts] == ["75", "5", "90"]
    hatched = [part for part in on.patches if isinstance(part, Rectangle) and part.get_hatch()]
    assert [(one.get_x(), one.get_y()) for one in hatched] == [(22, 1), (23, 1)]


def test_the_line_of_a_half_lies_between_cells_above_and_below() -> None:
    on = drawn([[Found(40, 8), Found(40, 0)], [Found(40, 32), Found(40, 40)]])
    lines = [part for part in on.collections if isinstance(part, QuadContourSet)]
    (line,) = lines
    points = np.concatenate([path.vertices for path in line.get_paths()])
    # At the left, 20 % at 0.75 arcsec and 80 % at 1.5: half lies in the middle.
    leftmost = points[points[:, 0].argmin()]
    assert leftmost == pytest.approx([22.5, 1.125])

    none = drawn([[Found(40, 8), Found(40, 0)], [Found(40, 12), Found(40, 3)]])
    assert not [part for part in none.collections if isinstance(part, QuadContourSet)]


@pytest.mark.parametrize("is_any_found", [True, False])
def test_every_figure_can_be_drawn_and_has_a_caption(is_any_found: bool) -> None:
    count = 60
    rng = np.random.default_rng(0)
    trials = pd.DataFrame(
        {
            "radius_over_seeing": rng.uniform(1, 4, count),
            "arc_snr": np.append(rng.uniform(1, 90, count - 1), 0),
            "source_magnitude": rng.uniform(22, 24, count),
            "found": (np.arange(count) % 2 == 0) & is_any_found,
            "logit": rng.normal(size=count),
            "logit_host": rng.normal(size=count),
            "logit_hidden": np.full(count, np.nan),
            "logit_control": np.full(count, np.nan),
        }
    )
    whole = Map(GRID, [[Found(15, 7)] * 2] * 2)
    drawings = draw_selection(whole, [], trials, threshold=0.5)
    assert ("without_arc" in drawings) == is_any_found
    assert set(drawings) <= set(CAPTIONS)
    for draw in drawings.values():
        with matplotlib.rc_context(STYLE):
            on = axes()
            draw(on)
        on.figure.canvas.draw()
        assert on.get_title(loc="left")
        assert on.get_xlabel()
