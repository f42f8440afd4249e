import math
import operator
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_hpc.errors import UserError
from lens_hpc.packing.cells import CatalogueTable, from_frame, make_table
from lens_hpc.packing.conditions import evaluate_condition, words_in_condition

TABLE = from_frame(
    pd.DataFrame(
        {
            "n": ["1", "0", "", "3"],
            "mag": ["2.5", "9", "1", "1.6"],
            "kind": ["lens", "ring", "lens", ""],
            "class": ["A", "B", "n/a", "C"],
            "RA [deg]": ["1", "2", "3", ""],
            "a-b": ["x", "y", "z", "x"],
            "mixed": ["1", "bad", "", "-"],
        }
    )
)


def truth(text: str, table: CatalogueTable = TABLE) -> list[int]:
    return evaluate_condition(text, table, "where").truth.tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n > 0", [1, 0, -1, 1]),
        ("n > 0 & mag > 1.6", [1, 0, 0, 0]),
        ("n > 0 and not mag >= 2", [0, 0, -1, 1]),
        ("n > 0 | kind == 'ring'", [1, 1, -1, 1]),
        ("n > 0 | mag < 2", [1, 0, 1, 1]),
        ("kind == 'lens'", [1, 0, 1, -1]),
        ("'lens' != kind", [0, 1, 0, -1]),
        ("kind == ''", [0, 0, 0, 1]),
        ("~startswith(kind, 'l')", [0, 1, 0, -1]),
        ("endswith(kind, 'g')", [0, 1, 0, -1]),
        ("1 < mag + 1 <= 3.5", [1, 0, 1, 1]),
        ("mag * 2 - n > -n / 2", [1, 1, -1, 1]),
        ("mag / n > 0", [1, 1, -1, 1]),
        ("n / n == 1", [1, -1, -1, 1]),
        ("kind == 'a & b | c'", [0, 0, 0, -1]),
        ("kind in ['lens', 'ring']", [1, 1, 1, -1]),
        ("kind not in ['lens']", [0, 1, 0, -1]),
        ("n in [0, 3]", [0, 1, -1, 1]),
        ("n not in (-1, 1)", [0, 1, -1, 1]),
        ("class == 'A'", [1, 0, -1, 0]),
        ("class in ['A', 'N/A']", [1, 0, 0, 0]),
        ("`class` != 'A' & `RA [deg]` >= 2", [0, 1, -1, -1]),
        ("`a-b` == 'x'", [1, 0, 0, 1]),
        ("n == 01 or mag > 5", None),
    ],
)
def test_conditions(text: str, expected: list[int] | None) -> None:
    if expected is None:
        with pytest.raises(UserError, match="is not a condition"):
            truth(text)
    else:
        assert truth(text) == expected


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
        "n in []",
        "kind in [n]",
        "kind in ['a', 1.5, None]",
        "kind.str == 'a'",
        "f'{n}' == 'a'",
        "b'a' == kind",
        "n ** 2 > 1",
        "n == True",
        "1 < 2",
        "startswith(kind, n)",
        "n > " + "(" * 5000,
        "`n` `mag` > 1",
    ],
)
def test_nothing_but_conditions_is_evaluated(text: str) -> None:
    with pytest.raises(UserError, match="where = "):
        evaluate_condition(text, TABLE, "where")


def test_a_text_that_is_compared_with_a_number_is_wrong() -> None:
    verdict = evaluate_condition("mixed > 0", TABLE, "columns.label")
    assert verdict.truth[[0, 2]].tolist() == [1, -1]
    assert verdict.wrong == {
        1: "mixed = 'bad' is not a number, as columns.label needs",
        3: "mixed = '-' is not a number, as columns.label needs",
    }


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(UserError, match="no column 'snr'; there are n, mag, kind"):
        evaluate_condition("snr > 5", TABLE, "columns.label")


@pytest.mark.parametrize("text", ["kind in ['lens' 'ring']", "kind == 'a' \"b\" | n > 1"])
def test_a_comma_that_is_forgotten_is_named(text: str) -> None:
    with pytest.raises(UserError, match=r"between .* is no comma"):
        evaluate_condition(text, TABLE, "where")
    assert truth("kind in ['lens', '', 'ring']") == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p >= 0.9", [1, 0, -1]),
        ("p == 0.9", [1, 0, -1]),
        ("0.1 < p", [1, 0, -1]),
        ("p in [0.9, 0.1]", [1, 1, -1]),
        ("-0.9 == -0.9 & p != 0.1", [1, 0, -1]),
        ("n == 0.9", [1, 0, -1]),
    ],
)
def test_a_literal_is_rounded_as_the_column_is(text: str, expected: list[int]) -> None:
    arrays = {"p": pa.array([0.9, 0.1, None], pa.float32()), "n": pa.array([0.9, 0.1, None])}
    assert truth(text, make_table(arrays, ["p", "n"], ["p", "n"])) == expected


