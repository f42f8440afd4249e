"""What painting must know of fluxes stands in the recipe, or in the manifest of the hosts."""

from typing import Any

import pytest

from lens_hpc.dataset.manifest import Manifest, read_manifest
from lens_hpc.errors import UserError
from lens_hpc.packing.photometric_calibration import calibration
from tests.packing.injections import pack_galaxies, recipe_of


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(pack_galaxies(tmp_path_factory.mktemp("calibration")))


@pytest.mark.parametrize(
    ("changes", "of_dataset", "said"),
    [
        ({}, {"zero_point": {}}, "zero_point: that of g, i is unknown; give zero_point.g="),
        ({}, {"gain": {"g": 5.0, "i": None}}, "gain: that of i is unknown"),
        ({}, {"gain": {"g": 5.0, "i": -1.0}}, "gain: that of i is not above 0"),
        ({"psf": {"g": 0.8}}, {}, "psf: says nothing of i, bands of the hosts; it has g"),
        ({"sources": {"z": {"fixed": 2.0}, "band": "i", "magnitude": {"fixed": 24.0}}}, {}, "of g"),
    ],
)
def test_what_is_not_known_is_told(
    manifest: Manifest, changes: dict[str, Any], of_dataset: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        calibration(recipe_of(**changes), manifest.model_copy(update=of_dataset))


def test_the_recipe_says_what_the_dataset_does_not(manifest: Manifest) -> None:
    recipe = recipe_of(zero_point={"g": 30.0}, gain={"i": 7.0})
    zero_points, gains = calibration(recipe, manifest)
    assert zero_points.tolist() == [30.0, 27.0]
    assert gains.tolist() == [2000.0, 7.0]
