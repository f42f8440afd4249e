"""FITS images: an image HDU, compressed or not, or the only cell of a table's column of images.

Pixels for which the file has a word of its own, BLANK or TNULL, are masked.
"""

import gzip
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fitsio
import numpy as np

Hdu = int | str | None
"""Number or name of a FITS HDU; None for the first with an image."""

Part = tuple[Hdu, str | None]
"""HDU of a FITS file, and column of a table or name of an array."""

MOST_PIXELS = 1 << 28
"""No cutout has more; a header that says so is damaged, and reading it would take all memory."""

MOST_UNPACKED = 64 << 20
MOST_TIMES_UNPACKED = 100
"""What unpacks to more bytes than the first, and to so many times its size, holds no measurements:
noise does not shrink so far."""

GZIP_MAGIC = b"\x1f\x8b"
OTHER_MAGICS = (b"BZh", b"PK\x03\x04", b"\x1f\x9d", b"\x1f\x1e", b"\x1f\xa0")
"""bzip2, zip, compress, pack and lzh, which the libraries would unpack whatever they hold."""
MOST_UNZIPPED = 512 << 20
MOST_TIMES_GZIPPED = 1040
"""Of a zipped file, which may have empty HDUs beside the one that is read; no gzip shrinks
anything further."""
CHUNK_BYTES = 1 << 20
BITS_64 = 64
HALF_OF_UINT64 = 1 << 63
SYNTAX_OF_CFITSIO = re.compile(r"[\[\](){}]|\+\d+$|;|://|#|%|\$|^[!~-]")
"""What the C library may take in a file's name for an order, such as [1] for an HDU."""
HDUS_SHOWN = 30


def read_fits(path: str, hdu: Hdu, key: str | None) -> np.ndarray:
    """Read an image, compressed or not, or the only cell of the column `key` of a table."""
    return read_fits_parts(path, [(hdu, key)])[0]


def read_fits_parts(path: str, parts: Sequence[Part]) -> list[np.ndarray]:
    """Read several images of one file, which is opened once."""
    with _open_fits(path) as hdus:
        return [_read_image_of(path, hdus, hdu, key) for hdu, key in parts]


@contextmanager
def _open_fits(path: str) -> Iterator[Any]:
    """Open the file of this name, whatever the C library would read into the name."""
    refuse_zip_bomb(path)
    if not SYNTAX_OF_CFITSIO.search(path):
        with fitsio.FITS(path) as hdus:
            yield hdus
        return

    with TemporaryDirectory() as folder:
        link = Path(folder) / "image.fits"
        link.symlink_to(Path(path).absolute())
        with fitsio.FITS(str(link)) as hdus:
            yield hdus


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

    # A number that comes out of a catalogue is text, and a name may look like a number.
    choices: list[int | str] = [hdu]
    if isinstance(hdu, str) and hdu.isdecimal():
        choices.append(int(hdu))
    for choice in choices:
        try:
            return [hdus[choice]]
        except (OSError, IndexError):
            continue
    raise ValueError(f"there is no HDU {hdu}; it has {_describe_hdus(hdus)}")


def describe_fits(path: str) -> str:
    """Return the numbers and names of the HDUs of a file, for a message."""
    with _open_fits(path) as hdus:
        return _describe_hdus(hdus)


def _describe_hdus(hdus: Any) -> str:
    names = [f"{number} {hdu.get_extname()}".rstrip() for number, hdu in enumerate(hdus)]
    if len(names) == 1:
        return f"one HDU, {names[0]}"
    dots = ", ..." if len(names) > HDUS_SHOWN else ""
    return "the HDUs " + ", ".join(names[:HDUS_SHOWN]) + dots


def _image_in_hdu(path: str, hdu: Any, key: str | None) -> np.ndarray | None:
    """Return the image that an HDU holds, if it holds one."""
    is_image = hdu.get_exttype() == "IMAGE_HDU"
    if is_image and key is None:
        return _read_image_hdu(path, hdu) if hdu.has_data() else None
    if is_image or hdu.get_nrows() != 1:
        return None

    for number, name in enumerate(hdu.get_colnames()):
        if key is None or name.lower() == key.lower():
            image = _read_cell(path, hdu, number)
            is_unasked_mask = key is None and image is not None and image.dtype.kind == "b"
            if image is not None and not is_unasked_mask:
                return image
    return None


# ---- pixels, and where there are none ----


