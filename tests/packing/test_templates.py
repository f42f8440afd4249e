from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lens_hpc.errors import UserError
from lens_hpc.packing.templates import expand_template, match_files, template_fields

TABLE = pd.DataFrame({"n": ["1", "0"], "kind": ["lens", "ring"]})


def test_templates_are_filled_row_by_row() -> None:
    paths = expand_template("{kind}/{n}_{band}.fits", TABLE, "g")
    assert paths.tolist() == ["lens/1_g.fits", "ring/0_g.fits"]


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
