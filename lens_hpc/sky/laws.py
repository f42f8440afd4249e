"""Laws by which lenses and sources are drawn, as settings.

It imports neither torch nor caustics, so that settings can be checked at once.
"""

from typing import Annotated, ClassVar

import numpy as np
import yaml
from pydantic import Field, model_validator
from scipy.special import ndtr, ndtri

from lens_hpc.settings import FilePath, Settings

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class ValueLaw(Settings):
    """How a quantity is distributed: exactly one of fixed, uniform, normal and power."""

    is_one_value = True
    _laws: ClassVar[tuple[str, ...]] = ("fixed", "uniform", "normal", "power")

    fixed: float | None = None
    """Always this value."""
    uniform: tuple[float, float] | None = None
    """[low, high]."""
    normal: tuple[float, NotNegative] | None = None
    """[mean, sigma]."""
    within: tuple[float, float] | None = None
    """Where a normal distribution is cut off: [low, high]."""
    power: tuple[float, Positive, Positive] | None = None
    """[slope, low, high]: the density is proportional to the value to the power of slope."""

    @model_validator(mode="after")
    def _is_one_law(self) -> "ValueLaw":
        *names, last = self._laws
        if sum(getattr(self, name) is not None for name in self._laws) != 1:
            raise ValueError(f"give exactly one of {', '.join(names)} and {last}")
        if self.within and not self.normal:
            raise ValueError("within cuts off a normal distribution; give normal: [mean, sigma]")

        low, high = self.bounds()
        if low > high:
            raise ValueError(f"the low bound {low:g} must not lie above the high one, {high:g}")
        if self.within and self._cut_probabilities()[0] == self._cut_probabilities()[1]:
            raise ValueError("within holds next to nothing of the normal distribution; widen it")
        return self

    def bounds(self) -> tuple[float, float]:
        """Return the smallest and the largest value that can be drawn."""
        if self.fixed is not None:
            return self.fixed, self.fixed
        if self.power:
            return self.power[1:]
        return self.uniform or self.within or (-np.inf, np.inf)

    def __str__(self) -> str:
        given = self.model_dump(mode="json", exclude_none=True)
        return yaml.safe_dump(given, default_flow_style=True).strip()

    def draw(self, rng: np.random.Generator) -> float:
        """Draw a value."""
        if self.fixed is not None:
            return self.fixed
        if self.uniform:
            return rng.uniform(*self.uniform)
        if self.power:
            return _draw_power(rng, *self.power)
        return self._draw_normal(rng)

    def _draw_normal(self, rng: np.random.Generator) -> float:
        assert self.normal
        mean, sigma = self.normal
        if not self.within:
            return rng.normal(mean, sigma)
        if sigma == 0:
            return mean

        share = rng.uniform(*self._cut_probabilities())
        value = mean + sigma * float(ndtri(share))
        return float(np.clip(value, *self.within))

    def _cut_probabilities(self) -> tuple[float, float]:
        """Return what probability lies below `within`'s bounds in the normal distribution."""
        assert self.normal
        assert self.within
        mean, sigma = self.normal
        if sigma == 0:
            is_inside = self.within[0] <= mean <= self.within[1]
            return 0.0, float(is_inside)
        low, high = ((bound - mean) / sigma for bound in self.within)
        return float(ndtr(low)), float(ndtr(high))


def _draw_power(rng: np.random.Generator, slope: float, low: float, high: float) -> float:
    """Draw from a power law by the inverse of its cumulative distribution."""
    share = rng.uniform()
    if slope == -1:
        return low * (high / low) ** share
    exponent = slope + 1
    return (low**exponent + share * (high**exponent - low**exponent)) ** (1 / exponent)


class SourceValue(ValueLaw):
    """How a quantity of sources is distributed, or which column of source galaxies has it."""

    _laws = (*ValueLaw._laws, "column")

    column: str | None = None
    """Feature or kept column of the galaxies."""


