from pathlib import Path

import pytest
from pydantic import ValidationError

from lens_hpc.errors import UserError
from lens_hpc.sky.mock_survey import MockSurvey
from lens_hpc.verbs import simulate
from tests.conftest import call


@pytest.mark.parametrize("tiles", ["1x1", "2x2", "3x12", "99x1"])
def test_tiles_are_rows_x_columns(tiles: str) -> None:
    assert simulate.Settings.model_validate({"out": "s", "tiles": tiles}).tiles == tiles


@pytest.mark.parametrize(
    "tiles", ["2", "2x", "x2", "2x2x2", "0x2", "2x0", "-1x2", "2X2", "2 x 2", "two", "100x1", 2, ""]
)
def test_other_tiles_are_refused(tiles: object) -> None:
    with pytest.raises(ValidationError, match="ROWSxCOLUMNS of 1 to 99 each, such as 2x2"):
        simulate.Settings.model_validate({"out": "s", "tiles": tiles})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tiles=2"], "tiles.*such as 2x2: got 2"),
        # YAML reads a hexadecimal number.
        (["tiles=0x2"], "tiles.*such as 2x2: got 2"),
        (["tile_size=400"], "tile_size is of mosaics: give tiles, too"),
        (["tiles=1x2", "tile_size=400"], "tile_size=400: 1x2 such tiles have no room for 4,000"),
        (["tiles=1x1", "size=32"], r"must be at least 4\.8 arcsec"),
    ],
)
def test_mosaics_that_cannot_be_are_refused_before_anything_is_written(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        call("simulate", tmp_path / "s", *overrides)
    assert list(tmp_path.iterdir()) == []


def test_the_end_says_how_to_go_on() -> None:
    cutouts = simulate.text(MockSurvey(Path("s"), objects=4000, lenses=4))
    assert cutouts.startswith("s: 4,000 objects, 4 of them lenses. Pack it")
    assert "lens-hpc pack s/recipe.yaml source=s output=FOLDER" in cutouts
    assert "predict" not in cutouts

    mosaics = simulate.text(MockSurvey(Path("s"), objects=4000, lenses=4, tiles=4))
    assert "on 4 tiles" in mosaics
    assert "lens-hpc pack s/recipe.yaml source=s output=FOLDER" in mosaics
    assert "lens-hpc predict RUN s/recipe.yaml source=s output=FOLDER" in mosaics


@pytest.mark.slow
def test_it_makes_mosaics(tmp_path: Path) -> None:
    settings = ("objects=6", "prevalence=0.2", "tiles=1x2", "tile_size=400", "processes=1")
    survey = call("simulate", tmp_path / "s", "survey=hsc", "bands=[r, z]", *settings)
    assert survey == MockSurvey(tmp_path / "s", objects=6, lenses=1, tiles=2)

    written = {str(path.relative_to(survey.folder)) for path in survey.folder.rglob("*.*")}
    tables = {"catalogue.parquet", "truth.csv", "recipe.yaml"}
    tiles = {f"tiles/{tile}/{band}.fits" for tile in ("0-0", "0-1") for band in "rz"}
    assert written == tables | tiles
