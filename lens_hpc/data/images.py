"""Cutouts: from image files to one array (bands, height, width) a row, checked and in the type to store."""

from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import fitsio
import h5py
import numpy as np

from lens_hpc.config import Recipe


class BadCutoutError(Exception):
    """A cutout that cannot be packed: the message names the file and the reason."""


# ---- files ------------------------------------------------------------------------------------------------------


def read(path: str | Path, hdu: int | str | None = None, key: str | None = None) -> np.ndarray:
    """Planes of an image file, (planes, height, width), in the machine's byte order; two axes are one plane.

    Raises BadCutoutError naming the file when it cannot be read.
    """
    path = str(path)  # this runs for every file: a Path costs more than the rest
    name = path.lower().removesuffix(".gz").removesuffix(".fz")
    reader = READERS.get(name[name.rfind(".") :])
    if reader is None:
        raise BadCutoutError(f"{path}: images of this type are not read; valid: {', '.join(READERS)}")
    try:
        image = reader(path, hdu, key)
    except Exception as error:  # the decoders raise whatever they like on a damaged file
        reason = " ".join(str(error).split())
        raise BadCutoutError(f"{path}: cannot be read as an image: {type(error).__name__}: {reason}") from error
    if image.ndim == 2:
        image = image[None]
    if image.ndim != 3 or image.dtype.kind not in "fiu":
        raise BadCutoutError(f"{path}: an image must have 2 or 3 axes of numbers, not {image.ndim} of {image.dtype}")
    return image if image.dtype.isnative else image.astype(image.dtype.newbyteorder("="))


def _read_fits(path: str, hdu: int | str | None, key: str | None) -> np.ndarray:
    """An image, compressed or not, or the only cell of a table's column of images."""
    with fitsio.FITS(path) as hdus:
        for candidate in hdus if hdu is None else [hdus[hdu]]:
            if candidate.get_exttype() == "IMAGE_HDU":
                if candidate.has_data():
                    return np.asarray(candidate.read())
            elif candidate.get_nrows() == 1:
                for cells in (candidate[name].read() for name in candidate.get_colnames()):
                    if cells.dtype.kind in "fiu" and cells.ndim in (3, 4):
                        return np.asarray(cells[0])
    raise ValueError("no HDU holds an image" if hdu is None else f"HDU {hdu} holds no image")


