"""Mosaics on disk: FITS files with one large image a band, and how their pixels are reached.

An image whose pixels lie in the file as they are is mapped, so that only the pages that are asked
for are read. A compressed one (RICE and its like) is decompressed as far as it is asked for. A
gzipped file can only be read from its beginning: it is unzipped into a temporary file, which has
no name and is gone with the process.
"""

import gzip
import math
import mmap
import os
import struct
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np
from astropy.io import fits
from astropy.io.fits.hdu.compressed._compression import CfitsioException

from lens_hpc.errors import UserError
from lens_hpc.packing.damage import describe_damage
from lens_hpc.packing.fits_images import (
    CHUNK_BYTES,
    GZIP_MAGIC,
    MOST_UNZIPPED,
    OTHER_MAGICS,
    Hdu,
    check_unpacked,
)
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.packing.stack_files import ScaledRows, image_hdu
from lens_hpc.refusals import FULL

DAMAGES = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(zlib.error, struct.error, fits.VerifyError, CfitsioException),
)
"""What libraries raise for a file that is damaged, or no FITS file."""

FITS_BLOCK = 2880
MOST_SIDE = 1 << 20
"""Pixels. A header that says more is damaged: whole surveys come in smaller pieces."""
PIECE_BYTES = 16 << 20
"""Decompressed at once, beside the strip that it goes to."""


class MosaicFile:
    """An open FITS file with images."""

    def __init__(self, path: Path, file: IO[bytes], hdus: fits.HDUList) -> None:
        self.path = path
        self.file = file
        self.hdus = hdus
        self.length = os.fstat(file.fileno()).st_size
        """Bytes of the file, unzipped."""

    def plane(self, hdu: Hdu) -> "MosaicPlane":
        """Return the image of an HDU, or of the first with one; BadCutoutError without."""
        with reported_damage(self.path):
            number = image_hdu(self.hdus, hdu)
            shape = tuple(self.hdus[number].shape)
        if math.prod(shape[:-2]) != 1 or len(shape) == 1:
            raise BadCutoutError(
                f"{self.path}: HDU {number} has the shape {shape}, and a mosaic has two axes; name "
                "the file (mosaics.path) or HDU (hdu) of each band"
            )
        if not all(0 < side <= MOST_SIDE for side in shape):
            raise BadCutoutError(
                f"{self.path}: HDU {number} has the shape {shape}, and no side of a mosaic is 0 or "
                f"longer than {MOST_SIDE:,} pixels; mend or remove it"
            )
        return MosaicPlane(self, number)

    def header_value(self, word: str, hdu: fits.PrimaryHDU) -> object:
        """Return a value of the header of an HDU, or of the file's first; None without it."""
        return hdu.header.get(word, self.hdus[0].header.get(word))


