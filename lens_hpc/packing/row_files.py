"""The image files of a row: which files, which HDU or array of each, and the masks beside."""

from pathlib import Path

import numpy as np

from lens_hpc.errors import UserError
from lens_hpc.packing.bad_pixels import mask_pixels
from lens_hpc.packing.fits_images import Part, describe_fits, read_fits, read_fits_unit
from lens_hpc.packing.image_formats import BadCutoutError, Reader, read_parts, reader_by_ending
from lens_hpc.packing.parts import PartNames, band_parts, differs_by_band
from lens_hpc.packing.recipe import Recipe
from lens_hpc.packing.tar_files import path_on_disk

Files = list[tuple[str, list[Part]]]
"""Path of each file of a row, and the images to read from it."""


class RowFiles:
    """The images of each row of a survey, in files of their own.

    `paths` is (N, files of a row), relative to the folder `source`; `reader` reads a file, and
    None means by its ending. `hdus` and `keys` are (N, bands), where columns of the catalogue name
    them.
    """

    def __init__(
        self,
        recipe: Recipe,
        source: Path,
        paths: np.ndarray,
        reader: Reader | None = None,
        hdus: np.ndarray | None = None,
        keys: np.ndarray | None = None,
    ) -> None:
        self.recipe = recipe
        self.folder = str(source)
        self.paths = paths
        self.reader = reader
        self.hdus = hdus
        self.keys = keys
        self._parts = self._parts_of(recipe.hdu, recipe.key)
        self._has_parts_by_band = differs_by_band(recipe.hdu) or differs_by_band(recipe.key)
        self._mask_parts: list[Part] = []
        self._joins_masks = False
        """Whether one image has all bands, and each band a mask of its own."""
        if recipe.masks is not None:
            hdu, key = recipe.masks.hdu, recipe.masks.key
            self._mask_parts = self._parts_of(hdu, key)
            is_one_image = paths.shape[1] == 1 and not self._has_parts_by_band
            has_mask_by_band = differs_by_band(hdu) or differs_by_band(key)
            self._joins_masks = is_one_image and has_mask_by_band and len(recipe.bands) > 1
        if len(paths):
            self._check_images_differ()

    def _parts_of(self, hdus: PartNames, keys: PartNames) -> list[Part]:
        bands = self.recipe.bands
        names = [None if key is None else str(key) for key in band_parts(keys, bands)]
        return list(zip(band_parts(hdus, bands), names, strict=True))

    def _check_images_differ(self) -> None:
        """Raise UserError where the recipe names one image for two bands."""
        images = [(path, *part) for path, parts in self._files_of(0) for part in parts]
        for number, image in enumerate(images):
            first = images.index(image)
            if first < number:
                bands = self.recipe.bands
                raise UserError(
                    f"{image[0]}: the recipe names the same image for the bands {bands[first]} "
                    f"and {bands[number]}; give each band its file (images), or its hdu or key"
                )

    def name(self, row: int, band: int = 0) -> str:
        """Return what to call the image of a row and band in a message: the path of its file."""
        paths = self.paths[row]
        return str(paths[min(band, len(paths) - 1)])

    def read(self, row: int) -> list[np.ndarray]:
        """Return the images of a row as they lie on disk, (planes, height, width) each.

        There is one with all bands, or one for each. BadCutoutError says why there is none.
        """
        images = []
        band = 0
        for path, parts in self._files_of(row):
            images += self._read_file(path, parts, band)
            band += len(parts)
        return images

    def contents(self, row: int) -> str:
        """Return what the first file of a row holds, for a message; empty where nobody knows."""
        path = f"{self.folder}/{self.name(row)}"
        reader = self.reader or reader_by_ending(path)
        if reader is not read_fits:
            return ""
        with path_on_disk(path) as file:
            return f": it has {describe_fits(file)}"

    def unit(self, row: int, band: int) -> str:
        """Return the unit that a FITS file gives for the pixels of a band; empty without one."""
        path = f"{self.folder}/{self.name(row, band)}"
        reader = self.reader or reader_by_ending(path)
        parts = [part for _, parts in self._files_of(row) for part in parts]
        hdu, key = parts[min(band, len(parts) - 1)]
        if reader is not read_fits:
            return ""
        with path_on_disk(path) as file:
            return read_fits_unit(file, hdu, key)

    def _files_of(self, row: int) -> Files:
        parts = self._parts
        if self.hdus is not None:
            parts = [(hdu, key) for hdu, (_, key) in zip(self.hdus[row], parts, strict=True)]
        if self.keys is not None:
            parts = [(hdu, key) for key, (hdu, _) in zip(self.keys[row], parts, strict=True)]

        paths = self.paths[row]
        if len(paths) > 1:
            return [(path, [part]) for path, part in zip(paths, parts, strict=True)]
        return [(paths[0], parts if self._has_parts_by_band else parts[:1])]

    def _read_file(self, path: str, parts: list[Part], band: int) -> list[np.ndarray]:
        """Read some images of a file, of which `band` is the first, and their masks."""
        settings = self.recipe.masks
        masks = self._mask_parts[band : band + len(parts)]
        if self._joins_masks:
            masks = self._mask_parts

        file = f"{self.folder}/{path}"
        found = read_parts(file, parts, self.reader, self.recipe.axes, masks)
        if settings is None:
            return found

        images, planes_of_masks = found[: len(parts)], found[len(parts) :]
        try:
            if self._joins_masks:
                planes_of_masks = [self._join_masks(planes_of_masks, images[0])]
            pairs = zip(images, planes_of_masks, strict=True)
            return [mask_pixels(image, mask, settings.bad) for image, mask in pairs]
        except ValueError as error:
            raise BadCutoutError(f"{path}: {error}") from error

    def _join_masks(self, masks: list[np.ndarray], image: np.ndarray) -> np.ndarray:
        """Return the masks of all bands as one, each in the plane that holds its band."""
        if any(len(mask) > 1 for mask in masks):
            raise ValueError("the mask of a band must have one plane; name one for each band")
        joined: np.ma.MaskedArray = np.ma.concatenate(masks)  # type: ignore[no-untyped-call]
        planes = self.recipe.planes
        if planes is None or max(planes) >= len(image):
            return joined

        # The planes that are not chosen are left out later, whatever their mask is.
        in_planes = np.ma.zeros((len(image), *joined.shape[1:]), joined.dtype)
        in_planes[list(planes)] = joined
        return in_planes
