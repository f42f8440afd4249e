"""Catalogues in files of text: CSV and its dialects, and JSON lines.

The header is found by the recipe: of the comments at the top and the first line that is none, it is
the one that names most of the columns asked for, under the delimiter that finds most of them.
"""

import csv
import gzip
import itertools
import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv

from lens_hpc.errors import UserError
from lens_hpc.packing.cells import CatalogueTable, chosen_names, make_table

COMMENT = "#"
DELIMITERS = (",", ";", "\t", "|")
BLANK = " "
BLANK_ENDINGS = {"txt", "dat", "cat", "ascii", "asc", "ssv"}
QUOTE = b'"'
BLANK_AND_QUOTE = b' "'
CHUNK_ROWS = 1 << 16
CHUNK_BYTES = 1 << 18
BLOCK_BYTES = 1 << 22


def open_text(file: Path, newline: str | None = None) -> IO[str]:
    """Open a file of text, which may be gzipped."""
    opener = gzip.open if file.name.lower().endswith(".gz") else open
    return opener(file, "rt", encoding="utf-8-sig", newline=newline)


# ---- CSV ----


class _Header(NamedTuple):
    names: list[str]
    delimiter: str
    lines: int
    """Lines of the file before the first row."""
    is_comment: bool
    """Whether the header is itself a comment, so that comments may stand between the rows."""


def read_csv(file: Path, ending: str, names: Collection[str]) -> CatalogueTable:
    """Read the named columns of a CSV file; cells are parted by , ; tab | or, in .txt, blanks."""
    header = _find_header(file, ending, names)
    chosen = chosen_names(names, header.names)
    positions = [header.names.index(name) for name in chosen]
    _check_header(file, header.names, chosen)

    # The first cell is needed as well: it tells a comment.
    read = sorted({0, *positions})
    has_quotes = _holds(file, QUOTE)
    if has_quotes and (header.delimiter == BLANK or _holds(file, BLANK_AND_QUOTE)):
        table = _read_by_hand(file, header, read)
    elif has_quotes:
        table = _read_quoted(file, header, read)
    else:
        table = _read_by_arrow(file, header, read)

    table = _without_comments(file, header, table)
    arrays = {header.names[number]: table.column(str(number)) for number in positions}
    del table
    return make_table(arrays, names, header.names)


def _find_header(file: Path, ending: str, names: Collection[str]) -> _Header:
    comments, first_line = _read_top(file)
    delimiters = list(DELIMITERS)
    if ending in BLANK_ENDINGS:
        delimiters.append(BLANK)

    ranked = []
    for order, delimiter in enumerate(delimiters):
        first_cells = _split(first_line, delimiter)
        if first_cells:
            header = _Header(first_cells, delimiter, len(comments) + 1, is_comment=False)
            ranked.append((_rank(header, names, len(comments), order), header))

        for number, comment in enumerate(comments):
            cells = _split(comment.lstrip(COMMENT), delimiter)
            if cells and len(cells) == len(first_cells or cells):
                header = _Header(cells, delimiter, len(comments), is_comment=True)
                ranked.append((_rank(header, names, number, order), header))

    if not ranked:
        raise UserError(f"{file}: has no rows")
    return max(ranked, key=lambda pair: pair[0])[1]


def _read_top(file: Path) -> tuple[list[str], str]:
    """Return the comments and empty lines at the top of a file, and the first line after them."""
    comments: list[str] = []
    with open_text(file) as lines:
        for line in lines:
            if line.strip() and not line.startswith(COMMENT):
                return comments, line
            comments.append(line)
    return comments, ""


def _rank(header: _Header, names: Collection[str], number: int, order: int) -> tuple[int, ...]:
    """Return what to choose a header by: first the names in it, then what is likelier."""
    found = len(set(header.names) & set(names))

    # Where none is found, a comment is the likelier header, for the sake of the message.
    is_likelier = header.is_comment != (found > 0)

    # Where cells are parted by tabs or commas, there may be blanks within a name.
    is_parted = found > 0 and len(header.names) > 1 and header.delimiter != BLANK
    return found, is_parted, len(header.names), is_likelier, number, -order


def _split(line: str, delimiter: str) -> list[str]:
    """Return the cells of a header, none for an empty line."""
    text = line.strip(" \r\n")
    if delimiter == BLANK:
        text = line.strip().replace("\t", BLANK)
    if not text:
        return []
    cells = next(csv.reader([text], delimiter=delimiter, skipinitialspace=True), [])
    return [cell.strip() for cell in cells]


