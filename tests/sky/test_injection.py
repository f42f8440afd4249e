import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM
from scipy.stats import kstest

from lens_hpc.errors import UserError
from lens_hpc.sky.camera import Camera
from lens_hpc.sky.deflection import einstein_radius
from lens_hpc.sky.injection import (
    CannotLensError,
    HostGalaxy,
    Injection,
    draw_injection,
    measure_light,
)
from lens_hpc.sky.laws import DeflectorLaw, SourceLaw, SourceValue, ValueLaw
from lens_hpc.sky.light import Light
from lens_hpc.sky.pictured_source import Picture, PicturedSource, cut_out_galaxy
from lens_hpc.sky.psf import moffat_stamp, pad_stamps
from tests.sky.components import draw_picture, light

BANDS = ("g", "r", "i")
HOST = HostGalaxy(x=0.05, y=-0.1, q=0.7, phi=0.4, z=0.5, sigma_v=260.0, magnitude=19.0)
FROM_DISPERSION = DeflectorLaw(sigma_v="vdisp", z_lens="z")
SOURCES = SourceLaw(
    z=SourceValue(normal=(2, 0.5), within=(0.3, 4)),
    magnitude=SourceValue(normal=(24.4, 0.7)),
    band="i",
    colors={"g": SourceValue(fixed=0.5), "r": SourceValue(normal=(0.2, 0.1))},
)


def draw(
    seed: int,
    host: HostGalaxy = HOST,
    deflector: DeflectorLaw = FROM_DISPERSION,
    sources: SourceLaw = SOURCES,
) -> Injection:
    return draw_injection(np.random.default_rng(seed), host, deflector, sources, BANDS)


# ---- the light of hosts ----


def random_galaxy(rng: np.random.Generator) -> Light:
    return light(
        x=rng.normal(0, 0.1),
        y=rng.normal(0, 0.1),
        q=rng.uniform(0.45, 0.95),
        phi=rng.uniform(0, math.pi),
        n=rng.uniform(1, 4.5),
        radius=rng.uniform(0.5, 1.5),
        mag_i=rng.uniform(18, 20),
    )


def neighbours(rng: np.random.Generator) -> list[Light]:
    """Galaxies nearby, one of them nearly as bright as the host."""
    lights = []
    for mag_i in (20.0, 22.0, 23.0):
        angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(3, 5)
        x, y = distance * math.cos(angle), distance * math.sin(angle)
        lights.append(light(x=x, y=y, radius=0.3, mag_i=mag_i, phi=rng.uniform(0, math.pi)))
    return lights


@pytest.mark.parametrize("has_neighbours", [False, True])
def test_centre_and_shape_of_a_galaxy_are_measured(camera: Camera, has_neighbours: bool) -> None:
    """With noise, over random galaxies, whichever their profile."""
    psf = pad_stamps([moffat_stamp(fwhm, camera.pixel_scale) for fwhm in camera.seeing])
    rng = np.random.default_rng(0)
    shape_errors = []
    for _ in range(30):
        galaxy = random_galaxy(rng)
        around = neighbours(rng) if has_neighbours else []
        cutout = camera.record(rng, camera.expose([galaxy, *around]))
        host = measure_light(cutout, camera.pixel_scale, psf)

        # A fifth of a pixel.
        assert host.x == pytest.approx(galaxy.x, abs=0.0336)
        assert host.y == pytest.approx(galaxy.y, abs=0.0336)
        shape_errors.append(
            np.abs(ellipticity(host.q, host.phi) - ellipticity(galaxy.q, galaxy.phi))
        )

    # The mass follows the light with a scatter of about 0.03.
    assert np.median(shape_errors) < 0.03
    assert np.max(shape_errors) < 0.12


def ellipticity(q: float, phi: float) -> np.ndarray:
    """Both components: the angle of a round galaxy means nothing."""
    size = (1 - q) / (1 + q)
    return size * np.array([math.cos(2 * phi), math.sin(2 * phi)])


def test_without_its_psf_a_galaxy_looks_rounder(camera: Camera) -> None:
    galaxy = light(q=0.5, radius=0.5, n=0.5, mag_i=18.0)
    cutout = camera.record(np.random.default_rng(0), camera.expose([galaxy]))
    psf = pad_stamps([moffat_stamp(fwhm, camera.pixel_scale) for fwhm in camera.seeing])
    assert measure_light(cutout, camera.pixel_scale).q > 0.6
    assert measure_light(cutout, camera.pixel_scale, psf).q == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("cutout", [np.zeros((2, 20, 20)), np.full((1, 9, 11), np.nan)])
def test_where_there_is_no_galaxy_it_is_round_and_in_the_middle(cutout: np.ndarray) -> None:
    assert measure_light(cutout, 0.2) == HostGalaxy(0.0, 0.0, 1.0, 0.0)


# ---- what is drawn ----