def _read_image_hdu(path: str, hdu: Any) -> np.ndarray:
    # fitsio's public way to this takes a deep copy, which is as long as an image takes.
    info = hdu._info
    shape, bits = info["dims"], info["img_type"]
    check_pixel_count(shape)
    unpacked = math.prod(shape) * abs(bits) // 8
    if unpacked > MOST_UNPACKED:
        check_unpacked(unpacked, Path(path).stat().st_size)

    # The standard knows BLANK for integers alone, and a header is long to read, too.
    if bits < 0:
        return np.asarray(hdu.read())
    header = hdu.read_header()
    blank = header.get("ZBLANK", header.get("BLANK"))
    if blank is not None and not isinstance(blank, int):
        raise ValueError(f"BLANK = {blank!r} is not a whole number")

    # The C library would cut scaled numbers of 64 bits down to whole ones. A long one is text.
    scale, zero = float(header.get("BSCALE", 1)), float(header.get("BZERO", 0))
    if bits == BITS_64 and (scale, zero) != (1, 0):
        numbers = _read_without_scale(hdu, shape)
        pixels = _scale(numbers, scale, zero)
        return pixels if blank is None else _mask_where(pixels, numbers == blank)

    # The word is one for the numbers in the file, before BSCALE and BZERO.
    pixels = np.asarray(hdu.read())
    if blank is None:
        return pixels
    return _mask_where(pixels, _read_without_scale(hdu, shape) == blank)


def _scale(numbers: np.ndarray, scale: float, zero: float) -> np.ndarray:
    # As floats, unsigned numbers of 64 bits would lose their last digits. Some programs write
    # fifteen digits of their zero.
    is_long = numbers.dtype.kind == "i" and numbers.itemsize == 8
    if is_long and scale == 1 and math.isclose(zero, HALF_OF_UINT64, rel_tol=1e-15):
        native = numbers.astype(np.int64)
        return native.view(np.uint64) ^ np.uint64(HALF_OF_UINT64)
    scaled: np.ndarray = numbers * scale + zero
    return scaled


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

    # Truth values are letters in the file, and 0 where none is known.
    if column["tform"].strip("0123456789 ") == "L":
        return _mask_where(numbers == ord("T"), numbers == 0)

    # The word for no measurement is one for the numbers in the file, as in an image.
    pixels = numbers if (scale, zero) == (1, 0) else _scale(numbers, scale, zero)
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


def check_unpacked(unpacked_bytes: int, packed_bytes: int, most: int = MOST_UNPACKED) -> None:
    """Raise ValueError for what is small on disk and would fill the memory; not up to `most`."""
    if unpacked_bytes > max(most, MOST_TIMES_UNPACKED * packed_bytes):
        raise ValueError(
            f"{packed_bytes:,} bytes would unpack to {unpacked_bytes:,} or more, which no sound "
            "file does; mend or remove it"
        )


def refuse_zip_bomb(path: str | Path, most: int = MOST_UNZIPPED) -> None:
    """Raise ValueError for a zipped file that is small on disk and would fill the memory.

    It may unzip to `most` bytes at least. It is unzipped to find out, unless it is too small for
    that: what it says of its length itself is only true of its last part.
    """
    file = os.open(path, os.O_RDONLY)  # as this runs for every image, without an object
    try:
        start = os.read(file, 4)
    finally:
        os.close(file)
    if start.startswith(OTHER_MAGICS):
        raise ValueError("it is packed by another program than gzip; unpack it")
    if not start.startswith(GZIP_MAGIC):
        return

    size = Path(path).stat().st_size
    if size * MOST_TIMES_GZIPPED <= most:
        return
    unzipped = 0
    with gzip.open(path) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            unzipped += len(chunk)
            check_unpacked(unzipped, size, most)


# ---- units ----


def read_fits_unit(path: str, hdu: Hdu, key: str | None = None) -> str:
    """Return the unit that an image HDU (BUNIT) or a table's column (TUNIT) gives for its pixels.

    It is empty where there is none.
    """
    # Most files have none, and to open one takes longer than to look through it.
    content = Path(path).read_bytes()
    if not re.search(rb"[BT]UNIT", content) and not content.startswith(GZIP_MAGIC):
        return ""

    with _open_fits(path) as hdus:
        for candidate in _candidates(hdus, hdu):
            word = _word_of_unit(candidate, key)
            if word is not None:
                return str(candidate.read_header().get(word, "") or "")
    return ""


def _word_of_unit(hdu: Any, key: str | None) -> str | None:
    """Return the word in the header of an HDU that holds its image's unit; None without image."""
    if hdu.get_exttype() == "IMAGE_HDU":
        return "BUNIT" if key is None and hdu.has_data() else None

    for number, column in enumerate(hdu.get_info()["colinfo"], start=1):
        is_named = key is None or column["name"].lower() == key.lower()
        if is_named and len(column["tdim"]) in (2, 3):
            return f"TUNIT{number}"
    return None
