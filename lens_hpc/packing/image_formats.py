"""Image files, one format a function: from a path to an array of planes.

A new format is a function `(path, hdu, key) -> array` of (planes, height, width) or (height, width)
and one line in FORMATS. A format of a user's own is such a function in a module of their own:
docs/how-to/image-format.md.
"""

from collections.abc import Callable, Collection
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import fitsio
import h5py
import numpy as np
from numpy.lib import format as npy

from lens_hpc.errors import UserError
from lens_hpc.extensions import find_object

Hdu = int | str | None
"""Number or name of a FITS HDU; None for the first with an image."""

Reader = Callable[[str, Hdu, str | None], np.ndarray]
"""What reads an image file: path, HDU and key of the recipe -> (planes, height, width)."""


class BadCutoutError(Exception):
    """A cutout that cannot be packed: the message names the file and the reason."""


# ---- formats ----


def _read_fits(path: str, hdu: Hdu, key: str | None) -> np.ndarray:
    """Read an image, compressed or not, or the only cell of a table's column of images."""
    with fitsio.FITS(path) as hdus:
        candidates = hdus if hdu is None else [hdus[hdu]]
        for candidate in candidates:
            image = _image_in_hdu(candidate)
            if image is not None:
                return image

    if hdu is None:
        raise ValueError("no HDU holds an image")
    raise ValueError(f"HDU {hdu} holds no image")


def _image_in_hdu(hdu: Any) -> np.ndarray | None:
    if hdu.get_exttype() == "IMAGE_HDU":
        return np.asarray(hdu.read()) if hdu.has_data() else None
    if hdu.get_nrows() != 1:
        return None

    for name in hdu.get_colnames():
        cells = hdu[name].read()
        if cells.dtype.kind in "fiu" and cells.ndim in (3, 4):
            return np.asarray(cells[0])
    return None


