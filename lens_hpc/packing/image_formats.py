"""Image files: from a path to an array of planes, by a reader for each format.

A reader is a function `(path, hdu, key) -> array` of (planes, height, width) or (height, width),
and a format is one line in FORMATS. Where a file says that a pixel holds no measurement, the array
is a masked one. A format of a user's own is such a function in a module of their own:
docs/how-to/image-format.md.
"""

from collections.abc import Callable, Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from lens_hpc.errors import UserError
from lens_hpc.extensions import find_object
from lens_hpc.packing.array_files import (
    read_hdf5,
    read_npy,
    read_npz,
)
from lens_hpc.packing.damage import describe_damage
from lens_hpc.packing.fits_images import Hdu, Part, read_fits, read_fits_parts
from lens_hpc.packing.pictures import read_picture
from lens_hpc.packing.tar_files import path_on_disk, tar_of

Reader = Callable[[str, Hdu, str | None], np.ndarray]
"""What reads an image file: path, HDU and key of the recipe -> (planes, height, width)."""

Axes = Literal["BHW", "HWB"]
"""Order of an image's axes: band, height, width."""


class BadCutoutError(Exception):
    """A cutout that cannot be packed: the message names the file and the reason."""


class ImageFormat(NamedTuple):
    """A format that the package reads."""

    read: Reader
    endings: tuple[str, ...]
    """Endings of the files that are read so when the recipe names no format."""


FORMATS = {
    "fits": ImageFormat(read_fits, (".fits", ".fit", ".fts")),
    "npy": ImageFormat(read_npy, (".npy",)),
    "npz": ImageFormat(read_npz, (".npz",)),
    "hdf5": ImageFormat(read_hdf5, (".h5", ".hdf5", ".hdf")),
    "picture": ImageFormat(read_picture, (".png", ".jpg", ".jpeg", ".tif", ".tiff")),
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
    axes: Axes = "BHW",
) -> np.ndarray:
    """Read an image file: (planes, height, width), in the machine's byte order.

    An image of two axes is one plane, and further axes of length 1 are left out. Without a
    `reader`, the ending of the file chooses one. Raises BadCutoutError, which names the file, when
    it cannot be read.
    """
    return read_parts(path, [(hdu, key)], reader, axes)[0]


def read_parts(
    path: str | Path,
    parts: Sequence[Part],
    reader: Reader | None = None,
    axes: Axes = "BHW",
    masks: Sequence[Part] = (),
) -> list[np.ndarray]:
    """Read several images of one file, each given by its HDU and key, as `read_image` does.

    After them come `masks`, which may also be of truth values: those become 0 and 1.
    """
    path = str(path)  # this runs for every file, and a Path costs more than the rest
    if reader is None:
        reader = reader_by_ending(path)

    try:
        if axes == "HWB" and reader is read_picture:
            raise ValueError("the channels of a picture are its planes already; leave axes out")
        if tar_of(path) is None:
            images = _call_reader(reader, path, [*parts, *masks])
        else:
            with path_on_disk(path) as copy:
                images = _call_reader(reader, copy, [*parts, *masks])
        arrays = [np.asanyarray(image) for image in images]
        for number in range(len(parts), len(arrays)):
            if arrays[number].dtype.kind == "b":
                arrays[number] = arrays[number].astype(np.uint8)
        return [as_image_planes(array, axes) for array in arrays]
    except Exception as error:  # the decoders raise whatever they like on a damaged file
        is_ours = any(image_format.read is reader for image_format in FORMATS.values())
        reason = describe_damage(path, error) if is_ours else f"{type(error).__name__}: {error}"
        raise BadCutoutError(f"{path}: cannot be read as an image: {reason}") from error


def _call_reader(reader: Reader, path: str, parts: Sequence[Part]) -> list[np.ndarray]:
    if reader is read_fits:
        return read_fits_parts(path, parts)  # which opens the file once
    return [reader(path, hdu, key) for hdu, key in parts]


def as_image_planes(image: np.ndarray, axes: Axes) -> np.ndarray:
    """Return an image as (planes, height, width); ValueError for what is none."""
    shape = image.shape
    while image.ndim > 3 and 1 in image.shape[:-2]:
        image = image.squeeze(axis=image.shape.index(1))
    if image.ndim == 2:
        image = image[None]
    elif axes == "HWB" and image.ndim == 3:
        image = np.moveaxis(image, -1, 0)

    if image.ndim != 3 or image.dtype.kind not in "fiu":
        raise ValueError(
            f"an image must have 2 or 3 axes of numbers, not {len(shape)} of {image.dtype}"
        )
    if not image.size:
        raise ValueError(f"it has no pixels: its shape is {shape}")
    return native_byte_order(image)


def reader_by_ending(path: str) -> Reader:
    """Return the reader of a file; BadCutoutError where its ending is not known."""
    name = path.lower().removesuffix(".gz").removesuffix(".fz")
    ending = name[name.rfind(".") :]
    readers = _readers_by_ending()
    if ending not in readers:
        valid = ", ".join(readers)
        raise BadCutoutError(
            f"{path}: images of this type are not read; valid: {valid}; format= names the format "
            "of files with other endings"
        )
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
