"""Hosts, a run and a recipe, as small as they can be."""

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import pack_survey, write_survey
from tests.predicting.small_runs import make_run

RECIPE = """
where: label == 0
psf: {g: 0.6, r: 0.5, y: 0.4}
zero_point: {g: 27, r: 27}
gain: {g: 100, r: 100}
deflector:
  einstein_radius: {fixed: 1}
  z_lens: {uniform: [0.3, 0.6]}
sources:
  z: {fixed: 2}
  magnitude: {fixed: 23}
  band: r
  colors: {g: {fixed: 0.3}}
"""


class Case(NamedTuple):
    run: Path
    hosts: Path
    recipe: Path


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A run without a result; a test that writes into it names its results."""
    folder = tmp_path_factory.mktemp("selection")
    survey = write_survey(folder / "survey", rows=160, size=24)
    hosts = pack_survey(survey, folder / "hosts")
    (folder / "recipe.yaml").write_text(RECIPE)
    # Weights of most other seeds see no pixels.
    run = make_run(folder / "run", hosts, seed=2, inputs="image")
    return Case(run, hosts, folder / "recipe.yaml")
