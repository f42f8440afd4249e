"""Cutouts: from images to one array (bands, height, width) a row, checked and ready to store."""

from pathlib import Path

import numpy as np

from lens_hpc.packing.image_formats import (
    BadCutoutError,
    Reader,
    native_byte_order,
    open_stack,
    read_image,
)
from lens_hpc.packing.recipe import BadPixels, Recipe


class Cutouts:
    """The cutout of each row of a survey, as the recipe says, ready to store.

    `paths` is (N, files of a row), relative to the folder `source`; `reader` reads a file, and
    None means by its ending.
    """

    def __init__(
        self, recipe: Recipe, source: Path, paths: np.ndarray, reader: Reader | None = None
    ) -> None:
        self.recipe = recipe
        self.folder = str(source)
        self.paths = paths
        self.reader = reader
        self.shape: tuple[int, ...] | None = None
        """(bands, height, width) that all cutouts must have, once it is known."""

        self.stack = None
        if recipe.stack is not None:
            self.stack = open_stack(source / recipe.stack, recipe.key, recipe.stack_axes)

        self.pixel_ratios: list[float] | None = None
        """How many times wider each band's pixels are than the finest; None where all are alike."""
        if isinstance(recipe.pixel_scale, dict):
            finest = min(recipe.pixel_scale.values())
            self.pixel_ratios = [recipe.pixel_scale[band] / finest for band in recipe.bands]

    @property
    def row_bytes(self) -> int:
        """Size of a cutout as it is stored, once the shape is known."""
        assert self.shape is not None
        pixels = int(np.prod(self.shape))
        return pixels * np.dtype(self.recipe.dtype).itemsize

    def __getitem__(self, row: int) -> np.ndarray:
        """Return the cutout of a row; BadCutoutError says why there is none."""
        return self.with_source(row)[0]

    def with_source(self, row: int) -> tuple[np.ndarray, str]:
        """Return the cutout of a row, and the type and size of the image that it is made from."""
        recipe = self.recipe
        name = self.name(row)
        image = self._read_planes(row, name)

        # Of the image as it came, since that may differ between lenses and non-lenses.
        height, width = image.shape[1:]
        file_type = self._file_type(name)
        source = f"{file_type} {image.dtype} {height}x{width}"

        if recipe.size and recipe.size != (height, width):
            image = fit_centre(image, *recipe.size)
        self._check_shape(image, name)
        image = fill_bad_pixels(image, recipe.bad_pixels, name)
        image = cast_pixels(image, recipe.dtype, name)
        return image, source

    def name(self, row: int) -> str:
        """Return what to call a row's image in a message."""
        if self.stack is not None:
            return f"{self.recipe.stack}[{row}]"
        first_file = self.paths[row][0]
        return str(first_file)

    def _file_type(self, name: str) -> str:
        """Return the ending of the file, which tells its type."""
        file = name.partition("[")[0]
        ending = file.rpartition(".")[2].lower()

        # Files of a format that the recipe names need no ending; a path is no type.
        if self.recipe.format is not None and ("/" in ending or "." not in file):
            return self.recipe.format.rpartition(".")[2]
        return ending

    def _check_shape(self, image: np.ndarray, name: str) -> None:
        planes = len(image)
        bands = self.recipe.bands
        if planes != len(bands):
            listed = ", ".join(bands)
            raise BadCutoutError(
                f"{name}: has {planes} planes, the recipe names the bands {listed}"
            )
        if self.shape and image.shape != self.shape:
            raise BadCutoutError(
                f"{name}: has the shape {image.shape}, others have {self.shape} "
                "(bands, height, width)"
            )

    # ---- planes ----

    def _read_planes(self, row: int, name: str) -> np.ndarray:
        """Return the row's image as it lies on disk, all bands on one grid: (planes, y, x)."""
        if self.stack is not None:
            return self._read_from_stack(row, name)

        files = [self._read_file(path) for path in self.paths[row]]
        if len(files) == 1:
            return files[0]

        # A file for each band, perhaps with pixels of its own size.
        if any(len(planes) > 1 for planes in files):
            raise BadCutoutError(f"{name}: one file a band is expected to have one plane")
        planes = self._on_finest_grid([file[0] for file in files])

        sizes = {plane.shape for plane in planes}
        if len(sizes) > 1:
            raise BadCutoutError(
                f"{name}: its bands have different sizes {sorted(sizes)}; "
                "give each band's pixel_scale"
            )
        return np.stack(planes)

    def _read_file(self, path: str) -> np.ndarray:
        full_path = f"{self.folder}/{path}"
        return read_image(full_path, self.recipe.hdu, self.recipe.key, self.reader)

    def _read_from_stack(self, row: int, name: str) -> np.ndarray:
        assert self.stack is not None
        length = len(self.stack)
        if row >= length:
            raise BadCutoutError(f"{name}: the stack has only {length} rows")

        image = np.asarray(self.stack[row])
        if self.recipe.stack_axes == "NHWB":
            image = np.moveaxis(image, -1, 0)
        if image.ndim == 2:
            image = image[None]
        return native_byte_order(image)

    def _on_finest_grid(self, planes: list[np.ndarray]) -> list[np.ndarray]:
        """Resample the planes whose pixels are wider than those of the finest band."""
        if self.pixel_ratios is None:
            return planes

        finest = planes[int(np.argmin(self.pixel_ratios))]
        height, width = finest.shape
        resampled = []
        for plane, ratio in zip(planes, self.pixel_ratios, strict=True):
            if ratio > 1:
                plane = resample_plane(plane, ratio, height, width)
            resampled.append(plane)
        return resampled


