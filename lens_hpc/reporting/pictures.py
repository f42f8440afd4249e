"""Cutouts as pictures: colour composites, other views of them, and sheets."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lens_hpc.dataset.bands import by_wavelength, wavelength_nm
from lens_hpc.dataset.manifest import Manifest
from lens_hpc.reporting.figures import DOTS_PER_INCH, STYLE
from lens_hpc.texts import printable


class Stretch(NamedTuple):
    """An arcsinh stretch of brightness."""

    softening: float
    """Counts of sky noise at which it turns from linear to logarithmic."""
    brightest_percentile: float
    """Percentile of the pixels that becomes white."""


STRETCH = Stretch(4.0, 99.7)
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

# The standard deviation of normal noise, in units of its median absolute deviation.
NOISE_OF_DEVIATION = 1.48

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


# ---- colour ----


def composite(
    image: np.ndarray,
    bands: tuple[str, ...],
    stretch: Stretch = STRETCH,
    scale_of: np.ndarray | None = None,
) -> np.ndarray:
    """Return an RGB picture (height, width, 3), 0 to 1, of one cutout (bands, height, width).

    Of three bands or more, three are shown, the reddest in red, by an arcsinh stretch of the mean
    intensity that keeps colours (Lupton et al. 2004, PASP 116, 133). Where their names tell the
    wavelengths, these are the first, the middle and the last; else the first three, in their order.
    Of fewer bands, the first is shown in grey, by the same stretch. `scale_of` is another cutout,
    of whose sky, noise and brightness the picture is made. Pictures of 8 bits stay as they are.
    """
    if image.dtype == np.uint8:
        return _to_rgb(image[:3] if len(image) >= 3 else image[:1]) / 255

    shown = _shown_bands(bands)
    scale = (image if scale_of is None else scale_of)[shown].astype(np.float64)
    sky, noise = _sky_and_noise(scale)
    brightness = ((scale - sky) / noise).mean(axis=0)
    softening = stretch.softening
    peak = max(float(np.percentile(brightness, stretch.brightest_percentile)), softening)

    # A faint blue arc is not lost beside a bright red galaxy, for each band has its own noise.
    planes = (image[shown].astype(np.float64) - sky) / noise
    intensity = planes.mean(axis=0)
    positive = np.clip(intensity, 0, None)
    stretched = np.arcsinh(positive / softening) / np.arcsinh(peak / softening)

    # Each plane keeps its ratio to the intensity, and so the pixel its colour.
    colours = planes * stretched / np.where(intensity > 0, intensity, np.inf)
    reddest_first = colours[::-1]
    return np.clip(_to_rgb(reddest_first), 0, 1)


def _shown_bands(bands: tuple[str, ...]) -> list[int]:
    """Return the numbers of the bands to show: three from blue to red, or the first alone."""
    if len(bands) < 3:
        return [0]
    if None in map(wavelength_nm, bands):
        return [0, 1, 2]
    order = by_wavelength(bands)
    return [order[0], order[len(order) // 2], order[-1]]


def _sky_and_noise(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sky of each band (bands, height, width) and its noise, (bands, 1, 1) each."""
    sky = np.median(planes, axis=(1, 2), keepdims=True)
    deviation = np.median(abs(planes - sky), axis=(1, 2), keepdims=True)
    noise = NOISE_OF_DEVIATION * deviation
    return sky, np.where(noise > 0, noise, 1)


def _to_rgb(planes: np.ndarray) -> np.ndarray:
    """Return three planes, or one as three, (planes, height, width) as (height, width, 3)."""
    if len(planes) == 1:
        planes = planes.repeat(3, axis=0)
    return np.moveaxis(planes, 0, -1)
