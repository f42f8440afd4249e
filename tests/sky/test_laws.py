from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest, norm, truncnorm

from lens_hpc.errors import UserError
from lens_hpc.settings import dump, load
from lens_hpc.sky.laws import DeflectorLaw, SourceLaw, SourceValue, ValueLaw

# A right law fails a test by chance less often than this.
CHANCE = 1e-6


def draws(**law: Any) -> np.ndarray:
    rng = np.random.default_rng(0)
    distribution = ValueLaw(**law)
    values = np.array([distribution.draw(rng) for _ in range(4000)])
    low, high = distribution.bounds()
    assert low <= values.min() <= values.max() <= high
    return values


def test_values_follow_their_distribution() -> None:
    assert set(draws(fixed=1.5)) == {1.5}
    assert kstest(draws(uniform=(2, 3)), "uniform", (2, 1)).pvalue > CHANCE
    assert kstest(draws(normal=(1, 0.3)), norm(1, 0.3).cdf).pvalue > CHANCE
    cut = truncnorm(-2, 1, loc=1, scale=0.5)
    assert kstest(draws(normal=(1, 0.5), within=(0, 1.5)), cut.cdf).pvalue > CHANCE


@pytest.mark.parametrize("slope", [-3.0, -1.0, 0.0, 2.5])
def test_a_power_law_has_its_slope(slope: float) -> None:
    values = draws(power=(slope, 0.5, 2.0))
    grid = np.linspace(0.5, 2, 20_001)
    density = grid**slope
    cumulative = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    cumulative /= cumulative[-1]
    assert kstest(values, lambda value: np.interp(value, grid, cumulative)).pvalue > CHANCE


@pytest.mark.parametrize(
    ("law", "told"),
    [
        ("{}", "exactly one of fixed, uniform, normal, power and column"),
        ("{fixed: 1, uniform: [1, 2]}", "exactly one of fixed"),
        ("{uniform: [1, 2], within: [1, 2]}", "within cuts off a normal distribution"),
        ("{uniform: [2, 1]}", "low bound 2 must not lie above the high one, 1"),
        ("{normal: [0, 1], within: [50, 51]}", "next to nothing"),
        ("{normal: [0, -1]}", "greater than or equal to 0"),
        ("{power: [1, 0, 1]}", "greater than 0"),
    ],
)
def test_a_distribution_that_is_none_is_refused(law: str, told: str) -> None:
    settings = ["band=i", "z.fixed=2", f"magnitude={law}"]
    with pytest.raises(UserError, match=f"(?s)magnitude.*{told}"):
        load(SourceLaw, overrides=settings)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"radius": {"fixed": 0}}, "radius must be above 0"),
        ({"q": {"uniform": [0.5, 1.2]}}, "q must lie above 0"),
        ({"n": {"normal": [4, 1]}}, "n must lie between"),
        ({"clumps": [3, 2]}, "clumps must be"),
        ({"colors": {"i": {"fixed": 0}}}, "must not name the reference band"),
    ],
)
def test_a_source_that_cannot_be_is_refused(settings: dict[str, Any], told: str) -> None:
    values = {"band": "i", "z": {"fixed": 2}, "magnitude": {"fixed": 24}} | settings
    with pytest.raises(UserError, match=told):
        load(SourceLaw, values=values)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "give einstein_radius, or z_lens and"),
        ({"sigma_v": "vdisp"}, "give einstein_radius, or z_lens and"),
        ({"einstein_radius": {"normal": [1, 0.2]}}, "must not be negative"),
        ({"einstein_radius": {"fixed": 1}, "within": [3, 1]}, "within must be"),
    ],
)
def test_a_deflector_that_says_too_little_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        load(DeflectorLaw, values=settings)


def test_laws_are_read_back_as_they_were_written(tmp_path: Any) -> None:
    law = SourceLaw(
        z=SourceValue(normal=(2, 0.5), within=(1, 4)),
        magnitude=SourceValue(power=(3, 22, 26)),
        band="i",
        colors={"g": SourceValue(column="g_i")},
        galaxies=tmp_path / "galaxies",
    )
    file = tmp_path / "law.yaml"
    file.write_text(dump(law))
    assert load(SourceLaw, file) == law


def test_the_columns_of_a_deflector_are_those_that_it_reads() -> None:
    law = DeflectorLaw(sigma_v="vdisp", magnitude="mag_i", z_lens="z")
    assert law.columns() == ["vdisp", "mag_i", "z"]
    assert DeflectorLaw(einstein_radius=ValueLaw(fixed=1)).columns() == []


def source_law(**changes: Any) -> SourceLaw:
    law = {"z": {"fixed": 2}, "magnitude": {"fixed": 24}, "band": "i"}
    return load(SourceLaw, values=law | changes)


def test_the_columns_of_source_galaxies_are_named_once() -> None:
    colors = {"g": {"column": "g_i"}, "r": {"column": "z"}}
    law = source_law(galaxies="cosmos", z={"column": "z"}, colors=colors)
    assert law.columns() == ["z", "g_i"]
    assert source_law().columns() == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"z": {"column": "z"}}, "{column: z} needs galaxies that have it"),
        ({"galaxies_band": "i"}, "galaxies_band needs galaxies"),
        (
            {"galaxies": "cosmos", "n": {"fixed": 2}, "clumps": [0, 0]},
            "n, clumps: galaxies have shapes of their own; leave it out",
        ),
        ({"galaxies": "cosmos", "z": {"column": "z", "fixed": 2}}, "z: give exactly one of fixed"),
        ({"galaxies": "cosmos", "radius": {"column": "size"}}, "radius.column = size: unknown"),
    ],
)
def test_galaxies_and_discs_are_not_mixed(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as error:
        source_law(**changes)
    assert told in str(error.value)