def _read_npy(path: str, hdu: int | str | None, key: str | None) -> np.ndarray:
    """As np.load, but the header, the same in all files of a survey, is parsed once: twice as fast."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - no Path, and no buffer beside ours
        content = file.readall()
    length = int.from_bytes(content[8:10], "little") + 10
    shape, fortran, dtype = _npy_header(content[:length])
    if dtype.hasobject or len(content) != length + dtype.itemsize * int(np.prod(shape)):
        raise ValueError(f"{len(content):,} bytes are not those of an array {shape} of {dtype}")
    return np.frombuffer(content, dtype, offset=length).reshape(shape, order="F" if fortran else "C")


@lru_cache(maxsize=64)
def _npy_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    stream = BytesIO(header)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("only version 1.0 of .npy is read")
    return np.lib.format.read_array_header_1_0(stream)


def _read_npz(path: str, hdu: int | str | None, key: str | None) -> np.ndarray:
    with np.load(path, allow_pickle=False) as arrays:
        return np.asarray(arrays[_only_key(list(arrays.files), key)])


def _read_picture(path: str, hdu: int | str | None, key: str | None) -> np.ndarray:
    """Channels, or the pages of a TIFF, as planes."""
    from PIL import Image, ImageSequence

    with Image.open(path) as image:
        if image.mode == "P":
            raise ValueError("its pixels are numbers of a palette; convert it to grey or RGB")
        pages = [np.asarray(page) for page in ImageSequence.Iterator(image)]
    if len(pages) > 1:
        return np.stack(pages)
    return pages[0] if pages[0].ndim == 2 else np.moveaxis(pages[0], -1, 0)


READERS: dict[str, Callable[[str, int | str | None, str | None], np.ndarray]] = {
    ".fits": _read_fits,
    ".fit": _read_fits,
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".png": _read_picture,
    ".jpg": _read_picture,
    ".jpeg": _read_picture,
    ".tif": _read_picture,
    ".tiff": _read_picture,
}


def _only_key(keys: list[str], key: str | None) -> str:
    if key is None and len(keys) == 1:
        return keys[0]
    if key not in keys:
        raise ValueError(f"the key {key!r} is not among {', '.join(keys)}; set key")
    return key


def open_stack(path: Path, key: str | None, axes: str) -> Any:
    """An array of all cutouts whose items are read when asked for: .npy mapped, HDF5 open, .npz read whole."""
    try:
        if path.suffix.lower() == ".npy":
            stack: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        elif path.suffix.lower() == ".npz":
            stack = _read_npz(str(path), None, key)
        else:
            file = h5py.File(path, "r", locking=False)
            stack = file[_only_key([name for name, item in file.items() if isinstance(item, h5py.Dataset)], key)]
        if stack.ndim != len(axes):
            raise ValueError(f"has {stack.ndim} axes {stack.shape}, stack_axes = {axes}")
    except Exception as error:
        raise BadCutoutError(f"{path}: cannot be read as a stack: {error}") from error
    return stack


# ---- cutouts ----------------------------------------------------------------------------------------------------


class Cutouts:
    """The cutout of each row of a survey, as the recipe says, ready to store."""

    def __init__(self, recipe: Recipe, source: Path, paths: np.ndarray) -> None:
        self.recipe, self.folder, self.paths = recipe, str(source), paths
        self.shape: tuple[int, ...] | None = None
        """(bands, height, width) that all cutouts must have, once it is known."""
        self.stack = open_stack(source / recipe.stack, recipe.key, recipe.stack_axes) if recipe.stack else None
        scale = recipe.pixel_scale
        self.coarseness = (
            [scale[band] / min(scale.values()) for band in recipe.bands] if isinstance(scale, dict) else None
        )

    def __getitem__(self, row: int) -> np.ndarray:
        """The cutout of a row; BadCutoutError says why there is none."""
        return self.with_source(row)[0]

    def with_source(self, row: int) -> tuple[np.ndarray, str]:
        """The cutout of a row, and the type and size of the image that it is made from."""
        where = self.name(row)
        image = self._planes(row, where)
        kind = where.partition("[")[0].rpartition(".")[2].lower()
        source = f"{kind} {image.dtype} {image.shape[1]}x{image.shape[2]}"
        if self.recipe.size and image.shape[1:] != self.recipe.size:
            image = fit_centre(image, *self.recipe.size)
        if image.shape[0] != len(self.recipe.bands):
            bands = ", ".join(self.recipe.bands)
            raise BadCutoutError(f"{where}: has {image.shape[0]} planes, the recipe names the bands {bands}")
        if self.shape and image.shape != self.shape:
            raise BadCutoutError(
                f"{where}: has the shape {image.shape}, others have {self.shape} (bands, height, width)"
            )
        return cast(fill_bad_pixels(image, self.recipe, where), self.recipe.dtype, where), source

    def name(self, row: int) -> str:
        """What to call a row's image in a message."""
        return f"{self.recipe.stack}[{row}]" if self.stack is not None else str(self.paths[row][0])

    def _planes(self, row: int, where: str) -> np.ndarray:
        if self.stack is not None:
            if row >= len(self.stack):
                raise BadCutoutError(f"{where}: the stack has only {len(self.stack)} rows")
            image = np.asarray(self.stack[row])
            image = np.moveaxis(image, -1, 0) if self.recipe.stack_axes == "NHWB" else image
            image = image if image.dtype.isnative else image.astype(image.dtype.newbyteorder("="))
            return image if image.ndim == 3 else image[None]
        files = [read(f"{self.folder}/{path}", self.recipe.hdu, self.recipe.key) for path in self.paths[row]]
        if len(files) == 1:
            return files[0]
        if any(len(planes) > 1 for planes in files):
            raise BadCutoutError(f"{where}: one file a band is expected to have one plane")
        planes = [file[0] for file in files]
        if self.coarseness:
            height, width = planes[int(np.argmin(self.coarseness))].shape
            planes = [
                resample(plane, factor, height, width) if factor > 1 else plane
                for plane, factor in zip(planes, self.coarseness, strict=True)
            ]
        sizes = {plane.shape for plane in planes}
        if len(sizes) > 1:
            raise BadCutoutError(
                f"{where}: its bands have different sizes {sorted(sizes)}; give each band's pixel_scale"
            )
        return np.stack(planes)


