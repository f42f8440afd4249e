"""The bands of a tile: its mosaics, opened and held against the recipe."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from lens_hpc.packing.fits_images import Hdu
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.packing.mosaic_files import MosaicFile, MosaicPlane
from lens_hpc.packing.parts import band_parts
from lens_hpc.packing.recipe import Recipe
from lens_hpc.packing.resampling import is_surface_brightness
from lens_hpc.packing.sky_grids import SkyGrid, check_bands_agree, check_pixel_scale

MAGNITUDES_PER_DEX = 2.5


class Band(NamedTuple):
    """One band of an open tile."""

    plane: MosaicPlane
    mask: MosaicPlane | None
    """The image that says which pixels are bad, of the same shape."""
    grid: SkyGrid
    ratio: float
    """How many times wider its pixels are than those of the finest band."""
    factor: float
    """What brings its values to the recipe's zero point."""
    keeps_brightness: bool
    """Whether it holds a surface brightness, and no flux a pixel."""


def open_bands(recipe: Recipe, files: Sequence[MosaicFile]) -> list[Band]:
    """Return the bands of a tile, one file each; BadCutoutError for what does not fit the recipe.

    Bands that do not lie on the sky alike do not fit.
    """
    masks: list[Hdu | None] = [None] * len(files)
    if recipe.masks is not None:
        masks = list(band_parts(recipe.masks.hdu, recipe.bands))
    hdus = band_parts(recipe.hdu, recipe.bands)
    bands = [
        _open_band(recipe, name, file, hdu, mask)
        for name, file, hdu, mask in zip(recipe.bands, files, hdus, masks, strict=True)
    ]

    _check_images_differ(recipe, bands)
    finest = finest_of(bands)
    for band in bands:
        if band is not finest:
            check_bands_agree(finest.grid, band.grid, band.ratio)
    return bands


def _check_images_differ(recipe: Recipe, bands: Sequence[Band]) -> None:
    """Raise BadCutoutError where the recipe names one image for two bands."""
    first_of_image: dict[str, str] = {}
    for name, band in zip(recipe.bands, bands, strict=True):
        first = first_of_image.setdefault(band.plane.name, name)
        if first != name:
            raise BadCutoutError(
                f"{band.plane.name}: the recipe names the same image for the bands {first} and "
                f"{name}; give each its file (mosaics.path) or HDU (hdu)"
            )


def finest_of(bands: Sequence[Band]) -> Band:
    """Return the first band with the finest pixels, on whose grid cutouts lie."""
    return next(band for band in bands if band.ratio == 1)


def _open_band(recipe: Recipe, name: str, file: MosaicFile, hdu: Hdu, mask_hdu: Hdu) -> Band:
    plane = file.plane(hdu)
    plane.check_length()
    mask = None if recipe.masks is None else _open_mask(file, mask_hdu, plane)
    grid = SkyGrid(plane)
    scale = recipe.pixel_scale_of(name)
    check_pixel_scale(grid, scale)
    return Band(
        plane=plane,
        mask=mask,
        grid=grid,
        ratio=scale / recipe.finest_pixel_scale,
        factor=_factor(recipe, name, plane),
        keeps_brightness=_keeps_brightness(recipe, plane),
    )


def _open_mask(file: MosaicFile, hdu: Hdu, plane: MosaicPlane) -> MosaicPlane:
    """Return the image that says which pixels of another are bad."""
    mask = file.plane(hdu)
    mask.check_length()
    if mask.shape != plane.shape:
        raise BadCutoutError(
            f"{mask.name}: the mask has {mask.shape} pixels, and {plane.name} {plane.shape}; "
            "masks.hdu names the mask of the same image"
        )
    return mask


def _factor(recipe: Recipe, band: str, plane: MosaicPlane) -> float:
    """Return by what the values of a band are multiplied, to be in the recipe's unit."""
    assert recipe.mosaics is not None
    own = recipe.mosaics.zero_point_of(band)
    wanted = recipe.zero_point_of(band)
    if own is None or wanted is None:
        return 1.0

    magnitude = plane.value(own) if isinstance(own, str) else own
    if not isinstance(magnitude, int | float) or not math.isfinite(magnitude):
        raise BadCutoutError(
            f"{plane.name}: its header has no number {own} (it is {magnitude!r}), which "
            "mosaics.zero_point names; name another word, or give the magnitude itself"
        )
    return float(10 ** ((wanted - magnitude) / MAGNITUDES_PER_DEX))


def _keeps_brightness(recipe: Recipe, plane: MosaicPlane) -> bool:
    if recipe.resampling is not None:
        return recipe.resampling == "surface_brightness"
    return is_surface_brightness(recipe.units) or is_surface_brightness(plane.unit)
