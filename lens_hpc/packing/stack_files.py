"""The arrays of a stack's files, mapped or opened: a row is read when it is asked for.

What lies in a file as it is in memory is mapped: .npy, members of an .npz that are not compressed,
contiguous HDF5, plain FITS images. The rest is read through its library, a row at a time, by each
process on its own; only a compressed .npz and a gzipped FITS file are read at once.
"""

import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.lib import format as npy

from lens_hpc.packing.array_files import (
    check_hdf5_chunks,
    choose_array,
    hdf5_item,
    list_hdf5_arrays,
    npz_member,
    refuse_hdu,
)
from lens_hpc.packing.fits_images import check_unpacked, refuse_zip_bomb
from lens_hpc.packing.guarded import half_of_memory, read_in_worker
from lens_hpc.packing.parquet_images import ParquetImages

CELLS_TRIED = 20
PARQUET_ENDINGS = (".parquet", ".pq")
FITS_ENDINGS = (".fits", ".fit", ".fts", ".fz")
SIGN_BIT = 1 << 63
"""BZERO of whole numbers of 64 bits that are stored without a sign."""

STACK_ENDINGS = (".npy", ".npz", ".h5", ".hdf5", ".hdf", *PARQUET_ENDINGS, *FITS_ENDINGS)


class LazyRows:
    """An array on disk whose rows are read by a library, which each process opens anew."""

    def __init__(self, opened: Callable[[], Any], shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._opened = opened
        self.shape = shape
        self.dtype = dtype
        self._process = -1
        self._rows: Any = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: int | slice) -> np.ndarray:
        # A forked process must not use the file that its parent opened: they share its position.
        if self._process != os.getpid():
            self._rows = self._opened()
            self._process = os.getpid()
        return np.asarray(self._rows[row])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_process": -1, "_rows": None}


StackArray = np.ndarray | LazyRows


def open_array(
    path: Path, key: str | None, hdu: int | str | None, axes: str = "NBHW"
) -> StackArray:
    """Open the array in a file of a stack.

    `key` names it in an .npz, HDF5 or Parquet file, and `hdu` in a FITS file. `axes` are those that
    the rows shall have; only pictures in Parquet come with axes of their own. Raises ValueError for
    what is no array and for a setting that the file does not know, and whatever the libraries raise
    for a damaged file.
    """
    name = path.name.lower()
    if name.removesuffix(".gz").endswith(FITS_ENDINGS):
        if key is not None:
            raise ValueError(f"the key {key!r} is for other files; name the HDU of a cube with hdu")
        return _open_fits(path, hdu)

    refuse_hdu(hdu)
    if name.endswith(".npy"):
        if key is not None:
            raise ValueError("a .npy file holds one array without a name; leave its key out")
        return np.load(path, mmap_mode="r", allow_pickle=False)
    if name.endswith(".npz"):
        return _open_npz(path, key)
    if name.endswith(PARQUET_ENDINGS):
        return _open_parquet(path, key, axes)

    if not h5py.is_hdf5(path):
        raise ValueError("is no .npy, .npz, FITS, Parquet or HDF5 file")
    return _open_hdf5(path, key)


# ---- .npz ----


def _open_npz(path: Path, key: str | None) -> np.ndarray:
    with np.load(path, allow_pickle=False) as arrays:
        name = choose_array(list(arrays.files), key)
        member = npz_member(arrays, name)
        if member.compress_type != zipfile.ZIP_STORED:
            _check_fits_memory(member.file_size)
            return np.asarray(arrays[name])
    return _map_member(path, member.header_offset)


def _map_member(path: Path, header_offset: int) -> np.ndarray:
    """Map a .npy file that lies in a zip file as it is."""
    with path.open("rb") as file:
        # A member begins with 30 bytes, of which the last four are the lengths of name and extra.
        file.seek(header_offset + 26)
        name_length = int.from_bytes(file.read(2), "little")
        extra_length = int.from_bytes(file.read(2), "little")
        file.seek(name_length + extra_length, os.SEEK_CUR)

        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0
        if version != (1, 0):
            read_header = npy.read_array_header_2_0
        shape, is_fortran, dtype = read_header(file)
        offset = file.tell()

    if dtype.hasobject:
        raise ValueError("holds Python objects, no numbers")
    return np.memmap(path, dtype, "r", offset, shape, "F" if is_fortran else "C")


def _check_fits_memory(size: int) -> None:
    """Raise ValueError for an array that is too large to be read at once."""
    most = half_of_memory()
    if size > most:
        raise ValueError(
            f"it would unpack to {size:,} bytes of memory, and may take {most:,}; write it without "
            "compression, so that each row is read on its own"
        )


# ---- HDF5 ----


def _open_hdf5(path: Path, key: str | None) -> StackArray:
    name, shape, dtype, offset = read_in_worker(path, _find_hdf5_array, path, key)
    if offset is not None:
        return np.memmap(path, dtype, "r", offset, shape)
    return LazyRows(lambda: h5py.File(path, "r", locking=False)[name], shape, dtype)


def _find_hdf5_array(
    path: Path, key: str | None
) -> tuple[str, tuple[int, ...], np.dtype, int | None]:
    """Return name, shape and type of an array, and where it lies if it can be mapped."""
    with h5py.File(path, "r", locking=False) as file:
        name = choose_array(list_hdf5_arrays(file), key)
        dataset = hdf5_item(file, name)
        check_hdf5_chunks(dataset)
        shape, dtype, offset = dataset.shape, dataset.dtype, dataset.id.get_offset()

        # NumPy has no type for some, as bfloat16: they come as the next larger one.
        is_plain = dtype.kind in "fiu" and h5py.h5t.py_create(dtype) == dataset.id.get_type()
    return name, shape, dtype, offset if is_plain else None