def test_the_einstein_radius_comes_of_velocity_dispersion_and_redshifts() -> None:
    for seed in range(50):
        drawn = draw(seed)
        expected = einstein_radius(HOST.sigma_v, HOST.z, drawn.z_source)
        assert drawn.lens.theta_e == pytest.approx(expected)
        assert drawn.sigma_v == pytest.approx(HOST.sigma_v)
        assert drawn.z_lens == HOST.z < drawn.z_source
        assert 0.5 <= drawn.lens.theta_e <= 3.0


def test_the_mass_follows_the_light_and_the_source_lies_near_it() -> None:
    drawn = [draw(seed) for seed in range(400)]
    assert {(injection.lens.x, injection.lens.y) for injection in drawn} == {(HOST.x, HOST.y)}
    # Means of 400 lie within six standard errors.
    q = np.array([injection.lens.q for injection in drawn])
    phi = np.array([injection.lens.phi for injection in drawn])
    assert q.mean() == pytest.approx(HOST.q, abs=6 * 0.05 / 20)
    assert phi.mean() == pytest.approx(HOST.phi, abs=6 * 0.1 / 20)

    offsets = [
        math.hypot(injection.sources[0].x - HOST.x, injection.sources[0].y - HOST.y)
        / injection.lens.theta_e
        for injection in drawn
    ]
    # As many in equal areas: half of them within 0.7 / sqrt(2).
    within_half = np.mean(np.array(offsets) < 0.7 / math.sqrt(2))
    assert within_half == pytest.approx(0.5, abs=6 * 0.5 / 20)
    assert max(offsets) <= 0.7


def test_disc_and_clumps_together_have_the_magnitude_and_the_color_of_the_law() -> None:
    sources = SOURCES.model_copy(update={"magnitude": SourceValue(fixed=24.0), "clumps": (2, 4)})
    for seed in range(20):
        drawn = draw(seed, sources=sources)
        assert 3 <= len(drawn.sources) == len(drawn.magnitudes) <= 5
        total = drawn.source_magnitudes()
        assert total[2] == pytest.approx(24.0)
        assert total[0] == pytest.approx(24.5)
        # Clumps are fainter than their disc.
        assert (drawn.magnitudes[1:] > drawn.magnitudes[0] + 1.49).all()


def test_a_law_of_einstein_radii_needs_nothing_of_the_host() -> None:
    unknown = HostGalaxy(x=0.0, y=0.0, q=1.0, phi=0.0)
    fixed = DeflectorLaw(einstein_radius=ValueLaw(fixed=7.5))
    drawn = draw(0, unknown, fixed)
    # Bounds are those of radii that come of velocity dispersions.
    assert drawn.lens.theta_e == 7.5
    assert math.isnan(drawn.sigma_v)


def test_a_magnitude_stands_in_where_there_is_no_velocity_dispersion() -> None:
    law = DeflectorLaw(sigma_v="vdisp", magnitude="mag_i", z_lens="z")
    assert draw(0, HOST, law).sigma_v == pytest.approx(HOST.sigma_v)

    # Brighter ellipticals are heavier: -0.102 dex a magnitude, with a scatter of 0.07.
    law = law.model_copy(update={"within": (1e-3, 20.0)})
    dex = {}
    for magnitude in (18.0, 20.0):
        host = replace(HOST, sigma_v=math.nan, magnitude=magnitude)
        dex[magnitude] = np.log10([draw(seed, host, law).sigma_v for seed in range(400)])
    error = 0.07 / 20
    assert dex[18.0].mean() - dex[20.0].mean() == pytest.approx(0.204, abs=6 * error * 1.5)
    assert dex[18.0].std() == pytest.approx(0.07, abs=6 * error)


@pytest.mark.parametrize(
    "host",
    [
        replace(HOST, sigma_v=40.0),  # too light
        replace(HOST, sigma_v=900.0),  # too heavy
        replace(HOST, z=4.5),  # behind all sources
        replace(HOST, z=-0.1),
    ],
)
def test_a_host_that_cannot_lens_is_told(host: HostGalaxy) -> None:
    with pytest.raises(CannotLensError, match=r"choose heavier hosts, or change deflector\.within"):
        draw(0, host)


def test_redshifts_that_are_none_are_not_drawn() -> None:
    of_lenses = DeflectorLaw(einstein_radius=ValueLaw(fixed=1), z_lens=ValueLaw(normal=(0.1, 0.3)))
    assert min(draw(seed, deflector=of_lenses).z_lens for seed in range(40)) > 0

    of_sources = SOURCES.model_copy(update={"z": SourceValue(normal=(0.1, 0.5))})
    without_z = DeflectorLaw(einstein_radius=ValueLaw(fixed=1))
    drawn = [draw(seed, deflector=without_z, sources=of_sources) for seed in range(40)]
    assert min(one.z_source for one in drawn) > 0


