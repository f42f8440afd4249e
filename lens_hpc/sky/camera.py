"""The camera: pixels, seeing and noise of one cutout of a survey."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch

from lens_hpc.sky.deflection import Lens
from lens_hpc.sky.light import Light
from lens_hpc.sky.surveys import DEPTH_SCATTER, ImagingSurvey

# Light is painted on a grid of about this step, fine enough for the smallest clump of a source,
# and wider than the cutout, so that the PSF does not wrap around.
FINE_STEP_ARCSEC = 0.05
MARGIN_PIXELS = 4
MOFFAT_BETA = 3.0


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
    gain: float
    """Electrons per flux unit: sets the Poisson noise."""

    @property
    def oversampling(self) -> int:
        """Points of the fine grid along the side of a pixel."""
        return max(1, round(self.pixel_scale / FINE_STEP_ARCSEC))

    @property
    def fine_step(self) -> float:
        """Distance between points of the fine grid, arcsec."""
        return self.pixel_scale / self.oversampling

    def expose(self, lights: Sequence[Light], lens: Lens | None = None) -> torch.Tensor:
        """Return the noiseless flux in each pixel, (bands, size, size).

        The lights lie behind `lens`, if there is one.
        """
        sharp = self._paint(lights, lens)
        blurred = self._blur(sharp)

        # The sum over a pixel is the mean of its points, times their number.
        means = torch.nn.functional.avg_pool2d(blurred, self.oversampling)
        pixels = means * self.oversampling**2
        inside = slice(MARGIN_PIXELS, -MARGIN_PIXELS)
        return pixels[:, inside, inside]

    def noise(self, flux: torch.Tensor) -> torch.Tensor:
        """Return the standard deviation in each pixel with that flux, from sky and photons."""
        sky = torch.tensor(self.sky)
        sky_variance = sky[:, None, None] ** 2
        photon_variance = flux.clamp(min=0) / self.gain
        return torch.sqrt(sky_variance + photon_variance)

    def record(self, rng: np.random.Generator, flux: torch.Tensor) -> np.ndarray:
        """Return one noisy exposure of a flux, (bands, size, size) float32."""
        positive = flux.clamp(min=0).double().numpy()
        electrons = rng.poisson(positive * self.gain)
        sky_sigma = np.array(self.sky)
        sky = rng.normal(size=flux.shape) * sky_sigma[:, None, None]
        exposure = electrons / self.gain + sky
        return exposure.astype(np.float32)

    def _paint(self, lights: Sequence[Light], lens: Lens | None) -> torch.Tensor:
        """Return the flux at each point of the fine grid, (bands, points, points)."""
        x, y = _fine_grid(self.size, self.oversampling, self.fine_step)
        if lens:
            source_x, source_y = lens.source_position(x, y)

        sharp = torch.zeros(len(self.bands), *x.shape)
        for light in lights:
            if lens:
                shares = light.brightness(source_x, source_y) * self.fine_step**2
            else:
                shares = light.on_grid(x, y)

            if light.gradient:
                shares = shares * light.tint(self.bands, x, y)
            sharp += light.flux(self.bands)[:, None, None] * shares
        return sharp

    def _blur(self, sharp: torch.Tensor) -> torch.Tensor:
        """Convolve each band on the fine grid with its PSF."""
        points = sharp.shape[-1]
        step = self.fine_step
        psf = torch.stack([_psf_transform(points, fwhm / step) for fwhm in self.seeing])
        transform = torch.fft.rfft2(sharp) * psf
        return torch.fft.irfft2(transform, s=(points, points))


def draw_camera(
    rng: np.random.Generator,
    survey: ImagingSurvey,
    bands: tuple[str, ...],
    size: int,
    pixel_scale: float,
) -> Camera:
    """Draw the conditions of one cutout: seeing and depth vary over the survey by some per cent."""
    seeing = []
    for band in bands:
        variation = rng.lognormal(0, survey.seeing_scatter)
        seeing.append(float(survey.seeing[band] * variation))

    sky = []
    for band in bands:
        variation = rng.lognormal(0, DEPTH_SCATTER)
        sky.append(survey.sky_sigma(band, pixel_scale) * float(variation))
    return Camera(bands, size, pixel_scale, tuple(seeing), tuple(sky), survey.gain)


@cache
def _fine_grid(size: int, oversampling: int, step: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x and y of each point of the fine grid, arcsec from the middle of the cutout."""
    points = (size + 2 * MARGIN_PIXELS) * oversampling
    indices = torch.arange(points, dtype=torch.float32)
    axis = (indices - (points - 1) / 2) * step
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
