"""The recipe of an injection is checked at once; what is said beside its file goes first."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lens_hpc.errors import UserError
from lens_hpc.packing.injection_recipe import InjectionRecipe, load_recipe
from tests.packing.injections import BANDS, RECIPE, recipe_of, write_recipe

SHIPPED = sorted((Path(__file__).parents[2] / "configs" / "inject").glob("*.yaml"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_recipes_are_sound(file: Path) -> None:
    recipe = load_recipe(file)
    named = {recipe.sources.band, *recipe.sources.colors}
    assert set(recipe.psf) == named


def test_there_is_a_recipe_for_each_survey() -> None:
    assert {"demo", "hsc_wide", "des", "euclid_vis", "lsst"} <= {file.stem for file in SHIPPED}


def test_changes_go_before_the_file(tmp_path: Path) -> None:
    file = write_recipe(tmp_path / "r.yaml", seed=3, share=0.2)
    recipe = load_recipe(file, {"share": 0.9})
    assert (recipe.seed, recipe.share) == (3, 0.9)


def test_all_columns_that_arcs_depend_on_are_named() -> None:
    psf = {"g": "psf/{tile}_{band}.fits", "i": {"column": "seeing_i"}}
    assert recipe_of(psf=psf).columns(BANDS) == ["sigma_v", "z", "tile", "seeing_i"]
    free = {"einstein_radius": {"fixed": 1.0}, "z_lens": {"fixed": 0.4}}
    assert recipe_of(psf={"i": 0.7}, deflector=free).columns(BANDS) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"share": 0}, "share"),
        ({"share": 1.2}, "share"),
        ({"psf": {}}, "psf"),
        ({"psf": {"i": -0.7}}, "psf"),
        ({"gain": {"i": -5}}, "gain"),
        ({"gain": {"u": 5}}, "no band of psf: g, i"),
        ({"zero_point": {"I": 27}}, "no band of psf: g, i"),
        ({"others": "lens"}, "others"),
        ({"splits": []}, "splits"),
        ({"pixels": "stretched"}, "pixels"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        InjectionRecipe.model_validate(RECIPE | changes)


def test_all_problems_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    file = write_recipe(tmp_path / "r.yaml", share=2, seeds=1)
    with pytest.raises(UserError, match="2 problems") as told:
        load_recipe(file)
    assert "r.yaml" in str(told.value)
    assert "did you mean seed?" in str(told.value)