def test_sources_may_lie_as_far_as_galaxies_do() -> None:
    far = SOURCES.model_copy(update={"z": SourceValue(fixed=8)})
    law = DeflectorLaw(einstein_radius=ValueLaw(fixed=1), z_lens=ValueLaw(fixed=6))
    distances = FlatLambdaCDM(H0=70, Om0=0.3).comoving_distance([6, 8]).value
    sigma_v = draw(0, deflector=law, sources=far).sigma_v
    squared_beta = math.radians(1 / 3600) / (4 * math.pi * (1 - distances[0] / distances[1]))
    assert sigma_v == pytest.approx(299_792.458 * math.sqrt(squared_beta), rel=1e-4)


def test_a_host_of_which_too_little_is_known_is_told() -> None:
    with pytest.raises(UserError, match="redshift, z, is not known"):
        draw(0, replace(HOST, z=math.nan))
    with pytest.raises(UserError, match="neither velocity dispersion nor magnitude"):
        draw(0, replace(HOST, sigma_v=math.nan))


def test_the_same_numbers_give_the_same_arc() -> None:
    one, same, other = draw(3), draw(3), draw(4)
    assert one.lens == same.lens
    assert [source.x for source in one.sources] == [source.x for source in same.sources]
    assert one.lens != other.lens


# ---- sources that are real galaxies ----


class Galaxy(NamedTuple):
    """A row of a catalogue, with a picture unless its size is 0."""

    name: str
    values: dict[str, float]

    def value(self, column: str) -> float:
        return self.values[column]

    def picture(self) -> Picture | None:
        size = self.values["size"]
        if not size:
            return None
        return cut_out_galaxy(draw_picture([light(radius=size)], 0.05, 61), 0.05)


class Galaxies:
    """Redshift, magnitude, colour and size all tell which row it is."""

    def __init__(self, blank: bool = False) -> None:
        self.rows = [
            Galaxy(f"s{row}", {"z": 0.2 * row, "mag": 24 + row, "g_i": row, "size": 0.1 + row / 50})
            for row in range(10)
        ]
        for row in self.rows[6:] if blank else []:
            row.values["size"] = 0.0

    def draw(self, rng: np.random.Generator) -> Galaxy:
        return self.rows[rng.integers(10)]


OF_GALAXIES = SourceLaw(
    z=SourceValue(column="z"),
    magnitude=SourceValue(column="mag"),
    band="i",
    colors={"g": SourceValue(column="g_i"), "r": SourceValue(fixed=0.1)},
    galaxies=Path("galaxies"),
)


def draw_galaxies(seed: int, galaxies: Galaxies, law: SourceLaw = OF_GALAXIES) -> Injection:
    deflector = DeflectorLaw(einstein_radius=ValueLaw(fixed=1.0), z_lens="z")
    rng = np.random.default_rng(seed)
    return draw_injection(rng, HOST, deflector, law, BANDS, galaxies)


def test_redshift_magnitude_colour_and_picture_are_of_one_galaxy() -> None:
    galaxies = Galaxies()
    drawn = [draw_galaxies(seed, galaxies) for seed in range(60)]
    # Those behind the host, z = 0.5, all of them.
    assert {one.galaxy for one in drawn} == {f"s{row}" for row in range(3, 10)}
    for one in drawn:
        assert one.galaxy is not None
        row = int(one.galaxy[1:])
        assert one.z_source == pytest.approx(0.2 * row)
        np.testing.assert_allclose(one.source_magnitudes(), [24 + 2 * row, 24.1 + row, 24 + row])
        [source] = one.sources
        picture = galaxies.rows[row].picture()
        assert picture is not None
        assert source.radius == picture.radius
        assert math.hypot(source.x - one.lens.x, source.y - one.lens.y) <= 0.7


def test_galaxies_are_turned_by_any_angle() -> None:
    galaxies = Galaxies()
    angles = []
    for seed in range(200):
        [source] = draw_galaxies(seed, galaxies).sources
        assert isinstance(source, PicturedSource)
        angles.append(source.angle / (2 * math.pi))
    assert kstest(angles, "uniform").pvalue > 1e-6


def test_a_galaxy_without_a_picture_is_passed_over() -> None:
    drawn = [draw_galaxies(seed, Galaxies(blank=True)).galaxy for seed in range(30)]
    assert {*drawn} == {"s3", "s4", "s5"}


def test_a_magnitude_of_ones_own_goes_before_the_catalogue() -> None:
    law = OF_GALAXIES.model_copy(update={"magnitude": SourceValue(fixed=22.5)})
    drawn = draw_galaxies(0, Galaxies(), law)
    assert drawn.galaxy is not None
    expected = [22.5 + int(drawn.galaxy[1:]), 22.6, 22.5]
    np.testing.assert_allclose(drawn.source_magnitudes(), expected)
