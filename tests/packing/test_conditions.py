import pandas as pd
import pytest

from lens_hpc.errors import UserError
from lens_hpc.packing.conditions import evaluate_condition, words_in_condition

TABLE = pd.DataFrame(
    {
        "n": ["1", "0", "", "3"],
        "mag": ["2.5", "9", "1", "1.6"],
        "kind": ["lens", "ring", "lens", ""],
    }
)


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
    assert evaluate_condition(text, TABLE).tolist() == expected


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "n.__class__ == 1",
        "open('x') == 1",
        "open(kind, 'x')",
        "[n for n in kind] == 1",
        "n",
        "n >",
        "(lambda: 1)() == 1",
        "n in kind",
        "kind.str == 'a'",
        "f'{n}' == 'a'",
        "n ** 2 > 1",
        "startswith(kind, n)",
    ],
)
def test_nothing_but_conditions_is_evaluated(text: str) -> None:
    with pytest.raises(UserError, match=r"columns\.label = "):
        evaluate_condition(text, TABLE)


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(UserError, match="no column 'snr'; there are n, mag, kind"):
        evaluate_condition("snr > 5", TABLE)


def test_quoted_words_are_no_columns() -> None:
    assert words_in_condition("kind == 'a lens' & mag > 1") == ["kind", "mag"]
