"""FITS images: an image HDU, compressed or not, or the only cell of a table's column of images.

Pixels for which the file has a word of its own, BLANK or TNULL, are masked.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fitsio
import numpy as np

Hdu = int | str | None
"""Number or name of a FITS HDU; None for the first with an image."""

Part = tuple[Hdu, str | None]
"""HDU of a FITS file, and column of a table or name of an array."""

MOST_PIXELS = 1 << 28
"""No cutout has more; a header that says so is damaged, and reading it would take all memory."""

GZIP_MAGIC = b"\x1f\x8b"
BITS_64 = 64
HDUS_SHOWN = 30


def read_fits(path: str, hdu: Hdu, key: str | None) -> np.ndarray:
    """Read an image, compressed or not, or the only cell of the column `key` of a table."""
    return read_fits_parts(path, [(hdu, key)])[0]


def read_fits_parts(path: str, parts: Sequence[Part]) -> list[np.ndarray]:
    """Read several images of one file, which is opened once."""
    with fitsio.FITS(path) as hdus:
        return [_read_image_of(path, hdus, hdu, key) for hdu, key in parts]


def _read_image_of(path: str, hdus: Any, hdu: Hdu, key: str | None) -> np.ndarray:
    for candidate in _candidates(hdus, hdu):
        image = _image_in_hdu(path, candidate, key)
        if image is not None:
            return image

    wanted = "an image" if key is None else f"the column {key} with one image"
    if hdu is None:
        raise ValueError(f"no HDU holds {wanted}; it has {_describe_hdus(hdus)}")
    raise ValueError(f"HDU {hdu} does not hold {wanted}; it has {_describe_hdus(hdus)}")


def _candidates(hdus: Any, hdu: Hdu) -> Any:
    if hdu is None:
        return hdus

    # A number that comes out of a catalogue is text.
    if isinstance(hdu, str) and hdu.isdecimal():
        hdu = int(hdu)
    try:
        return [hdus[hdu]]
    except (OSError, IndexError) as error:
        raise ValueError(f"there is no HDU {hdu}; it has {_describe_hdus(hdus)}") from error


def describe_fits(path: str) -> str:
    """Return the numbers and names of the HDUs of a file, for a message."""
    with fitsio.FITS(path) as hdus:
        return _describe_hdus(hdus)


def _describe_hdus(hdus: Any) -> str:
    names = [f"{number} {hdu.get_extname()}".rstrip() for number, hdu in enumerate(hdus)]
    dots = ", ..." if len(names) > HDUS_SHOWN else ""
    return "the HDUs " + ", ".join(names[:HDUS_SHOWN]) + dots


def _image_in_hdu(path: str, hdu: Any, key: str | None) -> np.ndarray | None:
    """Return the image that an HDU holds, if it holds one."""
    is_image = hdu.get_exttype() == "IMAGE_HDU"
    if is_image and key is None:
        return _read_image_hdu(hdu) if hdu.has_data() else None
    if is_image or hdu.get_nrows() != 1:
        return None

    for number, name in enumerate(hdu.get_colnames()):
        if key is None or name.lower() == key.lower():
            image = _read_cell(path, hdu, number)
            if image is not None:
                return image
    return None


# ---- pixels, and where there are none ----


def _read_image_hdu(hdu: Any) -> np.ndarray:
    # fitsio's public way to this takes a deep copy, which is as long as an image takes.
    info = hdu._info
    shape, bits = info["dims"], info["img_type"]
    check_pixel_count(shape)

    # The standard knows BLANK for integers alone, and a header is long to read, too.
    if bits < 0:
        return np.asarray(hdu.read())
    header = hdu.read_header()
    blank = header.get("ZBLANK", header.get("BLANK"))
    if blank is not None and not isinstance(blank, int):
        raise ValueError(f"BLANK = {blank!r} is not a whole number")

    # The C library would cut scaled numbers of 64 bits down to whole ones.
    scale, zero = header.get("BSCALE", 1), header.get("BZERO", 0)
    if bits == BITS_64 and (scale, zero) != (1, 0):
        numbers = _read_without_scale(hdu, shape)
        pixels = numbers * np.float64(scale) + zero
        return pixels if blank is None else _mask_where(pixels, numbers == blank)

    # The word is one for the numbers in the file, before BSCALE and BZERO.
    pixels = np.asarray(hdu.read())
    if blank is None:
        return pixels
    return _mask_where(pixels, _read_without_scale(hdu, shape) == blank)


def _read_without_scale(hdu: Any, shape: Sequence[int]) -> np.ndarray:
    was_ignored = hdu.ignore_scaling
    hdu.ignore_scaling = True
    try:
        return np.asarray(hdu[tuple(slice(0, length) for length in shape)])
    finally:
        hdu.ignore_scaling = was_ignored


def _read_cell(path: str, hdu: Any, number: int) -> np.ndarray | None:
    """Return the image in the only row of a column; None where it holds no image."""
    column = hdu.get_info()["colinfo"][number]
    if len(column["tdim"]) not in (2, 3):
        return None
    check_pixel_count(column["tdim"])

    # For floats as they are, fitsio is faster; it mistakes scaled integers for others.
    scale, zero = column["tscale"], column["tzero"]
    if column["tform"].strip("0123456789 ") in ("E", "D") and (scale, zero) == (1, 0):
        return np.asarray(hdu[column["name"]].read()[0])

    from astropy.io import fits  # takes longer to import than a small survey takes to pack

    with fits.open(path, memmap=False) as hdus:
        table = hdus[hdu.get_extnum()]
        numbers = table.data.view(np.recarray)[column["name"]][0]
        null = table.columns[number].null
    if numbers.dtype.kind not in "fiu":
        return None

    # The word for no measurement is one for the numbers in the file, as in an image.
    pixels = numbers if (scale, zero) == (1, 0) else numbers * scale + zero
    return pixels if null is None else _mask_where(pixels, numbers == null)


def _mask_where(pixels: np.ndarray, is_missing: np.ndarray) -> np.ndarray:
    if not is_missing.any():
        return pixels
    return np.ma.MaskedArray(pixels, is_missing)


def check_pixel_count(shape: Sequence[int]) -> None:
    """Raise ValueError for an image that is larger than any cutout."""
    pixels = math.prod(map(int, shape))
    if pixels > MOST_PIXELS:
        raise ValueError(f"{pixels:,} pixels are too many for a cutout")


# ---- units ----


def read_fits_unit(path: str, hdu: Hdu) -> str:
    """Return the unit (BUNIT) that an image HDU gives for its pixels; empty where it gives none."""
    # Most files have none, and to open one takes longer than to look through it.
    content = Path(path).read_bytes()
    if b"BUNIT" not in content and not content.startswith(GZIP_MAGIC):
        return ""

    with fitsio.FITS(path) as hdus:
        for candidate in _candidates(hdus, hdu):
            if candidate.get_exttype() == "IMAGE_HDU" and candidate.has_data():
                return str(candidate.read_header().get("BUNIT", "") or "")
    return ""
