"""Image files: one array (bands, height, width) from .fits, .npy or .png."""

from pathlib import Path

import numpy as np
from astropy.io import fits
from PIL import Image

from lens_hpc import UserError


def read(path: Path) -> np.ndarray:
    """Planes of an image file, (bands, height, width), in the machine's byte order.

    A FITS file gives its first HDU with an image; two axes are one band; a PNG gives its channels as bands.
    Raises UserError naming the file when it cannot be read.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: images of type {path.suffix!r} are not read; valid: {', '.join(READERS)}")
    try:
        image = reader(path)
    except Exception as error:  # the decoders raise whatever they like on a damaged file
        raise UserError(f"{path}: cannot be read as an image: {type(error).__name__}: {error}") from error
    if image.ndim == 2:
        image = image[None]
    if image.ndim != 3 or image.dtype.kind not in "fiu":
        raise UserError(f"{path}: an image must have 2 or 3 axes of numbers, not {image.ndim} of {image.dtype}")
    return image.astype(image.dtype.newbyteorder("="), copy=False)


def _read_fits(path: Path) -> np.ndarray:
    with fits.open(path, memmap=False) as hdus:
        for hdu in hdus:
            if hdu.is_image and hdu.data is not None:
                return np.asarray(hdu.data)
    raise ValueError("no HDU holds an image")


def _read_npy(path: Path) -> np.ndarray:
    return np.asarray(np.load(path, allow_pickle=False))


def _read_png(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        pixels = np.asarray(image)
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


READERS = {".fits": _read_fits, ".npy": _read_npy, ".png": _read_png}


def cast(image: np.ndarray, dtype: str, path: Path) -> np.ndarray:
    """The image in the type to store; UserError when a pixel is not finite or does not survive."""
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        count = int((~np.isfinite(image)).sum())
        raise UserError(f"{path}: {count:,} pixels are NaN or infinite; mend the file or drop its row")
    with np.errstate(over="ignore", invalid="ignore"):
        stored = image.astype(dtype)
    if dtype == "uint8":
        survives = (stored == image).all()
    else:
        survives = np.isfinite(stored).all() and not ((stored == 0) & (image != 0)).any()
    if not survives:
        raise UserError(
            f"{path}: pixels from {image.min():g} to {image.max():g} do not fit {dtype}; choose another dtype"
        )
    return stored
