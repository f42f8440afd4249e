"""Arcs painted on one host: a function of recipe, cutout, catalogue values, id and trial alone."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from lens_hpc.dataset.manifest import Manifest
from lens_hpc.errors import UserError
from lens_hpc.packing import arc_facts
from lens_hpc.packing.injection_recipe import InjectionRecipe
from lens_hpc.packing.photometric_calibration import calibration
from lens_hpc.packing.psf_stamps import HostPsf, number_in, psf_at
from lens_hpc.packing.source_galaxies import open_galaxies
from lens_hpc.sky.arcs import arc_mask, paint_arcs
from lens_hpc.sky.injection import HostGalaxy, Injection, draw_injection, measure_light
from lens_hpc.sky.laws import SourceValue, ValueLaw

SOURCE_ID = "source_id"
"""Column of the truth where sources are real galaxies."""
MOST_ELECTRONS = 1e16
"""Of a source, unlensed: of some hundred times as many in a pixel, Poisson's law is not drawn."""
NEGLIGIBLE = 1e-3
"""Nothing is added to a pixel whose arc is fainter than this share of the sky's noise."""


class ArcTrial(NamedTuple):
    """Which of all arcs a host gets."""

    number: int = 0
    """Another number is another arc."""
    einstein_radius: float | None = None
    """Drawn by the recipe's law unless it is given. *Unit: arcsec*"""
    source_magnitude: float | None = None
    """In the reference band; drawn, or looked up, unless it is given. *Unit: AB magnitude*"""


FIRST_ARC = ArcTrial()


class Painted(NamedTuple):
    """A host with arcs."""

    pixels: np.ndarray
    """(bands, height, width), of the cutout's type: the cutout's own but where the arc is."""
    arc: np.ndarray
    """(bands, height, width) float64, without noise, in the dataset's units."""
    mask: np.ndarray
    """(height, width) bool: where the arc stands out of the sky's noise in a band."""
    truth: dict[str, Any]
    """What was painted: numbers, NaN where not known, and the id of a source that is a real galaxy.
    *Units: arcsec, radians, km/s, AB magnitudes*"""


class Painter:
    """Paints arcs on the cutouts of a dataset, as a recipe says."""

    def __init__(
        self, recipe: InjectionRecipe, manifest: Manifest, split: str | None = None
    ) -> None:
        """Raise UserError where recipe and dataset do not say all that painting needs.

        `split` is that of the cutouts.
        """
        self.recipe = recipe
        self.bands = manifest.bands
        self.pixel_scale = manifest.pixel_scale_arcsec
        self.zero_points, self.gains = calibration(recipe, manifest)
        self.galaxies = open_galaxies(recipe.sources, split)

    def paint(
        self,
        cutout: np.ndarray,
        identifier: str,
        catalogue: Mapping[str, Any],
        trial: ArcTrial = FIRST_ARC,
    ) -> Painted:
        """Paint an arc on a cutout (bands, height, width).

        `catalogue` has at least `recipe.columns(bands)`. Raises CannotLensError for a host that is
        too light or too far away, and UserError for one without a PSF.
        """
        rng, psf, injection = self.draw(cutout, identifier, catalogue, trial)
        powers = -0.4 * (injection.magnitudes - self.zero_points)
        self._check_brightness(injection.magnitudes, powers)
        fluxes = 10**powers
        shape = cutout.shape[1], cutout.shape[2]
        arcs = paint_arcs(
            injection.lens, injection.sources, fluxes, shape, self.pixel_scale, psf.stamps
        )

        sky = arc_facts.noise_of(cutout)
        truth = _truth_of(injection, arcs.magnification)
        truth |= self._photometry(cutout, arcs.flux, sky, injection, psf)
        return Painted(
            pixels=add_arc(rng, cutout, arcs.flux, sky, self.gains),
            arc=arcs.flux,
            mask=arc_mask(arcs.flux, sky),
            truth=truth,
        )

    def _check_brightness(self, magnitudes: np.ndarray, powers: np.ndarray) -> None:
        """Raise UserError for a source, of a flux of ten to these powers, that is no galaxy."""
        if (powers + np.log10(self.gains)).max() < math.log10(MOST_ELECTRONS):
            return
        raise UserError(
            f"its source of magnitude {magnitudes.min():.4g} would send more than "
            f"{MOST_ELECTRONS:.0e} electrons, as no galaxy does; look at sources.magnitude, "
            "sources.colors, zero_point and gain, and for values such as -99 in the columns that "
            "they name"
        )

    def draw(
        self,
        cutout: np.ndarray,
        identifier: str,
        catalogue: Mapping[str, Any],
        trial: ArcTrial = FIRST_ARC,
    ) -> tuple[np.random.Generator, HostPsf, Injection]:
        """Draw what `paint` would paint, with the random numbers that come next, and the PSF."""
        rng = _random_numbers(self.recipe.seed, identifier, trial.number)
        psf = psf_at(self.recipe.psf, self.bands, self.pixel_scale, catalogue)
        host = self._look_at(cutout, psf, catalogue)
        return rng, psf, self._draw(rng, host, trial)

    def _look_at(
        self, cutout: np.ndarray, psf: HostPsf, catalogue: Mapping[str, Any]
    ) -> HostGalaxy:
        """Return what is known of the host: its light as the cutout shows it, and its catalogue.

        No redshift and no velocity dispersion is 0 or less: such values say that there is none.
        """
        law = self.recipe.deflector
        galaxy = measure_light(cutout, self.pixel_scale, psf.stamps)
        columns = {"sigma_v": law.sigma_v, "magnitude": law.magnitude, "z": law.z_lens}
        known = {
            name: number_in(catalogue, column)
            for name, column in columns.items()
            if isinstance(column, str)
        }
        for name in known.keys() & {"sigma_v", "z"}:
            known[name] = known[name] if known[name] > 0 else math.nan
        return replace(galaxy, **known)

    def _draw(self, rng: np.random.Generator, host: HostGalaxy, trial: ArcTrial) -> Injection:
        """Draw lens and sources by the recipe's laws, but for what is given."""
        deflector, sources = self.recipe.deflector, self.recipe.sources
        if trial.einstein_radius is not None:
            radius = ValueLaw(fixed=trial.einstein_radius)
            deflector = deflector.model_copy(update={"einstein_radius": radius})
        if trial.source_magnitude is not None:
            magnitude = SourceValue(fixed=trial.source_magnitude)
            sources = sources.model_copy(update={"magnitude": magnitude})
        return draw_injection(rng, host, deflector, sources, self.bands, self.galaxies)

    def _photometry(
        self,
        cutout: np.ndarray,
        arc: np.ndarray,
        sky: np.ndarray,
        injection: Injection,
        psf: HostPsf,
    ) -> dict[str, float]:
        """Return what is measured of source and arc in each band, by the names of the truth."""
        lens = injection.lens
        middle = lens.x, lens.y
        fluxes = arc.sum(axis=(1, 2))
        measured = {
            "source_mag": injection.source_magnitudes(),
            "arc_mag": arc_facts.magnitudes(fluxes, self.zero_points),
            "arc_snr": arc_facts.signal_to_noise(arc, cutout, sky, self.gains),
            "arc_to_host": arc_facts.flux_ratio(
                arc, cutout, middle, lens.theta_e, self.pixel_scale
            ),
            "seeing": np.array(psf.seeing),
        }
        return {
            f"{name}_{band}": float(value)
            for name, values in measured.items()
            for band, value in zip(self.bands, values, strict=True)
        }