# ---- Parquet ----


def _open_parquet(path: Path, key: str | None, axes: str) -> LazyRows:
    def open_images() -> ParquetImages:
        return ParquetImages(path, key, may_be_pictures=axes != "NHWB")

    images = open_images()
    first = _first_image(images)
    return LazyRows(open_images, (len(images), *first.shape), first.dtype)


def _first_image(images: ParquetImages) -> np.ndarray:
    """Return the first image that is one: single cells may be empty or damaged."""
    for row in range(min(len(images), CELLS_TRIED) - 1):
        try:
            image = images[row]
        except Exception:  # the decoders raise whatever they like on a damaged cell
            continue
        if image.ndim in (2, 3) and image.dtype.kind in "fiu":
            return image
    return images[min(len(images), CELLS_TRIED) - 1]


# ---- FITS ----


class ScaledRows:
    """Rows of FITS numbers as BSCALE, BZERO and BLANK say; NaN where there is no measurement."""

    def __init__(self, numbers: Any, scale: float, zero: float, blank: float | None) -> None:
        self.numbers = numbers
        self.scale = scale
        self.zero = zero
        self.blank = blank

    def __getitem__(self, row: int | slice) -> np.ndarray:
        numbers = np.asarray(self.numbers[row])
        values: np.ndarray = numbers.astype(np.float64) * self.scale + self.zero

        # Whole numbers stay whole, as those do that are stored without a sign.
        is_whole = numbers.dtype.kind != "f" and self.scale == 1 and self.zero == int(self.zero)
        if is_whole and numbers.dtype.itemsize < 8 and abs(self.zero) < SIGN_BIT:
            values = numbers.astype(np.int64) + int(self.zero)
        elif is_whole and int(self.zero) == SIGN_BIT:
            values = numbers.astype(np.int64).view(np.uint64) ^ np.uint64(SIGN_BIT)
        if self.blank is None:
            return values
        return np.where(numbers == self.blank, np.nan, values)


def _open_fits(path: Path, hdu: int | str | None) -> StackArray:
    from astropy.io import fits  # takes longer to import than a small survey takes to pack

    def open_numbers() -> Any:
        # The numbers as they are in the file: astropy knows no BLANK of 0.
        return fits.open(path, memmap=False, do_not_scale_image_data=True)

    refuse_zip_bomb(path, half_of_memory())
    with open_numbers() as hdus:
        index = image_hdu(hdus, hdu)
        image = hdus[index]
        header, shape = image.header.copy(), tuple(image.shape)
        numbers: Any = None
        if path.name.lower().endswith(".gz"):
            _check_fits_memory(math.prod(shape) * abs(header["BITPIX"]) // 8)
            numbers = np.array(image.data)
        elif isinstance(image, fits.CompImageHDU):
            tile_bytes = math.prod(image.tile_shape) * abs(header["BITPIX"]) // 8
            check_unpacked(tile_bytes, path.stat().st_size)
        else:
            dtype = np.dtype(fits.BITPIX2DTYPE[header["BITPIX"]]).newbyteorder(">")
            numbers = np.memmap(path, dtype, "r", image.fileinfo()["datLoc"], shape)

    # The standard knows BLANK for whole numbers alone.
    blank = header.get("BLANK") if header["BITPIX"] > 0 else None
    scale, zero = header.get("BSCALE", 1), header.get("BZERO", 0)
    is_plain = blank is None and (scale, zero) == (1, 0)
    if is_plain and numbers is not None:
        return numbers

    def open_rows() -> ScaledRows:
        of_file = open_numbers()[index].section if numbers is None else numbers
        return ScaledRows(of_file, scale, zero, blank)

    return LazyRows(open_rows, shape, open_rows()[0].dtype)


def unit_of_array(path: Path, hdu: int | str | None) -> str:
    """Return the unit (BUNIT) that a FITS file gives for the pixels of a stack; empty without."""
    if not path.name.lower().removesuffix(".gz").endswith(FITS_ENDINGS):
        return ""
    from astropy.io import fits  # as above

    refuse_zip_bomb(path, half_of_memory())
    with fits.open(path, memmap=False, lazy_load_hdus=True) as hdus:
        return str(hdus[image_hdu(hdus, hdu)].header.get("BUNIT", ""))


def image_hdu(hdus: Any, hdu: int | str | None) -> int:
    """Return the number of the HDU that is named, or of the first with an image."""
    if hdu is not None:
        index = int(hdus.index_of(hdu))
        if not 0 <= index < len(hdus):
            raise ValueError(f"there is no HDU {hdu}; it has {len(hdus)} of them, from 0")
        if not _holds_image(hdus[index]):
            raise ValueError(f"HDU {hdu} holds no image")
        return index

    for index, candidate in enumerate(hdus):
        if _holds_image(candidate):
            return index
    raise ValueError("no HDU holds an image")


def _holds_image(hdu: Any) -> bool:
    # A compressed image with a damaged header is opened as a plain table, which has no shape.
    return hdu.is_image and bool(getattr(hdu, "shape", ()))
