"""Colour composites of cutouts."""

from typing import NamedTuple

import numpy as np

from lens_hpc.dataset.bands import by_wavelength, wavelength_nm

# The standard deviation of normal noise, in units of its median absolute deviation.
NOISE_OF_DEVIATION = 1.48


class Stretch(NamedTuple):
    """A stretch of brightness."""

    softening: float
    """Counts of sky noise at which it turns from linear to logarithmic."""
    brightest_percentile: float
    """Percentile of the pixels that becomes white."""
    curve: np.ufunc = np.arcsinh
    """Of the brightness in units of the softening."""


STRETCH = Stretch(4.0, 99.7)


def composite(
    image: np.ndarray,
    bands: tuple[str, ...],
    stretch: Stretch = STRETCH,
    scale_of: np.ndarray | None = None,
) -> np.ndarray:
    """Return an RGB picture (height, width, 3), 0 to 1, of one cutout (bands, height, width).

    Of three bands or more, three are shown, the reddest in red, by a stretch of the mean intensity
    that keeps colours (Lupton et al. 2004, PASP 116, 133). Where their names tell the wavelengths,
    these are the first, the middle and the last; else the first three, in their order.
    Of fewer bands, the first is shown in grey, by the same stretch. `scale_of` is another cutout,
    of whose sky, noise and brightness the picture is made. Pictures of 8 bits stay as they are.
    """
    if image.dtype == np.uint8:
        return _to_rgb(image[:3] if len(image) >= 3 else image[:1]) / 255

    shown = _shown_bands(bands)
    scale = (image if scale_of is None else scale_of)[shown].astype(np.float64)
    sky, noise = _sky_and_noise(scale)
    brightness = ((scale - sky) / noise).mean(axis=0)
    softening = stretch.softening
    peak = max(float(np.percentile(brightness, stretch.brightest_percentile)), softening)

    # A faint blue arc is not lost beside a bright red galaxy, for each band has its own noise.
    planes = (image[shown].astype(np.float64) - sky) / noise
    intensity = planes.mean(axis=0)
    positive = np.clip(intensity, 0, None)
    stretched = stretch.curve(positive / softening) / stretch.curve(peak / softening)

    # Each plane keeps its ratio to the intensity, and so the pixel its colour.
    colours = planes * stretched / np.where(intensity > 0, intensity, np.inf)
    reddest_first = colours[::-1]
    return np.clip(_to_rgb(reddest_first), 0, 1)


def _shown_bands(bands: tuple[str, ...]) -> list[int]:
    """Return the numbers of the bands to show: three from blue to red, or the first alone."""
    if len(bands) < 3:
        return [0]
    if None in map(wavelength_nm, bands):
        return [0, 1, 2]
    order = by_wavelength(bands)
    return [order[0], order[len(order) // 2], order[-1]]


def _sky_and_noise(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sky of each band (bands, height, width) and its noise, (bands, 1, 1) each."""
    sky = np.median(planes, axis=(1, 2), keepdims=True)
    deviation = np.median(abs(planes - sky), axis=(1, 2), keepdims=True)
    noise = NOISE_OF_DEVIATION * deviation
    return sky, np.where(noise > 0, noise, 1)


def _to_rgb(planes: np.ndarray) -> np.ndarray:
    """Return three planes, or one as three, (planes, height, width) as (height, width, 3)."""
    if len(planes) == 1:
        planes = planes.repeat(3, axis=0)
    return np.moveaxis(planes, 0, -1)
