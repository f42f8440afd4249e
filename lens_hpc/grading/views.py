"""Cutouts as graders see them: PNG of one in some view, and of many in rows (a sprite)."""

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from lens_hpc.dataset.manifest import Manifest
from lens_hpc.reporting.composites import STRETCH, Stretch, composite

STRETCHES = {
    "asinh": STRETCH,
    # Faint arcs and tails, and the noise.
    "log": Stretch(1.5, 99.9, np.log1p),
    # The centre of a galaxy.
    "sqrt": Stretch(4.0, 99.9, np.sqrt),
}
CELLS_PER_ROW = 20
LIGHTLY_COMPRESSED = 1
"""Level of PNG: the page is on the same machine, and waits."""


def view_names(manifest: Manifest) -> list[str]:
    """Return the names of all views of a dataset's cutouts, the stretches first."""
    # Pictures of 8 bits are stretched already.
    stretches = ["asinh"] if manifest.dtype == "uint8" else list(STRETCHES)
    bands = manifest.bands if len(manifest.bands) > 1 else ()
    return stretches + [band for band in bands if band not in stretches]


def draw_view(image: np.ndarray, bands: tuple[str, ...], view: str) -> Image.Image:
    """Return one cutout (bands, height, width) as a picture of as many pixels.

    `view` is one of STRETCHES, in colour where there are three bands, or a band, in grey.
    """
    if view in STRETCHES:
        picture = composite(image, bands, STRETCHES[view])
    else:
        band = bands.index(view)
        picture = composite(image[[band]], (view,))

    # The first row of pixels is at the bottom, as in FITS files.
    upright = picture[::-1] * 255
    return Image.fromarray(upright.astype(np.uint8))


def cutout_png(image: np.ndarray, bands: tuple[str, ...], view: str, size: int) -> bytes:
    """Return one cutout as PNG whose longer side has `size` pixels."""
    picture = draw_view(image, bands, view)
    return _as_png(_resized(picture, size))


def sheet_png(images: Sequence[np.ndarray], bands: tuple[str, ...], view: str, size: int) -> bytes:
    """Return cutouts in cells of `size` pixels as one PNG, CELLS_PER_ROW beside each other."""
    rows = max(1, math.ceil(len(images) / CELLS_PER_ROW))
    sheet = Image.new("RGB", (CELLS_PER_ROW * size, rows * size))

    for number, image in enumerate(images):
        picture = draw_view(image, bands, view)
        picture = _resized(picture, size)
        row, column = divmod(number, CELLS_PER_ROW)
        # One that is no square lies in the middle of its cell.
        left = column * size + (size - picture.width) // 2
        top = row * size + (size - picture.height) // 2
        sheet.paste(picture, (left, top))
    return _as_png(sheet)


def _resized(picture: Image.Image, size: int) -> Image.Image:
    scale = size / max(picture.size)
    width = max(1, round(scale * picture.width))
    height = max(1, round(scale * picture.height))
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def _as_png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "png", compress_level=LIGHTLY_COMPRESSED)
    return content.getvalue()
