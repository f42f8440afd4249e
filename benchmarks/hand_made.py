"""Hand-made statistics of cutouts with boosted trees: what a network must be better than.

They are what one would measure without a network, each in annuli about the centre where that makes
sense, for any number of bands. `measure` lists them by name:

- radial profile: mean, its share of the centre, scatter and brightest pixel;
- azimuthal moments of order 1 to 3, and the gradient across the radius beside that along it, which
  tells an arc from a blob, at two scales;
- shape: asymmetry under half and quarter turns, concentration, axis ratio, Gini coefficient;
- texture: the Laplacian at three scales, near the centre and away from it;
- colours of neighbouring bands and of the outermost two in annuli, and what is left of the bluer
  band when the redder one is subtracted with the colour of the centre.

All are pure functions of the pixels: no label, no fit, no statistics of other cutouts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter, laplace
from sklearn.ensemble import HistGradientBoostingClassifier

ANNULUS_ARCSEC = 0.4
OUTERMOST_ARCSEC = 4.0
CENTRE_ARCSEC = 0.8
ORDERS = (1, 2, 3)
GRADIENT_SCALES_ARCSEC = (0.1, 0.25)
TEXTURE_SCALES_ARCSEC = (0.0, 0.1, 0.25)
BOUNDARY_OF_TEXTURES_ARCSEC = 2.5
# A flux below so many standard deviations gives no colour; the trees take NaN for missing.
FAINTEST_SIGMAS = 2.0

ITERATIONS = 300
CUTOUTS_AT_ONCE = 256

Measured = Iterator[tuple[str, np.ndarray]]
"""Names of statistics with their values, (N,)."""


def measure(
    images: np.ndarray, bands: tuple[str, ...], pixel_scale: float
) -> tuple[np.ndarray, list[str]]:
    """Return the statistics of cutouts (N, bands, height, width): (N, F) float32, and their names.

    `pixel_scale` is in arcsec per pixel.
    """
    rings = Rings(images.shape[-2:], pixel_scale)
    tables = []
    for start in range(0, len(images), CUTOUTS_AT_ONCE):
        some = images[start : start + CUTOUTS_AT_ONCE].astype(np.float32)
        named = dict(_measure_some(some, bands, rings))
        tables.append(np.stack(list(named.values()), axis=1))
    return np.concatenate(tables).astype(np.float32), list(named)


def score(training: np.ndarray, labels: np.ndarray, scored: np.ndarray, seed: int) -> np.ndarray:
    """Return the logits (M,) of boosted trees, trained on (N, F) and (N,), for `scored` (M, F)."""
    trees = HistGradientBoostingClassifier(max_iter=ITERATIONS, random_state=seed)
    return trees.fit(training, labels).decision_function(scored)


@dataclass(frozen=True)
class Rings:
    """Annuli about the centre of a cutout, which are disjoint and A in number."""

    shape: tuple[int, int]
    """Height and width, pixels."""
    pixel_scale: float

    @cached_property
    def offsets(self) -> tuple[np.ndarray, np.ndarray]:
        """Vertical and horizontal distance of each pixel from the centre, (H, W), arcsec."""
        height, width = self.shape
        y, x = np.mgrid[:height, :width].astype(np.float32)
        y -= (height - 1) / 2
        x -= (width - 1) / 2
        return y * self.pixel_scale, x * self.pixel_scale

    @cached_property
    def radius(self) -> np.ndarray:
        """Distance of each pixel from the centre, (H, W), arcsec."""
        return np.hypot(*self.offsets)

    @cached_property
    def angle(self) -> np.ndarray:
        """Position angle of each pixel, (H, W), radians."""
        return np.arctan2(*self.offsets)

    @cached_property
    def masks(self) -> np.ndarray:
        """Whether a pixel lies in an annulus, (A, H, W) bool."""
        edges = np.arange(0, OUTERMOST_ARCSEC + 1e-6, ANNULUS_ARCSEC)
        masks = [(self.radius >= inner) & (self.radius < outer) for inner, outer in pairwise(edges)]
        return np.array([mask for mask in masks if mask.any()])

    @cached_property
    def weights(self) -> np.ndarray:
        """What a sum over pixels weighs them by to be the mean in an annulus, (A, H x W)."""
        flat = self.masks.reshape(len(self.masks), -1).astype(np.float32)
        return flat / flat.sum(axis=1, keepdims=True)

    def means(self, image: np.ndarray) -> np.ndarray:
        """Return the mean of images (N, H, W) in each annulus, (N, A)."""
        return image.reshape(len(image), -1) @ self.weights.T

    def brightest(self, image: np.ndarray) -> np.ndarray:
        """Return the brightest pixel of images (N, H, W) in each annulus, (N, A)."""
        return np.stack([image[:, mask].max(axis=1) for mask in self.masks], axis=1)


def _measure_some(images: np.ndarray, bands: tuple[str, ...], rings: Rings) -> Measured:
    noises = [_noise(images[:, number], rings) for number in range(len(bands))]
    for number, band in enumerate(bands):
        image = images[:, number] / noises[number][:, None, None]
        yield from _prefixed(band, _profiles(image, rings))
        yield from _prefixed(band, _moments(image, rings))
        yield from _prefixed(band, _gradients(image, rings))
        yield from _prefixed(band, _shapes(image, rings))
        yield from _prefixed(band, _textures(image, rings))

    pairs = {(number, number + 1) for number in range(len(bands) - 1)}
    if len(bands) > 1:
        pairs.add((0, len(bands) - 1))
    for blue, red in sorted(pairs):
        names = f"{bands[blue]}-{bands[red]}"
        colours = _colours(images[:, blue], images[:, red], noises[blue], noises[red], rings)
        yield from _prefixed(names, colours)


def _prefixed(prefix: str, measured: Measured) -> Measured:
    for name, values in measured:
        yield f"{prefix} {name}", values


def _by_ring(name: str, values: np.ndarray) -> Measured:
    for number in range(values.shape[1]):
        yield f"{name} {number}", values[:, number]


def _noise(image: np.ndarray, rings: Rings) -> np.ndarray:
    """Return the standard deviation of the sky of images (N, H, W), (N,), from their corners."""
    sky = image[:, rings.radius > rings.radius.max() * 0.7]
    deviations = np.abs(sky - np.median(sky, axis=1, keepdims=True))
    return np.maximum(1.4826 * np.median(deviations, axis=1), 1e-6)


# ---- one band, in units of its noise ----


def _profiles(image: np.ndarray, rings: Rings) -> Measured:
    means = rings.means(image)
    scatter = np.sqrt(np.maximum(rings.means(image**2) - means**2, 0))
    peak = np.maximum(means[:, :1], 1e-3)
    yield from _by_ring("mean", np.arcsinh(means))
    yield from _by_ring("share", means / peak)
    yield from _by_ring("scatter", np.arcsinh(scatter))
    yield from _by_ring("brightest", np.arcsinh(rings.brightest(image)))


def _moments(image: np.ndarray, rings: Rings) -> Measured:
    means = np.maximum(np.abs(rings.means(image)), 1e-3)
    for order in ORDERS:
        along = rings.means(image * np.cos(order * rings.angle))
        across = rings.means(image * np.sin(order * rings.angle))
        yield from _by_ring(f"moment {order}", np.hypot(along, across) / means)


def _gradients(image: np.ndarray, rings: Rings) -> Measured:
    """An arc is steep along the radius and flat around it; a blob is steep both ways."""
    for scale in GRADIENT_SCALES_ARCSEC:
        sigma = scale / rings.pixel_scale
        smooth = gaussian_filter(image, (0, sigma, sigma))
        down, right = np.gradient(smooth, axis=(1, 2))
        sine, cosine = np.sin(rings.angle), np.cos(rings.angle)
        outward = down * sine + right * cosine
        around = down * cosine - right * sine
        across = np.sqrt(rings.means(around**2))
        yield from _by_ring(f"gradient around, {scale}", np.arcsinh(across))
        along = np.sqrt(rings.means(outward**2))
        yield from _by_ring(f"gradients' ratio, {scale}", across / (along + 1e-3))
        rising = np.sqrt(rings.means(np.maximum(outward, 0) ** 2))
        yield from _by_ring(f"gradient rising outward, {scale}", np.arcsinh(rising))


def _shapes(image: np.ndarray, rings: Rings) -> Measured:
    light = np.maximum(image, 0)
    total = np.maximum(light.sum(axis=(1, 2)), 1e-3)
    for turns in (1, 2):
        if turns == 1 and rings.shape[0] != rings.shape[1]:
            continue
        turned = np.rot90(image, turns, axes=(1, 2))
        yield from _by_ring(f"asymmetry, {turns} turns", rings.means(np.abs(image - turned)))

    y, x = rings.offsets
    yy, xx, xy = ((light * moment).sum(axis=(1, 2)) / total for moment in (y * y, x * x, x * y))
    root = np.hypot(xx - yy, 2 * xy)
    yield "size", xx + yy
    yield "axis ratio", (xx + yy - root) / (xx + yy + root + 1e-6)
    yield "concentration", light[:, rings.radius < CENTRE_ARCSEC].sum(axis=1) / total

    inside = np.sort(np.abs(image[:, rings.radius < BOUNDARY_OF_TEXTURES_ARCSEC]), axis=1)
    ranks = 2 * np.arange(1, inside.shape[1] + 1) - inside.shape[1] - 1
    yield "Gini", inside @ ranks / (inside.sum(axis=1) * inside.shape[1])


def _textures(image: np.ndarray, rings: Rings) -> Measured:
    is_near = rings.radius < BOUNDARY_OF_TEXTURES_ARCSEC
    is_ring = is_near & (rings.radius > CENTRE_ARCSEC)
    for scale in TEXTURE_SCALES_ARCSEC:
        sigma = scale / rings.pixel_scale
        smooth = gaussian_filter(image, (0, sigma, sigma)) if sigma else image
        curved = laplace(smooth, axes=(1, 2))
        for name, mask in {"near": is_near, "ring": is_ring, "away": ~is_near}.items():
            values = curved[:, mask]
            yield f"texture {name}, {scale}", np.arcsinh(values.std(axis=1))
            yield f"sharpest {name}, {scale}", np.arcsinh(-values.min(axis=1))


# ---- two bands ----


def _colours(
    blue: np.ndarray, red: np.ndarray, blue_noise: np.ndarray, red_noise: np.ndarray, rings: Rings
) -> Measured:
    pixels = rings.masks.sum(axis=(1, 2))
    blue_means, red_means = rings.means(blue), rings.means(red)
    least = FAINTEST_SIGMAS / np.sqrt(pixels)
    is_faint = blue_means < least * blue_noise[:, None]
    is_faint |= red_means < least * red_noise[:, None]
    ratio = np.divide(blue_means, red_means, out=np.full_like(red_means, np.nan), where=~is_faint)
    yield from _by_ring("colour", -2.5 * np.log10(ratio))

    centre = rings.radius < CENTRE_ARCSEC
    of_centre = blue[:, centre].sum(axis=1) / np.maximum(red[:, centre].sum(axis=1), 1e-6)
    left = blue - of_centre[:, None, None] * red
    left /= np.hypot(blue_noise, of_centre * red_noise)[:, None, None]
    means = rings.means(left)
    yield from _by_ring("bluer than the centre", np.arcsinh(means))
    scatter = np.sqrt(np.maximum(rings.means(left**2) - means**2, 0))
    yield from _by_ring("scatter of bluer", np.arcsinh(scatter))
    sigma = 0.2 / rings.pixel_scale
    smooth = gaussian_filter(left, (0, sigma, sigma))
    yield from _by_ring("bluest", np.arcsinh(rings.brightest(smooth)))
    yield from _by_ring("reddest", np.arcsinh(rings.brightest(-smooth)))
