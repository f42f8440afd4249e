"""Cutouts as pictures: their views, and sheets of them."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lens_hpc.dataset.manifest import Manifest
from lens_hpc.reporting.composites import Stretch, composite
from lens_hpc.reporting.figures import DOTS_PER_INCH, STYLE
from lens_hpc.texts import printable

OTHER_STRETCHES = {
    # The centre of a galaxy, and what hides in it.
    "shallow": Stretch(40.0, 99.95),
    # Faint arcs and tails.
    "deep": Stretch(1.5, 97.0),
}
MOST_BANDS = 6
"""As many are shown one by one."""
ATTENTION = "attention"
# Red, green and blue behind a cutout where a model's attention is strongest.
GLOW = (0.75, 0.32, 0.05)

CUTOUT_WIDTH_INCHES = 1.35
CUTOUT_HEIGHT_INCHES = 1.5
TITLE_HEIGHT_INCHES = 0.35
LONGEST_NAME = 16

# The longest that a scale bar may be, as a fraction of the cutout's width.
LONGEST_BAR = 0.45
# Where it begins, as fractions of a cutout's width and height.
BAR_CORNER = (0.07, 0.06)


# ---- the length on the sky ----


class ScaleBar(NamedTuple):
    """A length on the sky that is shown on each cutout."""

    arcsec: float
    percent: float
    """Of the width of a cutout."""

    def __str__(self) -> str:
        return f"{self.arcsec:g}″"


def scale_bar(manifest: Manifest) -> ScaleBar:
    """Return the longest bar of 1, 2 or 5 times a power of ten that is short enough."""
    width = manifest.width * manifest.pixel_scale_arcsec
    longest = LONGEST_BAR * width
    power = 10.0 ** math.floor(math.log10(longest))
    length = max(step * power for step in (1, 2, 5) if step * power <= longest)
    return ScaleBar(length, 100 * length / width)


def draw_bar(axes: Axes, bar: ScaleBar) -> None:
    """Draw a bar into the lower left corner of a cutout, white with a dark edge, and its length."""
    left, height = BAR_CORNER
    right = left + bar.percent / 100
    edge = [withStroke(linewidth=2.5, foreground="black")]
    style: dict[str, Any] = {
        "color": "white",
        "transform": axes.transAxes,
        "path_effects": edge,
    }

    # Ends of another style would make the line longer than the bar.
    axes.plot([left, right], [height, height], linewidth=1.2, solid_capstyle="butt", **style)
    axes.text(left, height + 0.03, str(bar), fontsize=6, **style)


# ---- sheets ----


def draw_cutouts(
    path: Path,
    sheets: dict[str, tuple[np.ndarray, list[str]]],
    bands: tuple[str, ...],
    bar: ScaleBar,
    columns: int,
) -> None:
    """Write a PNG with a contact sheet for each title.

    A sheet is made of images (n, bands, height, width) and their n names. Each cutout has the bar.
    """
    rows = [-(-len(names) // columns) for _, names in sheets.values()]
    heights = [count * CUTOUT_HEIGHT_INCHES + TITLE_HEIGHT_INCHES for count in rows]
    width = CUTOUT_WIDTH_INCHES * columns
    height = CUTOUT_HEIGHT_INCHES * sum(rows) + TITLE_HEIGHT_INCHES * len(sheets)

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        parts = figure.subfigures(len(sheets), 1, height_ratios=heights, squeeze=False).flat
        for part, row_count, title in zip(parts, rows, sheets, strict=True):
            part.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
            grid = part.subplots(row_count, columns, squeeze=False)
            images, names = sheets[title]
            _draw_sheet(list(grid.flat), images, names, bands, bar)
        figure.savefig(path, dpi=DOTS_PER_INCH, format="png")


def _draw_sheet(
    cells: list[Axes],
    images: np.ndarray,
    names: list[str],
    bands: tuple[str, ...],
    bar: ScaleBar,
) -> None:
    for axes in cells:
        axes.set_axis_off()
    # The last row may have cells without a cutout.
    for axes, image, name in zip(cells, images, names, strict=False):
        axes.imshow(composite(image, bands), origin="lower", interpolation="nearest")
        draw_bar(axes, bar)
        axes.set_title(_shorten(printable(name, kept="")), fontsize=6, pad=2, parse_math=False)


def _shorten(name: str) -> str:
    if len(name) <= LONGEST_NAME:
        return name
    return "…" + name[-(LONGEST_NAME - 1) :]


# ---- views ----


def make_views(
    image: np.ndarray, bands: tuple[str, ...], attention: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return pictures (height, width, 3), 0 to 1, of one cutout (bands, height, width) by name.

    The composite, other stretches of it, each band alone where there are several, and the composite
    over a map of a model's attention (height, width).
    """
    first = "colour" if len(bands) >= 3 else "grey"
    views = {first: composite(image, bands)}
    if image.dtype != np.uint8:
        for name, stretch in OTHER_STRETCHES.items():
            views[name] = composite(image, bands, stretch)

    if len(bands) > 1:
        for number, band in enumerate(bands[:MOST_BANDS]):
            views[f"band {band}"] = composite(image[[number]], (band,))

    if attention is not None:
        views[ATTENTION] = _over_map(attention, views[first])
    return views


def _over_map(attention: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Return a picture (height, width, 3) that glows where attention (height, width) is strong.

    The strongest of each cutout is as bright as that of another.
    """
    relative = attention / max(float(attention.max()), 1e-9)
    light = relative[:, :, np.newaxis] * np.array(GLOW)
    return 1 - (1 - light) * (1 - picture)