def test_quoted_words_are_no_columns() -> None:
    assert words_in_condition("kind == 'a lens' & mag > 1") == ["kind", "mag"]
    assert words_in_condition("`RA [deg]` > 1") == ["RA [deg]"]


def test_numbers_are_compared_as_they_are_in_the_file() -> None:
    large = 2305843033332768001
    arrays = {
        "id": pa.array([large, large + 1, None]),
        "huge": pa.array([2**64 - 1, 5, None], pa.uint64()),
        "flag": pa.array([True, False, None]),
        "cost": pa.array([Decimal("1.00"), None, Decimal("3.10")]),
    }
    table = make_table(arrays, list(arrays), list(arrays))
    assert truth(f"id == {large}", table) == [1, 0, -1]
    assert truth(f"id in [{large + 1}, 7]", table) == [0, 1, -1]
    assert truth("huge > 6.5", table) == [1, 0, -1]
    assert truth("huge > -1 & huge < 1e400", table) == [1, 1, -1]
    assert truth(f"huge < {10**30}", table) == [1, 1, -1]
    assert truth("flag == 1", table) == [1, 0, -1]
    assert truth("flag == 'True'", table) == [1, 0, -1]
    assert truth("cost > 2", table) == [0, -1, 1]


numbers = st.sampled_from([None, -1.5, 0.0, 1.0, 2.0])
leaves = st.tuples(
    st.sampled_from("ab"), st.sampled_from(["<", ">=", "==", "!="]), st.sampled_from([0.0, 1.0])
)
trees = st.recursive(
    leaves,
    lambda parts: st.one_of(
        st.tuples(st.just("not"), parts), st.tuples(st.sampled_from(["&", "|"]), parts, parts)
    ),
    max_leaves=6,
)
OPERATORS = {"<": operator.lt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne}


def written(tree: tuple) -> str:
    if tree[0] == "not":
        return f"~({written(tree[1])})"
    if tree[0] in "&|":
        return f"({written(tree[1])}) {tree[0]} ({written(tree[2])})"
    return f"{tree[0]} {tree[1]} {tree[2]}"


def judged(tree: tuple, row: dict[str, float | None]) -> bool | None:
    if tree[0] == "not":
        inner = judged(tree[1], row)
        return None if inner is None else not inner
    if tree[0] in "&|":
        both = [judged(tree[1], row), judged(tree[2], row)]
        decisive = tree[0] == "|"
        if decisive in both:
            return decisive
        return None if None in both else not decisive
    value = row[tree[0]]
    return None if value is None else OPERATORS[tree[1]](value, tree[2])


@given(trees, st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8))
def test_logic_has_three_values(tree: tuple, rows: list[tuple[float | None, float | None]]) -> None:
    columns = {
        name: np.array([math.nan if row[n] is None else row[n] for row in rows])
        for n, name in enumerate("ab")
    }
    arrays = {name: pa.array(values) for name, values in columns.items()}
    expected = [judged(tree, dict(zip("ab", row, strict=True))) for row in rows]
    coded = [-1 if value is None else int(value) for value in expected]
    assert truth(written(tree), make_table(arrays, "ab", "ab")) == coded


@pytest.mark.parametrize(
    "text",
    [
        "not " * 3000 + "mag > 1",
        "~" * 150 + "(mag > 1)",
        "mag" + " + mag" * 2000 + " > 1",
        "(" * 3000 + "mag > 1" + ")" * 3000,
        "-" * 3000 + "1 < mag",
        "mag > 1" + " & mag > 1" * 60_000,
        "mag > " + "1" * 5000,
    ],
    ids=lambda text: f"{text[:8]} of {len(text)}",
)
def test_a_condition_that_is_nested_or_long_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(UserError) as error:
        truth(text)
    assert len(str(error.value)) < 700


def test_a_long_condition_that_is_flat_is_none_too_many() -> None:
    assert len(truth("mag > 1" + " | mag > 1" * 1000)) == len(TABLE)
    ids = ", ".join(f"'J{n:015d}'" for n in range(5000))
    assert truth(f"~(kind in [{ids}])")[:3] == [1, 1, 1]