@contextmanager
def reported_damage(path: Path) -> Iterator[None]:
    """Turn what a library raises for a damaged file into a BadCutoutError that names it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of astropy, about what is no error
            yield
    except DAMAGES as error:
        reason = describe_damage(path, error)
        raise BadCutoutError(f"{path}: cannot be read as a mosaic: {reason}") from error


@contextmanager
def open_mosaic(path: Path) -> Iterator[MosaicFile]:
    """Open a FITS file, gzipped or not; BadCutoutError says why it cannot be opened."""
    with reported_damage(path):
        file = _open_unzipped(path)
    with file:
        with reported_damage(path):
            hdus = fits.open(file, memmap=False, lazy_load_hdus=True, do_not_scale_image_data=True)
        yield MosaicFile(path, file, hdus)


def _open_unzipped(path: Path) -> IO[bytes]:
    file = path.open("rb")
    start = file.read(len(GZIP_MAGIC) + 1)
    file.seek(0)
    if start.startswith(OTHER_MAGICS):
        file.close()
        raise ValueError("it is packed by another program than gzip; unpack it")
    if not start.startswith(GZIP_MAGIC):
        return file

    file.close()
    return _unzip(path)


def _unzip(path: Path) -> IO[bytes]:
    """Return a file without a name that holds what a zipped one unzips to."""
    size = path.stat().st_size
    try:
        with tempfile.NamedTemporaryFile() as unzipped:
            with gzip.open(path) as zipped:
                while chunk := zipped.read(CHUNK_BYTES):
                    unzipped.write(chunk)
                    check_unpacked(unzipped.tell(), size, MOST_UNZIPPED)
            unzipped.flush()
            return Path(unzipped.name).open("rb")
    except OSError as error:
        # The file is sound; it is our own disk that is full.
        if error.errno in FULL:
            raise UserError(
                f"{tempfile.gettempdir()}: has no room to unzip {path}; make room there, set "
                "TMPDIR to another folder, or unzip the mosaics before"
            ) from error
        raise


class MosaicPlane:
    """One image of a mosaic, (height, width), whose pixels are read when they are asked for."""

    def __init__(self, mosaic: MosaicFile, number: int) -> None:
        hdu = mosaic.hdus[number]
        self.mosaic = mosaic
        self.number = number
        self.hdu = hdu
        self.header = hdu.header
        self.name = f"{mosaic.path}[{number}]"
        self.shape: tuple[int, int] = hdu.shape[-2:]
        self.is_compressed = isinstance(hdu, fits.CompImageHDU)
        """Whether pixels must be decompressed, and do not lie in the file as they are."""

        bits = self.header["BITPIX"]
        self.dtype = np.dtype(fits.BITPIX2DTYPE[bits])
        self.scale = self._number("BSCALE", 1)
        self.zero = self._number("BZERO", 0)
        self.blank: float | None = None
        """The number in the file that stands for no measurement, among whole ones."""
        if bits > 0 and "BLANK" in self.header:
            self.blank = self._number("BLANK", 0)

    def _number(self, word: str, default: float) -> float:
        value = self.header.get(word, default)
        if not isinstance(value, int | float):
            raise BadCutoutError(
                f"{self.name}: {word} = {value!r} is not a number; mend the header"
            )
        return value

    @property
    def row_bytes(self) -> int:
        """Memory that a row of pixels takes."""
        return self.shape[1] * self.dtype.itemsize

    @property
    def unit(self) -> str:
        """The unit that the file gives for the pixels; empty without one."""
        return str(self.header.get("BUNIT") or "")

    def value(self, word: str) -> object:
        """Return a value of the header, or of the file's first header; None without it."""
        return self.mosaic.header_value(word, self.hdu)

    def measured(self, numbers: np.ndarray) -> np.ndarray:
        """Return numbers of the file as values: scaled, and NaN where there is none."""
        if self.blank is None and (self.scale, self.zero) == (1, 0):
            return numbers
        return ScaledRows(numbers, self.scale, self.zero, self.blank)[:]

    def map(self, is_sparse: bool) -> np.ndarray:
        """Map all pixels of an image that is not compressed, as the numbers in the file.

        Where few of them will be looked at (`is_sparse`), no pages around those are read.
        """
        offset = self.hdu.fileinfo()["datLoc"]
        kind = self.dtype.newbyteorder(">")
        with reported_damage(self.mosaic.path):
            pixels = np.memmap(self.mosaic.file, kind, "r", offset, self.shape)
        if is_sparse and hasattr(mmap, "MADV_RANDOM"):
            pixels._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
        return np.asarray(pixels)

    def decompress(self, start: int, is_needed: np.ndarray) -> np.ndarray:
        """Return as many rows from `start` on as `is_needed` has, as the numbers in the file.

        Those that are not needed may hold anything. BadCutoutError says why they cannot be read.
        """
        if len(is_needed) == self.shape[0] and is_needed.all():
            return self._section(slice(None))

        # Pages that nothing is written to take no memory.
        strip = np.empty((len(is_needed), self.shape[1]), self.dtype)
        for piece in self._pieces(start, is_needed):
            strip[piece.start - start : piece.stop - start] = self._section(piece)
        return strip

    def _section(self, rows: slice) -> np.ndarray:
        index = (0,) * (len(self.hdu.shape) - 2) + (rows,)
        with reported_damage(self.mosaic.path):
            # What takes all at once is twice as fast.
            if rows == slice(None):
                return np.asarray(self.hdu.section[...]).reshape(self.shape)
            return np.asarray(self.hdu.section[index])

    def check_length(self) -> None:
        """Raise BadCutoutError where the file ends before its image does."""
        place = self.hdu.fileinfo()
        end = place["datLoc"] + place["datSpan"]
        length = self.mosaic.length
        # The last block need not be full.
        if length <= end - FITS_BLOCK:
            raise BadCutoutError(
                f"{self.mosaic.path}: is cut off: it has {length:,} bytes, and its headers say "
                f"{end:,}; fetch it again"
            )

    def _pieces(self, start: int, is_needed: np.ndarray) -> list[slice]:
        """Return the rows to decompress, from and to where compressed tiles begin."""
        tile_height, tile_width = map(int, self.hdu.tile_shape[-2:])
        tile_bytes = tile_height * tile_width * self.dtype.itemsize
        with reported_damage(self.mosaic.path):
            check_unpacked(tile_bytes, self.mosaic.path.stat().st_size)

        # A tile is decompressed as a whole, so one row asks for all of its rows.
        tile_of_row = (np.arange(len(is_needed)) + start) // tile_height
        is_asked = np.isin(tile_of_row, tile_of_row[is_needed])
        edges = np.flatnonzero(np.diff(is_asked, prepend=False, append=False)) + start

        most = max(PIECE_BYTES // self.row_bytes // tile_height, 1) * tile_height
        pieces = []
        for first, last in edges.reshape(-1, 2).tolist():
            cuts = range((first // most + 1) * most, last, most)
            bounds = [first, *cuts, last]
            pieces += [slice(one, other) for one, other in pairwise(bounds)]
        return pieces