def resample(plane: np.ndarray, factor: float, height: int, width: int) -> np.ndarray:
    """A plane with pixels `factor` times as wide, on the finer grid (height, width) with the same centre.

    Flux is shared by the overlap of areas, so the sum over the common field is conserved; outside it is zero.
    """

    def overlap(fine: int, coarse: int) -> np.ndarray:
        edges_fine = np.arange(fine + 1) - fine / 2
        edges_coarse = (np.arange(coarse + 1) - coarse / 2) * factor
        low = np.maximum(edges_fine[:-1, None], edges_coarse[None, :-1])
        high = np.minimum(edges_fine[1:, None], edges_coarse[None, 1:])
        return np.clip(high - low, 0, None) / factor

    shared = overlap(height, plane.shape[0]) @ plane.astype(np.float64) @ overlap(width, plane.shape[1]).T
    return shared.astype(plane.dtype if plane.dtype.kind == "f" else np.float32)


def fit_centre(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Crop or pad with zeros around the centre to (bands, height, width)."""
    out = np.zeros((len(image), height, width), image.dtype)
    slices = []
    for wanted, given in ((height, image.shape[1]), (width, image.shape[2])):
        common = min(wanted, given)
        slices.append((slice((wanted - common) // 2, (wanted - common) // 2 + common),
                       slice((given - common) // 2, (given - common) // 2 + common)))  # fmt: skip
    (to_y, from_y), (to_x, from_x) = slices
    out[:, to_y, to_x] = image[:, from_y, from_x]
    return out


def fill_bad_pixels(image: np.ndarray, recipe: Recipe, where: str) -> np.ndarray:
    """The image with every pixel a measurement, by the recipe's policy; BadCutoutError when too many are not."""
    policy = recipe.bad_pixels
    if image.dtype.kind == "f":
        bad = ~np.isfinite(image)
        if policy.mask is not None:
            bad |= image == np.asarray(policy.mask, image.dtype)
    elif policy.mask is not None:
        bad = image == policy.mask
    else:
        bad = None
    if bad is not None and bad.any():
        if bad.mean() > policy.most:
            raise BadCutoutError(
                f"{where}: {int(bad.sum()):,} of {bad.size:,} pixels are NaN, infinite or masked; "
                "bad_pixels.most says how many may be"
            )
        image = image.copy()
        for plane, wrong in zip(image, bad, strict=True):
            plane[wrong] = np.median(plane[~wrong]) if policy.fill == "median" and not wrong.all() else 0
    low, high = image.min(), image.max()
    if low == high:
        raise BadCutoutError(f"{where}: all pixels are {low:g}")
    return image


def cast(image: np.ndarray, dtype: str, where: str) -> np.ndarray:
    """The image in the type to store; BadCutoutError when a pixel does not survive."""
    if image.dtype == dtype:
        return image
    with np.errstate(over="ignore", invalid="ignore"):
        stored = image.astype(dtype)
    if dtype == "uint8":
        survives = (stored == image).all()
    else:
        survives = np.isfinite(stored).all() and not ((stored == 0) & (image != 0)).any()
    if not survives:
        raise BadCutoutError(
            f"{where}: pixels from {image.min():g} to {image.max():g} do not fit {dtype}; choose another dtype"
        )
    return stored
