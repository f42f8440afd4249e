"""The contact sheet for a paper: all candidates of grades A and B, the best first."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lens_hpc.grading.sky_matches import KNOWN
from lens_hpc.logs import logger
from lens_hpc.reporting.composites import composite
from lens_hpc.reporting.figures import DOTS_PER_INCH, STYLE
from lens_hpc.reporting.pictures import ScaleBar, draw_bar
from lens_hpc.texts import printable

COLUMNS = 6
CUTOUTS_OF_A_PAGE = 7 * COLUMNS
WIDTH_INCHES = 7.1
"""Both columns of a page of most journals."""
CELL_INCHES = WIDTH_INCHES / COLUMNS
TITLE_INCHES = 0.16
MARGIN_INCHES = 0.03
LONGEST_NAME = 24
MOST_OF_PNG = 300
"""Cutouts of one picture, which would else be too tall to be looked at."""

ReadImages = Callable[[pd.DataFrame], np.ndarray]
"""Returns the cutouts of rows of the list, (n, bands, height, width)."""


def draw_contact_sheet(
    file: Path, table: pd.DataFrame, read: ReadImages, bands: tuple[str, ...], bar: ScaleBar
) -> None:
    """Write the contact sheet of a vetted list: a PDF of several pages, or one PNG.

    Each cutout has its id above it, and in it its grade, the mean of its grades, the length `bar`
    on the sky, and `known` where it is. A PNG holds the first 300, which a warning tells.
    """
    with matplotlib.rc_context(STYLE):
        if file.suffix == ".pdf":
            content = _render_pdf(table, read, bands, bar)
        else:
            content = _render_png(table, read, bands, bar)
    file.write_bytes(content)


def _render_pdf(
    table: pd.DataFrame, read: ReadImages, bands: tuple[str, ...], bar: ScaleBar
) -> bytes:
    content = BytesIO()
    # Without its date, the same grades make the same file.
    with PdfPages(content, metadata={"CreationDate": None}) as pages:
        for start in range(0, len(table), CUTOUTS_OF_A_PAGE):
            rows = table.iloc[start : start + CUTOUTS_OF_A_PAGE]
            pages.savefig(_draw_page(rows, read(rows), bands, bar))
    return content.getvalue()


def _render_png(
    table: pd.DataFrame, read: ReadImages, bands: tuple[str, ...], bar: ScaleBar
) -> bytes:
    if len(table) > MOST_OF_PNG:
        logger.warning(
            "contact sheet: shows %d of %d candidates; sheet=pdf has all", MOST_OF_PNG, len(table)
        )
    rows = table.head(MOST_OF_PNG)
    content = BytesIO()
    page = _draw_page(rows, read(rows), bands, bar)
    page.savefig(content, dpi=DOTS_PER_INCH, format="png")
    return content.getvalue()


def _draw_page(
    rows: pd.DataFrame, images: np.ndarray, bands: tuple[str, ...], bar: ScaleBar
) -> Figure:
    """Draw cutouts in as many rows of six as they need."""
    grid_rows = -(-len(rows) // COLUMNS)
    height = grid_rows * (CELL_INCHES + TITLE_INCHES)
    figure = Figure((WIDTH_INCHES, height))

    for number, (row, image) in enumerate(zip(rows.itertuples(), images, strict=True)):
        from_top, column = divmod(number, COLUMNS)
        bottom = height - (from_top + 1) * (CELL_INCHES + TITLE_INCHES)
        left = column * CELL_INCHES + MARGIN_INCHES
        side = CELL_INCHES - 2 * MARGIN_INCHES
        place = left / WIDTH_INCHES, bottom / height, side / WIDTH_INCHES, side / height
        _draw_cutout(figure.add_axes(place), row, composite(image, bands), bar)
    return figure


def _draw_cutout(axes: Axes, row: Any, picture: np.ndarray, bar: ScaleBar) -> None:
    axes.set_axis_off()
    axes.imshow(picture, origin="lower", interpolation="nearest")
    draw_bar(axes, bar)
    axes.set_title(_shorten(printable(row.id, kept="")), fontsize=6, pad=2, parse_math=False)

    # Dark edges, for a galaxy may lie behind.
    edge = [withStroke(linewidth=2, foreground="black")]
    style: dict[str, Any] = {
        "color": "white",
        "va": "top",
        "transform": axes.transAxes,
        "path_effects": edge,
    }
    axes.text(0.05, 0.95, row.grade, fontsize=9, fontweight="bold", **style)
    axes.text(0.19, 0.94, f"{row.mean_grade:.1f}", fontsize=6, **style)
    if row.known == KNOWN:
        axes.text(0.95, 0.94, "known", fontsize=6, ha="right", **style)


def _shorten(name: str) -> str:
    if len(name) <= LONGEST_NAME:
        return name
    return "…" + name[-(LONGEST_NAME - 1) :]