def _read_npy(path: str, hdu: Hdu, key: str | None) -> np.ndarray:
    """Read as np.load does, but twice as fast: a survey's files share one header, parsed once."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - no Path, and no buffer beside ours
        content = file.readall()

    # Bytes 8 and 9 of version 1.0 hold the length of the header that follows them.
    header_length = 10 + int.from_bytes(content[8:10], "little")
    shape, is_fortran, dtype = _parse_npy_header(content[:header_length])

    # Objects would be pickles, which run code; a file of another length is damaged.
    length = len(content)
    expected_length = header_length + dtype.itemsize * int(np.prod(shape))
    if dtype.hasobject or length != expected_length:
        raise ValueError(f"{length:,} bytes are not those of an array {shape} of {dtype}")

    pixels = np.frombuffer(content, dtype, offset=header_length)
    return pixels.reshape(shape, order="F" if is_fortran else "C")


@lru_cache(maxsize=64)
def _parse_npy_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    stream = BytesIO(header)
    version = npy.read_magic(stream)
    if version != (1, 0):
        raise ValueError("only version 1.0 of .npy is read")
    return npy.read_array_header_1_0(stream)


def _read_npz(path: str, hdu: Hdu, key: str | None) -> np.ndarray:
    with np.load(path, allow_pickle=False) as arrays:
        name = _choose_key(list(arrays.files), key)
        return np.asarray(arrays[name])


def _read_picture(path: str, hdu: Hdu, key: str | None) -> np.ndarray:
    """Read channels, or the pages of a TIFF, as planes."""
    from PIL import Image, ImageSequence

    with Image.open(path) as image:
        if image.mode == "P":
            raise ValueError("its pixels are numbers of a palette; convert it to grey or RGB")
        pages = [np.asarray(page) for page in ImageSequence.Iterator(image)]

    if len(pages) > 1:
        return np.stack(pages)
    page = pages[0]
    if page.ndim == 2:
        return page
    return np.moveaxis(page, -1, 0)


def _choose_key(keys: list[str], key: str | None) -> str:
    if key is None and len(keys) == 1:
        return keys[0]
    if key not in keys:
        listed = ", ".join(keys)
        raise ValueError(f"the key {key!r} is not among {listed}; set key")
    return key


class ImageFormat(NamedTuple):
    """A format that the package reads."""

    read: Reader
    endings: tuple[str, ...]
    """Endings of the files that are read so when the recipe names no format."""


FORMATS = {
    "fits": ImageFormat(_read_fits, (".fits", ".fit")),
    "npy": ImageFormat(_read_npy, (".npy",)),
    "npz": ImageFormat(_read_npz, (".npz",)),
    "picture": ImageFormat(_read_picture, (".png", ".jpg", ".jpeg", ".tif", ".tiff")),
}


# ---- reading ----


def find_reader(name: str | None, code: Collection[str] = ()) -> Reader | None:
    """Return the reader of images that a recipe names.

    Without a name there is none, and the ending of each file decides. Only packages in `code` are
    imported. Raises UserError when the name is unknown, its package is not in `code`, or it is not
    a function.
    """
    if name is None:
        return None

    known = {known_name: image_format.read for known_name, image_format in FORMATS.items()}
    reader = find_object("format", name, known, code)
    if not callable(reader):
        raise UserError(
            f"format = {name}: is not a function; name one that takes (path, hdu, key) and returns "
            "an array"
        )
    return reader


def read_image(
    path: str | Path,
    hdu: Hdu = None,
    key: str | None = None,
    reader: Reader | None = None,
) -> np.ndarray:
    """Read an image file: (planes, height, width), in the machine's byte order.

    An image of two axes is one plane. Without a `reader`, the ending of the file chooses one.
    Raises BadCutoutError, which names the file, when it cannot be read.
    """
    path = str(path)  # this runs for every file, and a Path costs more than the rest
    if reader is None:
        reader = _reader_by_ending(path)

    try:
        image = np.asarray(reader(path, hdu, key))
    except Exception as error:  # the decoders raise whatever they like on a damaged file
        reason = " ".join(str(error).split())
        raise BadCutoutError(
            f"{path}: cannot be read as an image: {type(error).__name__}: {reason}"
        ) from error

    if image.ndim == 2:
        image = image[None]
    if image.ndim != 3 or image.dtype.kind not in "fiu":
        raise BadCutoutError(
            f"{path}: an image must have 2 or 3 axes of numbers, not {image.ndim} of {image.dtype}"
        )
    return native_byte_order(image)


def _reader_by_ending(path: str) -> Reader:
    name = path.lower().removesuffix(".gz").removesuffix(".fz")
    ending = name[name.rfind(".") :]
    readers = _readers_by_ending()
    if ending not in readers:
        valid = ", ".join(readers)
        raise BadCutoutError(f"{path}: images of this type are not read; valid: {valid}")
    return readers[ending]


@cache
def _readers_by_ending() -> dict[str, Reader]:
    readers = {}
    for image_format in FORMATS.values():
        for ending in image_format.endings:
            readers[ending] = image_format.read
    return readers


def native_byte_order(image: np.ndarray) -> np.ndarray:
    """Return the image in the machine's byte order."""
    if image.dtype.isnative:
        return image
    return image.astype(image.dtype.newbyteorder("="))


def open_stack(path: Path, key: str | None, axes: str) -> Any:
    """Open an array of all cutouts, whose items are read when they are asked for.

    A .npy file is mapped, HDF5 is opened, .npz is read at once. Raises BadCutoutError when the
    file cannot be read, or has other axes than the letters of `axes`.
    """
    try:
        stack = _stack_in_file(path, key)
        if stack.ndim != len(axes):
            raise ValueError(f"has {stack.ndim} axes {stack.shape}, stack_axes = {axes}")
    except Exception as error:
        raise BadCutoutError(f"{path}: cannot be read as a stack: {error}") from error
    return stack


def _stack_in_file(path: Path, key: str | None) -> Any:
    ending = path.suffix.lower()
    if ending == ".npy":
        return np.load(path, mmap_mode="r", allow_pickle=False)
    if ending == ".npz":
        return _read_npz(str(path), None, key)

    file = h5py.File(path, "r", locking=False)
    arrays = [name for name, item in file.items() if isinstance(item, h5py.Dataset)]
    return file[_choose_key(arrays, key)]
