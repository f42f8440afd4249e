"""inject from the terminal and from Python: settings given beside a recipe go before it."""

from pathlib import Path

import pytest

import lens_hpc
from lens_hpc import cli, verbs
from lens_hpc.errors import UserError
from tests.packing.injections import pack_galaxies, write_recipe


def settings_of(tmp_path: Path, *overrides: str) -> object:
    recipe = write_recipe(tmp_path / "r.yaml", share=0.25)
    words = [f"output={tmp_path / 'o'}", f"recipe={recipe}", *overrides]
    return verbs.read_settings("inject", [tmp_path / "d"], words)


def test_what_is_given_goes_before_the_file(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "seed=4", "sources.magnitude={fixed: 25}")
    assert (settings.seed, settings.share) == (4, 0.25)
    assert settings.sources.magnitude.fixed == 25
    assert settings.sources.band == "i"

    settings = settings_of(tmp_path, "psf.g=0.9", "gain.i=5")
    assert settings.psf["g"] == 0.9
    assert settings.psf["i"].column == "seeing_i"
    assert settings.gain == {"i": 5}


def test_a_typo_is_told_with_what_was_meant(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sead = 4: unknown setting; did you mean seed"):
        settings_of(tmp_path, "sead=4")
    with pytest.raises(UserError, match=r"psf\.i"):
        settings_of(tmp_path, "psf.i=-1")


def test_a_recipe_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="recipe: missing"):
        verbs.read_settings("inject", [tmp_path], [f"output={tmp_path / 'o'}"])


def test_help_tells_all_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inject", "--help", "all"]) == 0
    told = capsys.readouterr().out
    for key in (
        "recipe",
        "share",
        "psf",
        "deflector.einstein_radius",
        "sources.magnitude",
        "known",
    ):
        assert f"\n  {key} = " in told


@pytest.mark.slow
def test_python_has_it_too_and_figures_lie_beside_the_dataset(tmp_path: Path) -> None:
    packed = pack_galaxies(tmp_path, rows=20)
    recipe = write_recipe(tmp_path / "r.yaml")
    options = {"output": tmp_path / "o", "recipe": recipe, "processes": 2}
    injected = lens_hpc.inject(packed, **options)
    assert repr(injected).endswith("8 hosts with an arc>")
    sheet = tmp_path / "o" / "injection_sheet.png"
    assert (tmp_path / "o" / "injection.png").is_file()

    # A figure that was lost is drawn again.
    sheet.unlink()
    lens_hpc.inject(packed, **options)
    assert sheet.is_file()
