import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from lens_hpc.errors import UserError
from lens_hpc.packing.cells import from_frame, make_table
from lens_hpc.packing.templates import expand_template, files_below, match_files, template_fields

TABLE = from_frame(pd.DataFrame({"n": ["1", "0"], "kind": ["lens", "ring"], "gap": ["-7", ""]}))


def test_templates_are_filled_row_by_row() -> None:
    paths = expand_template("{kind}/{n}_{band}.fits", TABLE, "g")
    assert paths.tolist() == ["lens/1_g.fits", "ring/0_g.fits"]


def test_a_missing_value_is_an_empty_text() -> None:
    assert expand_template("{n}_{gap}", TABLE).tolist() == ["1_-7", "0_"]
    assert expand_template("all.fits", TABLE).tolist() == ["all.fits", "all.fits"]


def test_numbers_are_padded() -> None:
    assert expand_template("{n:03d}.fits", TABLE).tolist() == ["001.fits", "000.fits"]
    assert expand_template("{gap:04d}.fits", TABLE).tolist() == ["-007.fits", ".fits"]
    assert expand_template("{n:[01]}.fits", TABLE, is_pattern=True).tolist() == ["1.fits", "0.fits"]
    floats = from_frame(pd.DataFrame({"n": ["5.0", "1e3"], "x": ["1", "1.5"]}))
    assert expand_template("{n:02d}", floats).tolist() == ["05", "1000"]
    with pytest.raises(UserError, match=r"x = '1.5' is not a whole number"):
        expand_template("{x:02d}", floats)
    with pytest.raises(UserError, match="kind = 'lens' is not a whole number"):
        expand_template("{kind:02d}", TABLE)


@pytest.mark.parametrize(
    "numbers",
    [
        pa.array([2**64 - 1, 5], pa.uint64()),
        pa.array([1e20, 5]),
        pa.array([math.inf, 5]),
        pa.array(["2305843009213693953", "2.0"]),
    ],
)
def test_a_number_that_cannot_be_padded_is_named(numbers: pa.Array) -> None:
    table = make_table({"n": numbers}, ["n"], ["n"])
    with pytest.raises(UserError, match=r"n = '.*' is not a whole number, or too large for one"):
        expand_template("{n:06d}", table)


@pytest.mark.parametrize("template", ["{n:>5}", "{n!r}", "{n:{gap}}", "{n:.2f}", "{n:099999d}"])
def test_a_format_that_is_not_known_is_refused(template: str) -> None:
    with pytest.raises(UserError, match="only a number's width can be given"):
        expand_template(template, TABLE)


def test_links_are_followed_where_the_recipe_says_so(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "a.npy").touch()
    (tmp_path / "scratch" / "loop").symlink_to(tmp_path / "scratch")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "images").symlink_to(tmp_path / "scratch")
    (tmp_path / "s" / "notes.txt").touch()
    paths = files_below(tmp_path / "s", follow_links=True)
    assert "images/a.npy" in paths
    assert len(paths) <= 3
    with pytest.raises(UserError, match=r"images is a link, which follow_links=true follows"):
        match_files("{n}.npy", tmp_path / "s", "g")


def test_fields_are_named_once() -> None:
    assert template_fields("{kind}/{n}_{band}_{n}.fits") == ["kind", "n"]
    with pytest.raises(UserError, match="is not a template"):
        template_fields("{kind")


def test_files_become_rows_by_the_fields_of_their_paths(tmp_path: Path) -> None:
    for name in ("a/x1_g.npy", "a/x1_r.npy", "b/x20_g.npy", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    table = match_files("{folder}/x{number:[0-9]+}_{band}.npy", tmp_path, "g")
    assert table.to_dict("records") == [
        {"folder": "a", "number": "1"},
        {"folder": "b", "number": "20"},
    ]
    with pytest.raises(UserError, match=r"no file matches images = \{n\}\.fits; such as a/x1_g"):
        match_files("{n}.fits", tmp_path, "g")
    with pytest.raises(UserError, match="is not a valid pattern"):
        match_files("{n:(}.fits", tmp_path, "g")


def test_a_field_that_is_there_twice_has_one_value(tmp_path: Path) -> None:
    for name in ("a/a.npy", "a/b.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert match_files("{n}/{n}.npy", tmp_path, "g").to_dict("records") == [{"n": "a"}]


def test_an_empty_folder_is_said_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it holds no files"):
        match_files("{n}.fits", tmp_path, "g")


def test_dots_and_brackets_of_a_pattern_are_themselves(tmp_path: Path) -> None:
    (tmp_path / "a[1].npy").touch()
    (tmp_path / "a1xnpy").touch()
    assert len(match_files("{n}.npy", tmp_path, "g")) == 1
    np.testing.assert_array_equal(match_files("a[{n}].npy", tmp_path, "g")["n"], ["1"])


def test_groups_of_a_pattern_are_no_fields(tmp_path: Path) -> None:
    paths = ["a1_g.npy", "b_g.npy", "c2_r.npy"]
    table = match_files("{n:(a|b)}{m:([0-9])?}_{band}.npy", tmp_path, "g", paths)
    assert table.to_dict("records") == [{"n": "a", "m": "1"}, {"n": "b", "m": ""}]
    assert len(match_files("b_{band}.npy", tmp_path, "g", paths)) == 1
