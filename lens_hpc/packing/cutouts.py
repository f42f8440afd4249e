"""Cutouts: from images to one array (bands, height, width) a row, checked and ready to store.

1. The images of a row are read: one with all bands, or one for each (`row_files`, `stacks`).
2. Each is judged on the grid of its own file, before pixels are mixed (`bad_pixels`).
3. Bands with wide pixels are put on the finest grid, and their bad pixels with them (`resampling`).
4. Bad pixels are filled, and the cutout gets its size and type.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lens_hpc.packing.bad_pixels import (
    Judged,
    cast_pixels,
    check_cutout,
    check_stored,
    fill_bad_pixels,
    find_bad_pixels,
    judge_planes,
    name_of_type,
    plane_ranges,
    values_of,
)
from lens_hpc.packing.image_formats import BadCutoutError, Reader
from lens_hpc.packing.mosaic_images import MosaicImages
from lens_hpc.packing.recipe import Recipe
from lens_hpc.packing.resampling import (
    centred_slices,
    common_pixels,
    is_surface_brightness,
    resample_plane,
    share_a_centre,
    spread_mask,
)
from lens_hpc.packing.row_files import RowFiles
from lens_hpc.packing.stacks import Stack


class Cutout(NamedTuple):
    """What is stored of a row's image, and what is told of it."""

    image: np.ndarray
    """(bands, height, width), in the type to store."""
    source: str
    """Type and size of the image that it is made from."""
    missing: np.ndarray
    """How many pixels of each band held no measurement and were filled, (bands,)."""


class _Image(NamedTuple):
    """One image of a row: all bands, or one, on the grid of their file."""

    planes: np.ndarray
    """(bands, height, width), masked where the file says that there is no measurement."""
    band: int
    """Number of the first of its bands."""
    ratio: float
    """How many times wider its pixels are than those of the finest band."""
    is_outside: np.ndarray | None = None
    """Which of its pixels lie outside of a mosaic, (bands, height, width); None for none."""


class _Grid(NamedTuple):
    """The grid of the finest band, and the window of it that is stored."""

    height: int
    width: int
    rows: slice
    columns: slice


class _Fitted(NamedTuple):
    """An image on the stored grid, its bad pixels filled."""

    planes: np.ndarray
    missing: np.ndarray
    ranges: list[tuple[float, float]]
    """Least and greatest value of each band."""


