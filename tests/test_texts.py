import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_hpc.texts import FORMULA_STARTS, csv_text, printable

ANY_TEXT = st.text(st.characters() | st.sampled_from("=+-@\t\r\n\x1b\x00\x7f\x9b\udc80,\"'"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("NGC 1365, \N{GREEK SMALL LETTER ALPHA} \N{TELESCOPE}", None),
        ("two\n\tlines", None),
        ("\x1b[31mred\x07\r\x00", "\\x1b[31mred\\x07\\r\\x00"),
        ("not UTF-8: \udcff", "not UTF-8: \\udcff"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}gpj", "\\u202egpj"),
    ],
)
def test_what_a_terminal_obeys_is_shown(text: str, shown: str | None) -> None:
    assert printable(text) == (shown or text)


@given(ANY_TEXT)
def test_what_is_shown_is_printable_and_stays_so(text: str) -> None:
    shown = printable(text, kept="")
    assert shown.isprintable()
    assert printable(shown) == shown


@pytest.mark.parametrize(
    ("cell", "held"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1+1", "'+1+1"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\\r=1"),
        ("-1.5", "-1.5"),
        ("+3e-4", "+3e-4"),
        ("J1234-0509", "J1234-0509"),
        ("'=", "'="),
        ("", ""),
        ("a\udcff", "a\\udcff"),
        (-3, "-3"),
    ],
)
def test_no_cell_is_a_formula(cell: object, held: str) -> None:
    (row,) = csv.reader(io.StringIO(csv_text([[1, cell]]), newline=""))
    assert row == ["1", held]


@given(st.lists(st.tuples(ANY_TEXT, ANY_TEXT), min_size=1))
def test_every_program_reads_the_cells_and_no_spreadsheet_a_formula(
    rows: list[tuple[str, str]],
) -> None:
    text = csv_text(rows)
    text.encode()
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert len(read) == len(rows)
    for row, written in zip(read, rows, strict=True):
        for cell, given_text in zip(row, written, strict=True):
            plain = given_text.replace("\r", "\\r").encode("utf-8", "backslashreplace").decode()
            assert cell in {plain, f"'{plain}"}
            assert not cell.startswith(FORMULA_STARTS) or float(cell) is not None
