"""The camera: pixels, seeing and noise of a cutout, close to those of a survey of today."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch

from lens_hpc.sky.deflection import Lens
from lens_hpc.sky.light import ZERO_POINT, Light

# Electrons per flux unit in a coadd of some 20 minutes on an 8 m telescope: sets the Poisson noise.
GAIN = 2000.0
# Light is painted on a finer grid, which is also wider, so that the PSF does not wrap around.
OVERSAMPLING = 3
MARGIN_PIXELS = 4
MOFFAT_BETA = 3.0

# Seeing (FWHM, arcsec) and 5 sigma depth in an aperture of 2 arcsec, close to those of the wide
# layer of HSC-SSP (Aihara et al. 2018, PASJ 70, S4).
SEEING = {"g": 0.77, "r": 0.76, "i": 0.58, "z": 0.68, "y": 0.68}
DEPTH = {"g": 26.5, "r": 26.1, "i": 25.9, "z": 25.1, "y": 24.4}
DEPTH_SIGMAS = 5
APERTURE_RADIUS_ARCSEC = 1.0


@dataclass(frozen=True)
class Camera:
    """Pixels, seeing and noise of one cutout."""

    bands: tuple[str, ...]
    size: int
    """Height and width, pixels."""
    pixel_scale: float
    """Arcsec per pixel."""
    seeing: tuple[float, ...]
    """FWHM of each band, arcsec."""
    sky: tuple[float, ...]
    """Standard deviation of the sky in a pixel of each band, flux units."""

    def expose(self, lights: Sequence[Light], lens: Lens | None = None) -> torch.Tensor:
        """Return the noiseless flux in each pixel, (bands, size, size).

        The lights lie behind `lens`, if there is one.
        """
        sharp = self._paint(lights, lens)
        blurred = self._blur(sharp)

        # The sum over a pixel is the mean of its points, times their number.
        means = torch.nn.functional.avg_pool2d(blurred, OVERSAMPLING)
        pixels = means * OVERSAMPLING**2
        inside = slice(MARGIN_PIXELS, -MARGIN_PIXELS)
        return pixels[:, inside, inside]

    def noise(self, flux: torch.Tensor) -> torch.Tensor:
        """Return the standard deviation in each pixel with that flux, from sky and photons."""
        sky = torch.tensor(self.sky)
        sky_variance = sky[:, None, None] ** 2
        photon_variance = flux.clamp(min=0) / GAIN
        return torch.sqrt(sky_variance + photon_variance)

    def record(self, rng: np.random.Generator, flux: torch.Tensor) -> np.ndarray:
        """Return one noisy exposure of a flux, (bands, size, size) float32."""
        positive = flux.clamp(min=0).double().numpy()
        electrons = rng.poisson(positive * GAIN)
        sky_sigma = np.array(self.sky)
        sky = rng.normal(size=flux.shape) * sky_sigma[:, None, None]
        exposure = electrons / GAIN + sky
        return exposure.astype(np.float32)

    def _paint(self, lights: Sequence[Light], lens: Lens | None) -> torch.Tensor:
        """Return the flux at each point of the fine grid, (bands, points, points)."""
        x, y = _fine_grid(self.size, self.pixel_scale)
        if lens:
            x, y = lens.source_position(x, y)

        point_area = self._fine_step() ** 2
        flux = torch.stack([light.flux(self.bands) for light in lights])
        brightness = torch.stack([light.brightness(x, y) for light in lights])
        return torch.einsum("lb,lyx->byx", flux * point_area, brightness)

    def _blur(self, sharp: torch.Tensor) -> torch.Tensor:
        """Convolve each band on the fine grid with its PSF."""
        points = sharp.shape[-1]
        step = self._fine_step()
        psf = torch.stack([_psf_transform(points, fwhm / step) for fwhm in self.seeing])
        transform = torch.fft.rfft2(sharp) * psf
        return torch.fft.irfft2(transform, s=(points, points))

    def _fine_step(self) -> float:
        return self.pixel_scale / OVERSAMPLING


def draw_camera(
    rng: np.random.Generator, bands: tuple[str, ...], size: int, pixel_scale: float
) -> Camera:
    """Draw the conditions of one cutout: seeing and depth vary over the survey by some per cent."""
    seeing = []
    for band in bands:
        variation = rng.lognormal(0, 0.06)
        seeing.append(float(SEEING[band] * variation))

    aperture_pixels = math.pi * (APERTURE_RADIUS_ARCSEC / pixel_scale) ** 2
    sky = []
    for band in bands:
        depth_flux = 10 ** (-0.4 * (DEPTH[band] - ZERO_POINT))
        pixel_sigma = depth_flux / DEPTH_SIGMAS / math.sqrt(aperture_pixels)
        variation = rng.lognormal(0, 0.05)
        sky.append(float(pixel_sigma * variation))
    return Camera(bands, size, pixel_scale, tuple(seeing), tuple(sky))


@cache
def _fine_grid(size: int, pixel_scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x and y of each point of the fine grid, arcsec from the middle of the cutout."""
    points = (size + 2 * MARGIN_PIXELS) * OVERSAMPLING
    indices = torch.arange(points, dtype=torch.float32)
    axis = (indices - (points - 1) / 2) * (pixel_scale / OVERSAMPLING)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


@lru_cache(maxsize=16)
def _psf_transform(points: int, fwhm: float) -> torch.Tensor:
    """Return the Fourier transform of a Moffat profile centred on the origin.

    The FWHM is in points of the fine grid.
    """
    # Half of the peak is left at half of the FWHM.
    alpha = fwhm / (2 * math.sqrt(2 ** (1 / MOFFAT_BETA) - 1))

    # Grid points in the order of a Fourier transform: 0, 1, 2, ..., -2, -1.
    axis = torch.fft.fftfreq(points, d=1 / points)
    y = axis[:, None]
    x = axis[None, :]
    squared_radius = y**2 + x**2
    profile = (1 + squared_radius / alpha**2) ** -MOFFAT_BETA
    return torch.fft.rfft2(profile / profile.sum())