class Cutouts:
    """The cutout of each row of a survey, as the recipe says, ready to store.

    `paths` is (N, files of a row), relative to the folder `source`; `reader` reads a file, and
    None means by its ending. `hdus` and `keys` are (N, bands), where columns of the catalogue name
    them. A `stack`, or mosaics, hold the images of a survey that has no such files.
    """

    def __init__(
        self,
        recipe: Recipe,
        source: Path,
        paths: np.ndarray,
        reader: Reader | None = None,
        stack: Stack | MosaicImages | None = None,
        hdus: np.ndarray | None = None,
        keys: np.ndarray | None = None,
    ) -> None:
        self.recipe = recipe
        self.images: RowFiles | Stack | MosaicImages
        if stack is None:
            self.images = RowFiles(recipe, source, paths, reader, hdus, keys)
        else:
            self.images = stack
        self.shape: tuple[int, ...] | None = None
        """(bands, height, width) that all cutouts must have, once it is known."""

        self.brightness_by_band: dict[int, bool] = {}
        """Which bands are resampled as a surface brightness, once the units have decided it."""

        self._policy = recipe.bad_pixels
        if recipe.mosaics is not None:
            # Pixels with the word for no measurement are NaN already, and others were scaled.
            self._policy = recipe.bad_pixels.model_copy(update={"mask": None})
        self.pixel_ratios: list[float] | None = None
        """How many times wider each band's pixels are than the finest; None where all are alike."""
        if isinstance(recipe.pixel_scale, dict) and recipe.mosaics is None:
            finest = recipe.finest_pixel_scale
            self.pixel_ratios = [recipe.pixel_scale[band] / finest for band in recipe.bands]

    def decide_resampling(self, rows: Sequence[int]) -> None:
        """Decide, as most of some rows' units say, which bands hold a surface brightness.

        Rows of the other kind are bad ones from then on, since one band is resampled in one way.
        """
        if self.pixel_ratios is None or not rows:
            return
        recipe = self.recipe
        if recipe.resampling is not None or is_surface_brightness(recipe.units):
            return
        for band, ratio in enumerate(self.pixel_ratios):
            if ratio > 1:
                kept = [is_surface_brightness(self.images.unit(row, band)) for row in rows]
                self.brightness_by_band[band] = sum(kept) > len(kept) / 2

    @property
    def row_bytes(self) -> int:
        """Size of a cutout as it is stored, once the shape is known."""
        assert self.shape is not None
        pixels = int(np.prod(self.shape))
        return pixels * np.dtype(self.recipe.dtype).itemsize

    def prepare(self, rows: np.ndarray, begin: Callable[[int], None]) -> None:
        """Get ready to read these rows; `begin` is told which row is looked at."""
        if isinstance(self.images, MosaicImages):
            self.images.prepare(rows, begin)

    def __getitem__(self, row: int) -> np.ndarray:
        """Return the cutout of a row; BadCutoutError says why there is none."""
        return self.read(row).image

    def read(self, row: int) -> Cutout:
        """Return the cutout of a row and what is told of it; BadCutoutError says why not."""
        recipe = self.recipe
        name = self.images.name(row)
        images = self._images_of(row)
        grid = self._finest_grid(images, name)

        fitted = [self._fit(image, grid, row) for image in images]
        cutout, missing, ranges = fitted[0]
        if len(fitted) > 1:
            cutout = np.concatenate([each.planes for each in fitted])
            missing = np.concatenate([each.missing for each in fitted])
            ranges = [pair for each in fitted for pair in each.ranges]
        check_cutout(cutout, ranges, name, recipe.bands)

        # Of the image as it came, since that may differ between lenses and non-lenses.
        dtype = name_of_type(cutout.dtype)
        source = f"{self._file_type(name)} {dtype} {grid.height}x{grid.width}"
        stored = cast_pixels(cutout, recipe.dtype, name)
        check_stored(stored, cutout, ranges, name, recipe.bands)
        cutout = pad_centre(stored, *recipe.size) if recipe.size else stored
        if self.shape and cutout.shape != self.shape:
            raise BadCutoutError(
                f"{name}: has the shape {cutout.shape}, others have {self.shape} "
                "(bands, height, width)"
            )
        return Cutout(cutout, source, missing)

    def _file_type(self, name: str) -> str:
        """Return the ending of the file, which tells its type."""
        file = name.partition("[")[0]
        ending = file.rpartition(".")[2].lower()

        # Files of a format that the recipe names need no ending; a path is no type.
        if self.recipe.format is not None and ("/" in ending or "." not in file):
            return self.recipe.format.rpartition(".")[2]
        return ending

    # ---- images ----

    def _images_of(self, row: int) -> list[_Image]:
        """Return the images of a row, with all bands of the recipe among them."""
        if isinstance(self.images, MosaicImages):
            return self._images_of_mosaics(self.images, row)
        read = [self._choose_planes(image, row) for image in self.images.read(row)]
        bands = self.recipe.bands
        if len(read) == 1 and len(read[0]) != len(bands):
            self._refuse_planes(read[0], row)
        for band, image in enumerate(read):
            if len(read) > 1 and len(image) > 1:
                raise BadCutoutError(
                    f"{self.images.name(row, band)}: one file a band is expected to have one "
                    f"plane, and it has {len(image)}; planes=[0] chooses the first"
                )

        ratios = self.pixel_ratios
        if len(read) == 1 and (ratios is None or max(ratios) == 1):
            return [_Image(read[0], 0, 1)]
        planes = [image[number : number + 1] for image in read for number in range(len(image))]
        return [
            _Image(plane, band, 1 if ratios is None else ratios[band])
            for band, plane in enumerate(planes)
        ]

    def _images_of_mosaics(self, images: MosaicImages, row: int) -> list[_Image]:
        """Return the bands of a row, each as an image of its own where it lies at an edge."""
        assert self.recipe.mosaics is not None
        pixels, is_outside = images.read(row)
        if is_outside is None:
            return [_Image(pixels, 0, 1)]
        if self.recipe.mosaics.edge == "skip":
            raise BadCutoutError(
                f"{images.name(row)}: {is_outside.mean():.1%} of the cutout lie beyond the edge; "
                "mosaics.edge=pad fills them"
            )
        bands = zip(pixels[:, None], is_outside[:, None], strict=True)
        return [_Image(plane, band, 1, outside) for band, (plane, outside) in enumerate(bands)]

    def _choose_planes(self, image: np.ndarray, row: int) -> np.ndarray:
        planes = self.recipe.planes
        if planes is None:
            return image
        if max(planes) >= len(image):
            raise BadCutoutError(
                f"{self.images.name(row)}: has {len(image)} planes, and planes={list(planes)} "
                "counts them from 0"
            )
        return image[list(planes)]

    def _refuse_planes(self, image: np.ndarray, row: int) -> None:
        count, width, height = len(image), image.shape[1], image.shape[2]
        bands = self.recipe.bands
        if height == len(bands):
            setting = "stack_axes=NHWB" if isinstance(self.images, Stack) else "axes=HWB"
            remedy = f"; where ({count}, {width}, {height}) has the bands last, set {setting}"
        elif count == 1:
            remedy = "; where each band has its own HDU or array, name it in hdu or key"
            if isinstance(self.images, RowFiles):
                remedy += self.images.contents(row)
        else:
            remedy = "; planes=[0, ...] chooses some of them"
        listed = ", ".join(bands)
        raise BadCutoutError(
            f"{self.images.name(row)}: has {count} planes, the recipe names the bands "
            f"{listed}{remedy}"
        )

    def _finest_grid(self, images: list[_Image], name: str) -> _Grid:
        sizes = {image.planes.shape[1:] for image in images if image.ratio == 1}
        size = self.recipe.size
        if len(sizes) > 1 and not share_a_centre(sizes, size):
            raise BadCutoutError(
                f"{name}: its bands have different sizes {sorted(sizes)}; give each band's "
                "pixel_scale, or, where it is the same and all differ by whole pixels on each "
                "side, a size=[height, width] that is no larger than the smallest"
            )
        return _make_grid(*max(sizes), size)

    # ---- pixels ----

    def _fit(self, image: _Image, grid: _Grid, row: int) -> _Fitted:
        """Return an image on the stored grid, its bad pixels filled."""
        if image.ratio > 1:
            return self._resample(image, grid, row)
        if image.is_outside is not None:
            return self._fit_at_edge(image, row)

        # Bands of one pixel scale may have other sizes around the same centre.
        grid = _make_grid(*image.planes.shape[1:], self.recipe.size)
        planes = image.planes[:, grid.rows, grid.columns]
        values, is_bad, ranges = self._judge(planes, image, row)
        if is_bad is None:
            return _Fitted(values, np.zeros(len(values), np.int64), ranges)
        filled = fill_bad_pixels(values, is_bad, self._policy)
        return _Fitted(filled, is_bad.sum(axis=(1, 2)), plane_ranges(filled))

    def _fit_at_edge(self, image: _Image, row: int) -> _Fitted:
        """Return a band whose part beyond the edge is filled as bad pixels are, but not judged."""
        is_outside = image.is_outside
        assert is_outside is not None
        rows = np.flatnonzero(~is_outside.all(axis=(0, 2)))
        columns = np.flatnonzero(~is_outside.all(axis=(0, 1)))
        if not len(rows):
            raise BadCutoutError(
                f"{self.images.name(row, image.band)}: no pixel lies on the mosaic"
            )
        within = np.s_[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        judged = self._judge(image.planes[within], image, row)

        is_nothing = is_outside.copy()
        if judged.is_bad is not None:
            is_nothing[within] |= judged.is_bad
        filled = fill_bad_pixels(image.planes, is_nothing, self._policy)
        return _Fitted(filled, is_nothing.sum(axis=(1, 2)), plane_ranges(filled))

    def _judge(self, planes: np.ndarray, image: _Image, row: int) -> Judged:
        bands = self.recipe.bands[image.band : image.band + len(planes)]
        name = self.images.name(row, image.band)
        return judge_planes(planes, self._policy, name, bands)

    def _resample(self, image: _Image, grid: _Grid, row: int) -> _Fitted:
        policy = self.recipe.bad_pixels
        planes, ratio = image.planes, image.ratio
        height, width = planes.shape[1:]

        # What lies outside of the window is of no interest, good or bad.
        window = (grid.rows.start, grid.rows.stop)
        rows, seen_rows = common_pixels(grid.height, height, ratio, *window)
        window = (grid.columns.start, grid.columns.stop)
        columns, seen_columns = common_pixels(grid.width, width, ratio, *window)
        if rows.start == rows.stop or columns.start == columns.stop:
            raise BadCutoutError(
                f"{self.images.name(row, image.band)}: shares no pixel with the finest band, whose "
                f"pixels are {ratio:g} times narrower; is pixel_scale right?"
            )
        self._judge(planes[:, seen_rows, seen_columns], image, row)

        values = values_of(planes)
        is_bad = find_bad_pixels(planes, policy.mask)
        if is_bad is not None:
            values = np.where(is_bad, np.zeros((), values.dtype), values)
        keep_brightness = self._keeps_brightness(row, image.band)
        fine = resample_plane(values[0], ratio, grid.height, grid.width, keep_brightness)
        stored = fine[grid.rows, grid.columns][None]
        if is_bad is None:
            return _Fitted(stored, np.zeros(1, np.int64), plane_ranges(stored))

        # A fine pixel is as bad as any that it touches; only those of the common field are filled.
        touched = spread_mask(is_bad[0], ratio, grid.height, grid.width)
        touched = touched[grid.rows, grid.columns][None]
        common = np.s_[:, rows, columns]
        stored[common] = fill_bad_pixels(stored[common], touched[common], policy)
        return _Fitted(stored, touched.sum(axis=(1, 2)), plane_ranges(stored))

    def _keeps_brightness(self, row: int, band: int) -> bool:
        """Say whether a band is resampled as a surface brightness, and not as flux."""
        recipe = self.recipe
        if recipe.resampling is not None:
            return recipe.resampling == "surface_brightness"
        if is_surface_brightness(recipe.units):
            return True

        unit = self.images.unit(row, band)
        keeps = is_surface_brightness(unit)
        if self.brightness_by_band.get(band, keeps) != keeps:
            raise BadCutoutError(
                f"{self.images.name(row, band)}: band {recipe.bands[band]}: its unit is "
                f"{unit or 'not given'}, and most rows have one of "
                f"{'flux' if keeps else 'surface brightness'}; set resampling=flux or "
                "resampling=surface_brightness for all"
            )
        return keeps


@lru_cache(maxsize=64)
def _make_grid(height: int, width: int, size: tuple[int, int] | None) -> _Grid:
    stored_height, stored_width = size or (height, width)
    rows = centred_slices(stored_height, height)[1]
    columns = centred_slices(stored_width, width)[1]
    return _Grid(height, width, rows, columns)


def pad_centre(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pad an image that is no larger with zeros around its centre, to (bands, height, width)."""
    bands, old_height, old_width = image.shape
    if (old_height, old_width) == (height, width):
        return image

    rows = centred_slices(height, old_height)[0]
    columns = centred_slices(width, old_width)[0]
    padded = np.zeros((bands, height, width), image.dtype)
    padded[:, rows, columns] = image
    return padded
