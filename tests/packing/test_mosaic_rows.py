import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lens_hpc.errors import UserError
from lens_hpc.packing import mosaic_rows
from lens_hpc.packing.cells import CatalogueTable, from_frame
from lens_hpc.packing.mosaic_rows import PlacedRows, RowPlacer, place_rows
from lens_hpc.packing.mosaic_tiles import find_tiles
from tests.packing.mosaic_surveys import make_header, make_recipe, noise, positions_in, write_mosaic

SHAPE = (100, 120)
CENTRES = {"a": (150.1, 2.2), "b": (150.0, 2.2)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for tile, centre in CENTRES.items():
        for band in "gr":
            path = tmp_path / tile / f"{band}.fits"
            write_mosaic(path, noise(SHAPE), make_header(SHAPE, centre))
    return tmp_path


def table_of(*rows: tuple[object, ...]) -> CatalogueTable:
    """Return a catalogue of right ascensions, declinations and tiles, as texts."""
    texts = [[str(cell) for cell in row] for row in rows]
    return from_frame(pd.DataFrame(texts, columns=["ra", "dec", "tile"][: len(rows[0])]))


def place(source: Path, table: CatalogueTable, **mosaics: Any) -> PlacedRows:
    recipe = make_recipe(mosaics={"path": "{tile}/{band}.fits", **mosaics})
    return place_rows(recipe, table, source)


A = CENTRES["a"]


@pytest.mark.parametrize("tile", [None, "tile"])
def test_rows_get_the_files_of_their_tile(source: Path, tile: str | None) -> None:
    placed = place(source, table_of((*A, "a"), (*CENTRES["b"], "b")), tile=tile)
    assert placed.bad == {}
    assert placed.paths.tolist() == [["a/g.fits", "a/r.fits"], ["b/g.fits", "b/r.fits"]]
    np.testing.assert_array_equal(placed.positions, list(CENTRES.values()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("", 2.2), r"ra is missing; it must be a number in degrees"),
        (("nan", 2.2), r"ra = 'nan' is no position"),
        ((150.1, "nan"), r"dec = 'nan' is no position"),
        (("10:00:24", 2.2), r"ra = '10:00:24' is no position; it must be a number in degrees"),
        ((361.0, 2.2), r"ra = '361\.0' is no position"),
        ((150.1, -90.5), r"dec = '-90\.5' is no position"),
        (("inf", 2.2), r"ra = 'inf' is no position"),
        ((20.0, 2.2), r"lies on no tile: position 20\.000000 \+2\.200000 degrees"),
    ],
)
def test_a_row_without_a_place_is_listed(
    source: Path, row: tuple[object, object], reason: str
) -> None:
    placed = place(source, table_of(row, A))
    assert list(placed.bad) == [0]
    assert re.search(reason, placed.bad[0])
    assert placed.paths.tolist() == [["", ""], ["a/g.fits", "a/r.fits"]]


def test_a_row_outside_of_the_tile_that_it_names_is_listed(source: Path) -> None:
    placed = place(source, table_of((*A, "b"), (*A, "a"), (*A, "c"), (*A, "")), tile="tile")
    assert list(placed.bad) == [2, 3, 0]
    assert "lies outside of its tile b: position 150.100000 +2.200000" in placed.bad[0]
    assert "the middle of " in placed.bad[0]
    assert placed.bad[2] == "tile = 'c': no file is of that tile; there are a; b"
    assert placed.bad[3] == "tile names no tile; there are a; b"


def test_names_of_tiles_that_are_all_others_are_told(source: Path) -> None:
    with pytest.raises(UserError, match=r"tile = '1' \(mosaics\.tile\): no row names a tile"):
        place(source, table_of((*A, "1"), (*A, "2")), tile="tile")


def test_a_tile_without_a_band_is_told(source: Path) -> None:
    (source / "b" / "r.fits").unlink()
    placed = place(source, table_of(A, CENTRES["b"]))
    assert placed.bad == {1: "tile b has no file of band r: nothing fits {tile}/{band}.fits"}


def test_a_tile_of_which_nobody_knows_where_it_lies_is_told(source: Path) -> None:
    for band in "gr":
        (source / "b" / f"{band}.fits").write_text("no image")
    with pytest.raises(UserError, match=r"nobody knows where they lie: .*b/g\.fits: cannot"):
        place(source, table_of(A))

    # With a column, it is only its own rows that are lost.
    placed = place(source, table_of((*A, "a"), (*CENTRES["b"], "b")), tile="tile")
    assert list(placed.bad) == [1]
    assert "b/g.fits: cannot be read as a mosaic" in placed.bad[1]


@pytest.mark.parametrize("tile", [None, "tile"])
def test_tiles_are_looked_at_once_for_many_tables(
    source: Path, tile: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    for name in ("check_tile", "read_grids"):
        real = getattr(mosaic_rows, name)

        def note(*arguments: Any, name: str = name, real: Any = real) -> Any:
            looked_at = arguments[-1]
            opened.extend(f"{name} {each}" for each in looked_at)
            return real(*arguments)

        monkeypatch.setattr(mosaic_rows, name, note)

    recipe = make_recipe(mosaics={"path": "{tile}/{band}.fits", "tile": tile})
    table = table_of((*A, "a"), (*CENTRES["b"], "b"), (20.0, 2.2, "a"))
    whole = place(source, table, tile=tile)
    opened.clear()
    placer = RowPlacer(recipe, source, find_tiles(recipe, source))
    for row in (0, 1, 2, 0, 1):
        piece = placer.place(table.slice(row, 1))
        assert piece.bad == ({0: whole.bad[row]} if row in whole.bad else {})
        np.testing.assert_array_equal(piece.positions, whole.positions[[row]])
    placer.check_all()
    assert len(opened) == len(set(opened)) > 0


# ---- coordinates of another kind ----


@pytest.mark.parametrize("tile", [None, "tile"])
@pytest.mark.parametrize(
    ("unit", "convert"),
    [
        ("radians", np.radians),
        ("hours of right ascension", lambda positions: positions / [15, 1]),
        ("declination and right ascension, swapped", lambda positions: positions[:, ::-1]),
    ],
)
def test_other_units_are_told_as_a_guess(
    tmp_path: Path, unit: str, convert: Any, tile: str | None
) -> None:
    header = make_header(SHAPE, (50.0, 2.2))
    for band in "gr":
        write_mosaic(tmp_path / "a" / f"{band}.fits", noise(SHAPE), header)
    positions = convert(positions_in(header, SHAPE, 20))
    table = table_of(*[(*position, "a") for position in positions])
    with pytest.raises(
        UserError,
        match=rf"0 of 20 positions lie on a tile\. .* They seem to be {unit}: write degrees",
    ):
        place(tmp_path, table, tile=tile)


def test_positions_elsewhere_are_told_without_a_guess(source: Path) -> None:
    table = table_of((20.0, -50.0), (21.0, -51.0))
    with pytest.raises(UserError, match=r"0 of 2 positions lie on a tile\.") as caught:
        place(source, table)
    assert "ra is from 20 to 21, dec from -51 to -50" in str(caught.value)
    assert "the middle of" in str(caught.value)
    assert "seem" not in str(caught.value)
