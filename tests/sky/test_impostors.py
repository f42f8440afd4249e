import math

import numpy as np
import pytest

from lens_hpc.sky.galaxies import Scene
from lens_hpc.sky.impostors import MAGNITUDES_FAINTER, NON_LENSES, RADII, draw_non_lens
from lens_hpc.sky.lenses import VisibleLens


def test_every_class_of_non_lens_is_drawn(lens: VisibleLens) -> None:
    rng = np.random.default_rng(2)
    drawn = [draw_non_lens(rng, lens) for _ in range(100)]
    assert {name for name, _ in drawn} == set(NON_LENSES)
    assert all(scene.lens is None for _, scene in drawn)
    assert sum(impostor.share for impostor in NON_LENSES.values()) == pytest.approx(1)


@pytest.mark.parametrize("name", ["elliptical_companions", "elliptical_shells", "ring", "merger"])
def test_what_looks_like_arcs_lies_where_the_arcs_would_be(lens: VisibleLens, name: str) -> None:
    rng = np.random.default_rng(2)
    radii = np.concatenate([radii_of(scene(rng, name, lens), name) for _ in range(300)])
    shares = radii / lens.mass.theta_e
    assert RADII[0] <= shares.min() < 0.87
    assert 1.33 < shares.max() <= RADII[1]


@pytest.mark.parametrize("name", ["elliptical_companions", "elliptical_shells", "ring"])
def test_what_looks_like_arcs_is_about_as_bright_as_they_would_be(
    lens: VisibleLens, name: str
) -> None:
    rng = np.random.default_rng(2)
    magnitudes = []
    for _ in range(300):
        _, *others = scene(rng, name, lens).lights
        flux = sum(float(light.flux(("i",))) for light in others)
        magnitudes.append(27 - 2.5 * math.log10(flux))
    fainter = np.mean(magnitudes) - lens.arcs_mag_i()
    assert fainter == pytest.approx(MAGNITUDES_FAINTER, abs=0.1)
    assert np.std(magnitudes) == pytest.approx(0.4, abs=0.06)


def test_components_of_one_color_differ_in_the_others(lens: VisibleLens) -> None:
    """Or any blend of them would lie on the same line, and the arcs would not."""
    rng = np.random.default_rng(2)
    bends = []
    for name in NON_LENSES:
        bends += [light.bend for light in scene(rng, name, lens).lights]
    assert len(set(bends)) > len(NON_LENSES)
    assert len({light.bend for light in lens.sources}) == 1
    assert lens.sources[0].bend != lens.galaxy.light.bend


def scene(rng: np.random.Generator, name: str, lens: VisibleLens) -> Scene:
    return NON_LENSES[name].draw(rng, lens)


def radii_of(drawn: Scene, name: str) -> list[float]:
    """Return how far from the galaxy the companions, the partner or the ring lie, arcsec."""
    host, *others = drawn.lights
    if name in {"ring", "elliptical_shells"}:
        return [light.radius for light in others]
    if name == "merger":
        others = others[:1]
    return [math.hypot(light.x - host.x, light.y - host.y) for light in others]