class DeflectorLaw(Settings):
    """How heavy the hosts are, and of what shape: a singular isothermal ellipsoid and shear."""

    einstein_radius: ValueLaw | None = None
    """Arcsec; without it, the Einstein radius comes of velocity dispersion and redshifts."""
    sigma_v: str | None = None
    """Column of the velocity dispersion, km/s."""
    magnitude: str | None = None
    """Column of the magnitude in i (AB), which stands in where there is no velocity dispersion."""
    z_lens: str | ValueLaw | None = None
    """Column of the host's redshift, or how redshifts are distributed."""
    within: tuple[Positive, Positive] = (0.5, 3.0)
    """Einstein radii that come of velocity dispersions are drawn between these, arcsec."""
    q_scatter: NotNegative = 0.05
    """By how much the axis ratio of the mass differs from that of the light (sigma)."""
    angle_scatter: NotNegative = 0.1
    """By how much its position angle differs from that of the light (sigma), radians."""
    shear: NotNegative = 0.04
    """Of the Rayleigh distribution of the external shear (sigma)."""

    @model_validator(mode="after")
    def _is_complete(self) -> "DeflectorLaw":
        if self.within[0] > self.within[1]:
            raise ValueError("within must be [low, high]")
        if self.einstein_radius:
            if self.einstein_radius.bounds()[0] < 0:
                raise ValueError(
                    "einstein_radius must not be negative; cut it off with within: [low, high]"
                )
            return self
        if not (self.sigma_v or self.magnitude) or self.z_lens is None:
            raise ValueError(
                "give einstein_radius, or z_lens and the column sigma_v (or magnitude)"
            )
        return self

    def columns(self) -> list[str]:
        """Return the catalogue's columns that it reads."""
        columns = [self.sigma_v, self.magnitude, self.z_lens]
        return [column for column in columns if isinstance(column, str)]


class SourceLaw(Settings):
    """What lies behind the hosts: discs with star-forming clumps, or pictures of real galaxies."""

    z: SourceValue
    """Redshift: {fixed: 2}, {uniform: [1, 3]}, {normal: [2, 0.5], within: [1, 4]}, or a power law,
    {power: [slope, low, high]}, as magnitude, colors, radius, n and q are, too. With galaxies,
    {column: NAME} is the value of the galaxy that was drawn."""
    magnitude: SourceValue
    """AB magnitude in `band`, before lensing, of the whole source."""
    band: str
    """The reference band, one of the dataset's."""
    colors: dict[str, SourceValue] = Field(default={})
    """For each other band, the magnitude in it less that in the reference band."""
    galaxies: FilePath | None = None
    """Packed dataset of galaxies that are the sources, any row a source that is not labelled a
    lens: what stands out of the noise and hangs together with the middle, turned at random. Their
    own PSF is lensed with them, so that they must be deconvolved, or far sharper than the hosts."""
    galaxies_band: str | None = None
    """Band of the galaxies' pictures; null: the mean of all their bands."""
    radius: ValueLaw = ValueLaw(uniform=(0.12, 0.35))
    """Half-light radius of the disc, arcsec."""
    n: ValueLaw = ValueLaw(fixed=1.0)
    """Sersic index of the disc."""
    q: ValueLaw = ValueLaw(uniform=(0.4, 1.0))
    """Axis ratio of the disc."""
    clumps: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] = (1, 4)
    """Smallest and largest number of clumps."""
    within: NotNegative = 0.7
    """Largest distance from the lens's centre, in Einstein radii."""

    @model_validator(mode="after")
    def _is_possible(self) -> "SourceLaw":
        problems = []
        if self.radius.bounds()[0] <= 0:
            problems.append("radius must be above 0")
        if self.q.bounds()[0] <= 0 or self.q.bounds()[1] > 1:
            problems.append("q must lie above 0 and not above 1")
        if self.n.bounds()[0] < 0.3 or self.n.bounds()[1] > 8:
            problems.append("n must lie between 0.3 and 8")
        if self.clumps[0] > self.clumps[1]:
            problems.append("clumps must be [smallest, largest]")
        if self.band in self.colors:
            problems.append(f"colors must not name the reference band, {self.band}")
        problems += self._problems_of_galaxies()
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems_of_galaxies(self) -> list[str]:
        """Return which settings do not go with pictures of galaxies, or without."""
        if self.galaxies is None:
            problems = [
                f"{{column: {name}}} needs galaxies that have it" for name in self.columns()
            ]
            if self.galaxies_band is not None:
                problems.append("galaxies_band needs galaxies")
            return problems

        of_discs = ("radius", "n", "q", "clumps")
        fields = type(self).model_fields
        idle = [name for name in of_discs if getattr(self, name) != fields[name].default]
        if not idle:
            return []
        return [f"{', '.join(idle)}: galaxies have shapes of their own; leave it out"]

    def columns(self) -> list[str]:
        """Return the columns of the source galaxies that it reads, each once."""
        values = [self.z, self.magnitude, *self.colors.values()]
        names = [value.column for value in values if value.column is not None]
        return list(dict.fromkeys(names))