def add_arc(
    rng: np.random.Generator,
    cutout: np.ndarray,
    arc: np.ndarray,
    sky: np.ndarray,
    gains: np.ndarray,
) -> np.ndarray:
    """Return a cutout with an arc and the arc's own photon noise; the host has its noise already.

    `cutout` and the noiseless `arc` are (bands, height, width), the sky's sigma and the gain in
    electrons per unit are (bands,). Pixels are the host's to the bit where the arc is fainter than
    NEGLIGIBLE of the sky's noise. Whole numbers are rounded, and all are cut at the end of their
    type.
    """
    gain = gains[:, None, None]
    brightened = cutout.astype(np.float64) + rng.poisson(np.maximum(arc, 0) * gain) / gain
    is_whole = np.issubdtype(cutout.dtype, np.integer)
    if is_whole:
        brightened = np.round(brightened)
    brightest = np.iinfo(cutout.dtype).max if is_whole else np.finfo(cutout.dtype).max
    brightened = np.minimum(brightened, brightest)

    is_arc = arc > NEGLIGIBLE * sky[:, None, None]
    return np.where(is_arc, brightened.astype(cutout.dtype), cutout)


def _truth_of(injection: Injection, magnification: float) -> dict[str, Any]:
    """Return what is true of lens and source, whatever the band."""
    lens, source = injection.lens, injection.sources[0]
    truth = {
        "einstein_radius": lens.theta_e,
        "z_lens": injection.z_lens,
        "z_source": injection.z_source,
        "sigma_v": injection.sigma_v,
        "q": lens.q,
        "phi": lens.phi,
        "gamma_1": lens.gamma_1,
        "gamma_2": lens.gamma_2,
        "source_x": source.x,
        "source_y": source.y,
        "source_radius": source.radius,
        "magnification": magnification,
    }
    return truth if injection.galaxy is None else truth | {SOURCE_ID: injection.galaxy}


def _random_numbers(seed: int, identifier: str, trial: int) -> np.random.Generator:
    """Return the random numbers of an arc, whatever the order in which hosts are painted."""
    digest = hashlib.blake2b(identifier.encode(), digest_size=8).digest()
    return np.random.default_rng([seed, int.from_bytes(digest, "little"), trial])