def _check_header(file: Path, header: list[str], chosen: list[str]) -> None:
    repeated = sorted({name for name in chosen if header.count(name) > 1})
    if repeated:
        listed = ", ".join(repr(name) for name in repeated)
        raise UserError(f"{file}: the column {listed} stands twice in the header")


def _holds(file: Path, part: bytes) -> bool:
    """Say whether a file holds some bytes."""
    opener = gzip.open if file.name.lower().endswith(".gz") else open
    end = b""
    with opener(file, "rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            if part in chunk or part in end + chunk[: len(part)]:
                return True
            end = chunk[-len(part) :]
    return False


def _read_by_arrow(file: Path, header: _Header, read: list[int]) -> pa.Table:
    try:
        return _call_arrow(file, header, read)
    except pa.ArrowInvalid:  # a comment, or something wrong: which row that is, one thread says
        return _read_by_one_thread(file, header, read)[0]


def _read_quoted(file: Path, header: _Header, read: list[int]) -> pa.Table:
    """Read a file with quotes; where a row is more than a line, by the parser that is strict.

    For Arrow, a quote that is never closed ends with the file, and the rows before are its cell.
    """
    try:
        table, skipped = _read_by_one_thread(file, header, read)
    except pa.ArrowInvalid:
        return _read_by_hand(file, header, read)
    lines, quotes = _count_lines_and_quotes(file)
    is_row_a_line = header.lines + skipped + len(table) == lines
    return table if is_row_a_line and quotes % 2 == 0 else _read_by_hand(file, header, read)


def _count_lines_and_quotes(file: Path) -> tuple[int, int]:
    opener = gzip.open if file.name.lower().endswith(".gz") else open
    lines = 0
    quotes = 0
    end = b"\n"
    with opener(file, "rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            lines += chunk.count(b"\n")
            quotes += chunk.count(QUOTE)
            end = chunk[-1:]
    return lines + (end != b"\n"), quotes


def _read_by_one_thread(file: Path, header: _Header, read: list[int]) -> tuple[pa.Table, int]:
    """Return the table, and how many comments were left out of it."""
    width = len(header.names)
    skipped = 0
    problems = []

    def judge(row: Any) -> str:
        nonlocal skipped
        text = row.text.strip()
        if not text or text.startswith(COMMENT):
            skipped += 1
            return "skip"
        number = row.number - header.lines - skipped
        problems.append(_wrong_width(file, number, row.actual_columns, width))
        return "error"

    try:
        return _call_arrow(file, header, read, judge), skipped
    except pa.ArrowInvalid as error:
        if problems:
            raise problems[0] from error
        if "Empty CSV file" in str(error):
            raise UserError(f"{file}: has no rows") from error
        raise


def _call_arrow(
    file: Path, header: _Header, read: list[int], judge: Callable[[Any], str] | None = None
) -> pa.Table:
    """Read a file as Arrow does: by all threads, or by one that asks `judge` about odd rows."""
    labels = [str(number) for number in range(len(header.names))]
    return arrow_csv.read_csv(
        _single_blanks(file) if header.delimiter == BLANK else file,
        # One thread numbers the rows, and leaves none behind.
        read_options=arrow_csv.ReadOptions(
            use_threads=judge is None,
            block_size=BLOCK_BYTES,
            column_names=labels,
            skip_rows=header.lines,
        ),
        parse_options=arrow_csv.ParseOptions(
            delimiter=header.delimiter,
            newlines_in_values=judge is not None,
            invalid_row_handler=judge,
        ),
        convert_options=arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(labels, pa.large_string()),
            include_columns=[str(number) for number in read],
            strings_can_be_null=False,
        ),
    )


def _single_blanks(file: Path) -> pa.BufferReader:
    """Return a file in which cells are parted by any number of blanks, with one blank instead."""
    opener = gzip.open if file.name.lower().endswith(".gz") else open
    with opener(file, "rb") as stream:
        content = stream.read().replace(b"\t", b" ").replace(b"\r\n", b"\n")
    while b"  " in content:
        content = content.replace(b"  ", b" ")
    for around in (b" \n", b"\n "):
        content = content.replace(around, b"\n")
    return pa.BufferReader(content.strip(b" "))


def _read_by_hand(file: Path, header: _Header, read: list[int]) -> pa.Table:
    """Read what Arrow cannot: quoted cells after a blank."""
    width = len(header.names)
    labels = [str(number) for number in read]
    schema = pa.schema([(label, pa.large_string()) for label in labels])
    pieces = []
    with open_text(file, newline="") as lines:
        rows = _rows_by_hand(file, lines, header, width)
        while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
            columns = list(zip(*chunk, strict=True))
            pieces.append(pa.table([columns[number] for number in read], schema=schema))
    return pa.concat_tables(pieces) if pieces else schema.empty_table()


def _rows_by_hand(file: Path, lines: IO[str], header: _Header, width: int) -> Iterator[list[str]]:
    number = 0
    try:
        for row in _parse_rows(lines, header):
            if not row or (len(row) == 1 and not row[0].strip()):
                continue
            if row[0].startswith(COMMENT) and len(row) != width:
                continue
            number += 1
            if len(row) != width:
                raise _wrong_width(file, number, len(row), width)
            yield row
    except csv.Error as error:
        raise UserError(
            f"{file}: row {number + 1} cannot be read: {error}; is a quote not closed? Mend the row"
        ) from error


def _parse_rows(lines: IO[str], header: _Header) -> Iterator[list[str]]:
    rest: Iterator[str] = itertools.islice(lines, header.lines, None)
    if header.delimiter == BLANK:
        rest = (line.strip().replace("\t", BLANK) for line in rest)
    is_between_rows = True

    def without_comments() -> Iterator[str]:
        # A quote in a comment is none, so the parser must not see it.
        nonlocal is_between_rows
        for line in rest:
            if not (is_between_rows and _is_comment(line, header)):
                is_between_rows = False
                yield line

    kept = without_comments()
    for row in csv.reader(kept, delimiter=header.delimiter, skipinitialspace=True, strict=True):
        is_between_rows = True
        yield row


def _is_comment(line: str, header: _Header) -> bool:
    """Say whether a line is a comment; with as many cells as a row, only where some may be."""
    if not line.lstrip(BLANK).startswith(COMMENT):
        return False
    return header.is_comment or len(_split(line, header.delimiter)) != len(header.names)


def _wrong_width(file: Path, number: int, cells: int, width: int) -> UserError:
    return UserError(f"{file}: row {number} has {cells} cells, the header {width}; mend the row")


def _without_comments(file: Path, header: _Header, table: pa.Table) -> pa.Table:
    """Leave out comments with as many cells as a row, or refuse them under a plain header."""
    first = table.column("0")
    if not pc.any(pc.match_substring(first, COMMENT)).as_py():
        return table
    is_comment = pc.starts_with(pc.utf8_trim_whitespace(first), COMMENT)
    if not pc.any(is_comment).as_py():
        return table

    if not header.is_comment:
        row = pc.index(is_comment, True).as_py()
        text = first[row].as_py()
        raise UserError(
            f"{file}: row {row + 1} begins with {text!r}: a row, or a comment? "
            f"Take the {COMMENT} out, or delete the line"
        )
    return table.filter(pc.invert(is_comment))


# ---- JSON ----


def read_json(file: Path, names: Collection[str]) -> CatalogueTable:
    """Read the named keys of JSON objects, one a line or in one list; numbers keep their text."""
    # Keys may differ from row to row, so all count as columns.
    existing: dict[str, None] = {}
    cells: dict[str, list[Any]] = {}
    count = 0
    for count, row in enumerate(_json_rows(file), start=1):
        for name in row.keys() - existing.keys():
            existing[name] = None
            if name in chosen_names(names, [name]):
                cells[name] = [None] * (count - 1)
        for name, column in cells.items():
            column.append(row.get(name))

    if not count:
        raise UserError(f"{file}: has no rows")
    arrays = {name: _json_array(column) for name, column in cells.items()}
    return make_table(arrays, names, existing)


def _json_rows(file: Path) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)
    with open_text(file) as lines:
        for first in lines:
            if first.strip():
                break
        else:
            return

        is_list = first.lstrip().startswith("[")
        texts = [first + lines.read()] if is_list else itertools.chain([first], lines)
        for number, text in enumerate(texts, start=1):
            if not text.strip():
                continue
            try:
                value = decoder.decode(text.strip())
            except (ValueError, RecursionError) as error:
                raise UserError(f"{file}: line {number} is not JSON: {error}") from error
            for row in value if is_list else [value]:
                if not isinstance(row, dict):
                    raise UserError(f"{file}: line {number} is not an object {{...}}")
                yield row


def _json_array(cells: list[Any]) -> pa.Array:
    try:
        return pa.array(cells)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        # Numbers have become texts already; true beside texts is what is left.
        return pa.array([None if cell is None else str(cell) for cell in cells])
