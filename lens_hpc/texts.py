"""Texts from data and file names, as a terminal, a figure or a spreadsheet may show them."""

import csv
import io
from collections.abc import Iterable, Sequence

# With one of these, a cell is a formula to spreadsheets.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str, kept: str = "\n\t") -> str:
    r"""Return a text with all but printable and `kept` characters escaped, as in \x1b.

    A terminal obeys control characters. Bytes of a file name that are no UTF-8 are shown, too.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in kept else _escaped(character)
        for character in text
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV that a spreadsheet may open: no cell of it is a formula.

    A text that begins with one of FORMULA_STARTS, and is no number, gets an apostrophe before it,
    which spreadsheets do not show. Other texts are as they were, but for carriage returns and what
    is no UTF-8, which are escaped.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([_defused(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue()


def _defused(cell: str) -> str:
    if cell.startswith(FORMULA_STARTS) and not _is_number(cell):
        cell = f"'{cell}"
    # Python's writer leaves this one without quotes, and its reader takes it for the row's end.
    cell = cell.replace("\r", "\\r")
    # A file name may have bytes that no UTF-8 file can hold.
    return cell.encode("utf-8", "backslashreplace").decode("utf-8")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