# ---- geometry ----


def resample_plane(plane: np.ndarray, ratio: float, height: int, width: int) -> np.ndarray:
    """Put a plane with pixels `ratio` times as wide on the finer grid (height, width).

    Both have the same centre. Flux is shared by the overlap of areas, so the sum over the common
    field is conserved; outside it is zero.
    """
    rows = _pixel_overlap(height, plane.shape[0], ratio)
    columns = _pixel_overlap(width, plane.shape[1], ratio)
    resampled = rows @ plane.astype(np.float64) @ columns.T

    # Counts are no whole numbers any more.
    if plane.dtype.kind != "f":
        return resampled.astype(np.float32)
    return resampled.astype(plane.dtype)


def _pixel_overlap(fine: int, coarse: int, ratio: float) -> np.ndarray:
    """Return which part of each coarse pixel lies in each fine one, along an axis: (fine, coarse).

    Unit: one fine pixel; both axes have their zero in the middle.
    """
    fine_edges = np.arange(fine + 1) - fine / 2
    coarse_edges = np.arange(coarse + 1) - coarse / 2
    coarse_edges = coarse_edges * ratio

    # A pixel reaches from each edge to the next.
    start = np.maximum.outer(fine_edges[:-1], coarse_edges[:-1])
    end = np.minimum.outer(fine_edges[1:], coarse_edges[1:])
    overlap = np.clip(end - start, 0, None)
    return overlap / ratio


def fit_centre(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Crop or pad with zeros around the centre, to (bands, height, width)."""
    bands, old_height, old_width = image.shape
    to_rows, from_rows = _centred_slices(height, old_height)
    to_columns, from_columns = _centred_slices(width, old_width)

    fitted = np.zeros((bands, height, width), image.dtype)
    fitted[:, to_rows, to_columns] = image[:, from_rows, from_columns]
    return fitted


def _centred_slices(new: int, old: int) -> tuple[slice, slice]:
    """Return where the common middle of two lengths lies in the new and in the old one."""
    common = min(new, old)
    new_start = (new - common) // 2
    old_start = (old - common) // 2
    in_new = slice(new_start, new_start + common)
    in_old = slice(old_start, old_start + common)
    return in_new, in_old


# ---- pixels ----


def fill_bad_pixels(image: np.ndarray, policy: BadPixels, name: str) -> np.ndarray:
    """Replace the pixels that hold no measurement, by the recipe's policy.

    Raises BadCutoutError when there are too many, or when all pixels are equal.
    """
    is_bad = _find_bad_pixels(image, policy.mask)
    if is_bad is not None and is_bad.any():
        if is_bad.mean() > policy.most:
            count = np.count_nonzero(is_bad)
            raise BadCutoutError(
                f"{name}: {count:,} of {is_bad.size:,} pixels are NaN, infinite or masked; "
                "bad_pixels.most says how many may be"
            )

        # The image may be a view of a mapped file.
        image = image.copy()
        for plane, is_wrong in zip(image, is_bad, strict=True):
            plane[is_wrong] = _fill_value(plane[~is_wrong], policy)

    low = image.min()
    if low == image.max():
        raise BadCutoutError(f"{name}: all pixels are {low:g}")
    return image


def _find_bad_pixels(image: np.ndarray, mask: float | None) -> np.ndarray | None:
    """Return where pixels hold no measurement; None where all certainly do."""
    is_float = image.dtype.kind == "f"
    if not is_float and mask is None:
        return None
    if not is_float:
        return image == mask

    is_bad = ~np.isfinite(image)
    if mask is not None:
        # In the image's own precision, which may be less than the mask's.
        is_bad |= image == np.asarray(mask, image.dtype)
    return is_bad


def _fill_value(good_pixels: np.ndarray, policy: BadPixels) -> float:
    if policy.fill == "median" and good_pixels.size:
        return np.median(good_pixels)
    return 0


def cast_pixels(image: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """Return the image in the type to store; BadCutoutError when a pixel does not survive."""
    if image.dtype == dtype:
        return image

    with np.errstate(over="ignore", invalid="ignore"):
        stored = image.astype(dtype)

    # A picture must stay as it is to the count; a float may be rounded, but not to 0 or infinity.
    if dtype == "uint8":
        survives = (stored == image).all()
    else:
        vanishes = (stored == 0) & (image != 0)
        survives = np.isfinite(stored).all() and not vanishes.any()

    if not survives:
        low = image.min()
        high = image.max()
        raise BadCutoutError(
            f"{name}: pixels from {low:g} to {high:g} do not fit {dtype}; choose another dtype"
        )
    return stored
