from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lens_hpc import UserError
from lens_hpc.data import recipe

TABLE = pd.DataFrame({"n": ["1", "0", "", "3"], "mag": ["2.5", "9", "1", "1.6"], "kind": ["lens", "ring", "lens", ""]})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n > 0", [1, 0, -1, 1]),
        ("n > 0 & mag > 1.6", [1, 0, -1, 0]),
        ("n > 0 and not mag >= 2", [0, 0, -1, 1]),
        ("n > 0 | kind == 'ring'", [1, 1, -1, 1]),
        ("kind == 'lens'", [1, 0, 1, 0]),
        ("'lens' != kind", [0, 1, 0, 1]),
        ("~startswith(kind, 'l')", [0, 1, 0, 1]),
        ("endswith(kind, 'g')", [0, 1, 0, 0]),
        ("1 < mag + 1 <= 3.5", [1, 0, 1, 1]),
        ("mag * 2 - n > -n / 2", [1, 1, -1, 1]),
        ("kind == 'a & b | c'", [0, 0, 0, 0]),
    ],
)
def test_conditions(text: str, expected: list[int]) -> None:
    assert recipe.condition(text, TABLE).tolist() == expected


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')", "n.__class__ == 1", "open('x') == 1", "[n for n in kind] == 1", "n", "n >",
        "(lambda: 1)() == 1", "n in kind", "kind.str == 'a'", "f'{n}' == 'a'", "n ** 2 > 1", "startswith(kind, n)",
    ],
)  # fmt: skip
def test_nothing_but_conditions_is_evaluated(text: str) -> None:
    with pytest.raises(UserError, match=r"columns\.label = "):
        recipe.condition(text, TABLE)


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(UserError, match="no column 'snr'; there are n, mag, kind"):
        recipe.condition("snr > 5", TABLE)


def test_templates_are_filled_row_by_row() -> None:
    assert recipe.expand("{kind}/{n}_{band}.fits", TABLE, "g").tolist()[:2] == ["lens/1_g.fits", "ring/0_g.fits"]
    assert recipe.fields("{kind}/{n}_{band}_{n}.fits") == ["kind", "n"]
    with pytest.raises(UserError, match="is not a template"):
        recipe.fields("{kind")


def test_files_become_rows_by_the_fields_of_their_paths(tmp_path: Path) -> None:
    for name in ("a/x1_g.npy", "a/x1_r.npy", "b/x20_g.npy", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    table = recipe.match_files("{folder}/x{number:[0-9]+}_{band}.npy", tmp_path, "g")
    assert table.to_dict("records") == [{"folder": "a", "number": "1"}, {"folder": "b", "number": "20"}]
    with pytest.raises(UserError, match=r"no file matches images = \{n\}\.fits; such as a/x1_g\.npy"):
        recipe.match_files("{n}.fits", tmp_path, "g")
    with pytest.raises(UserError, match="is not a valid pattern"):
        recipe.match_files("{n:(}.fits", tmp_path, "g")


def test_dots_and_brackets_of_a_pattern_are_themselves(tmp_path: Path) -> None:
    (tmp_path / "a[1].npy").touch()
    (tmp_path / "a1xnpy").touch()
    assert len(recipe.match_files("{n}.npy", tmp_path, "g")) == 1
    np.testing.assert_array_equal(recipe.match_files("a[{n}].npy", tmp_path, "g")["n"], ["1"])
