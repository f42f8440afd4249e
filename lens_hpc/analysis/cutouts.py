"""Cutouts as pictures: colour composites, and sheets of them."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from lens_hpc.analysis.figures import STYLE

# counts of sky noise at which the stretch turns from linear to logarithmic
SOFTENING = 4.0


def draw_cutouts(
    path: Path, sheets: dict[str, tuple[np.ndarray, list[str]]], bands: tuple[str, ...], columns: int
) -> None:
    """PNG with a contact sheet: for each title, images (n, bands, height, width) and their n names."""
    rows = sum(-(-len(names) // columns) for _, names in sheets.values())
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.35 * columns, 1.5 * rows + 0.35 * len(sheets)), layout="constrained")
        heights = [-(-len(names) // columns) * 1.5 + 0.35 for _, names in sheets.values()]
        parts = figure.subfigures(len(sheets), 1, height_ratios=heights, squeeze=False).flat
        for part, (title, (images, names)) in zip(parts, sheets.items(), strict=True):
            part.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
            grid = part.subplots(-(-len(names) // columns), columns, squeeze=False)
            for axes in grid.flat:
                axes.set_axis_off()
            for axes, image, name in zip(grid.flat, images, names, strict=False):
                axes.imshow(composite(image, bands), origin="lower", interpolation="nearest")
                axes.set_title(name if len(name) <= 16 else "…" + name[-15:], fontsize=6, pad=2)
        figure.savefig(path, dpi=160, format="png")


def composite(image: np.ndarray, bands: tuple[str, ...]) -> np.ndarray:
    """An RGB picture (height, width, 3), 0 to 1, of one cutout (bands, height, width).

    Three bands or more: an arcsinh stretch of the mean intensity that keeps colours (Lupton et al. 2004, PASP 116,
    133), the third of the first three bands in red. Fewer: a grey arcsinh of the first. Pictures of 8 bits stay as
    they are.
    """
    if image.dtype == np.uint8:
        planes = image[:3] if len(image) >= 3 else image[:1].repeat(3, axis=0)
        return np.moveaxis(planes, 0, -1) / 255
    planes = image[:3].astype(np.float64) if len(image) >= 3 else image[:1].astype(np.float64)
    # each band in units of its own sky noise, so that a faint blue arc is not lost beside a bright red galaxy
    sky = np.median(planes, axis=(1, 2), keepdims=True)
    noise = 1.48 * np.median(abs(planes - sky), axis=(1, 2), keepdims=True)
    planes = (planes - sky) / np.where(noise > 0, noise, 1)
    intensity = planes.mean(axis=0)
    peak = max(float(np.percentile(intensity, 99.7)), SOFTENING)
    stretched = np.arcsinh(np.clip(intensity, 0, None) / SOFTENING) / np.arcsinh(peak / SOFTENING)
    colours = planes * stretched / np.where(intensity > 0, intensity, np.inf)
    reddest_first = colours[::-1] if len(colours) == 3 else colours.repeat(3, axis=0)
    return np.clip(np.moveaxis(reddest_first, 0, -1), 0, 1)
