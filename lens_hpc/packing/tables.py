"""Catalogues as tables of strings, whatever file they come in."""

import csv
import gzip
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import pandas as pd

from lens_hpc.errors import UserError

FITS_ENDINGS = {"fits", "fit"}
VOTABLE_ENDINGS = {"vot", "votable", "xml"}


def read_table(file: Path) -> pd.DataFrame:
    """Read a catalogue as strings, with an empty cell for a missing value.

    The file is CSV, Parquet, a FITS table or a VOTable, by its ending, and may be gzipped. Raises
    UserError when it cannot be read or has no rows.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such catalogue; is source= the folder that holds it?")

    try:
        table = _read_by_ending(file)
    except UserError:
        raise
    except pd.errors.EmptyDataError as error:
        raise UserError(f"{file}: has no rows") from error
    except Exception as error:  # the readers raise whatever they like on a damaged file
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{file}: cannot be read as a catalogue: {reason}") from error

    if table.empty:
        raise UserError(f"{file}: has no rows")
    return table


def _read_by_ending(file: Path) -> pd.DataFrame:
    ending = file.name.lower().removesuffix(".gz").rpartition(".")[2]
    if ending == "parquet":
        return _as_text(pd.read_parquet(file))
    if ending in FITS_ENDINGS:
        return _read_with_astropy(file, "fits")
    if ending in VOTABLE_ENDINGS:
        return _read_with_astropy(file, "votable")
    return _read_csv(file)


def _read_with_astropy(file: Path, file_format: str) -> pd.DataFrame:
    from astropy.table import Table  # takes longer to import than a small survey takes to pack

    table = Table.read(file, format=file_format)
    return _as_text(table.to_pandas())


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    columns = {}
    for name in table.columns:
        column = table[name]
        with_gaps = column.astype(object).where(column.notna(), "")
        columns[str(name)] = with_gaps.map(_cell_text)
    return pd.DataFrame(columns, dtype=object)


def _cell_text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8").strip()
    return str(value).strip()


# ---- CSV ----


class _Header(NamedTuple):
    names: list[str]
    lines: int
    """Lines of the file up to the header, this included."""
    is_comment: bool
    """Whether the header is itself a line that begins with #."""


def _read_csv(file: Path) -> pd.DataFrame:
    """Read CSV. Lines that begin with # are comments; the last before the rows is the header."""
    header = _read_header(file)
    _check_header(file, header.names)
    _check_row_lengths(file, header)

    return pd.read_csv(
        file,
        dtype=str,
        keep_default_na=False,
        skipinitialspace=True,
        encoding="utf-8-sig",
        header=None,
        names=header.names,
        skiprows=header.lines,
        comment="#" if header.is_comment else None,
        index_col=False,
    )


def _open_csv(file: Path, newline: str | None = None) -> IO[str]:
    opener = gzip.open if file.name.endswith(".gz") else open
    return opener(file, "rt", encoding="utf-8-sig", newline=newline)


def _read_header(file: Path) -> _Header:
    with _open_csv(file) as lines:
        header = next(lines, "")
        count = 1
        is_comment = header.startswith("#")
        if is_comment:
            for following in lines:
                if not following.startswith("#"):
                    break
                header = following
                count += 1

    cells = next(csv.reader([header.lstrip("#")]), [])
    return _Header([cell.strip() for cell in cells], count, is_comment)


def _check_header(file: Path, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        listed = ", ".join(repr(name) for name in repeated)
        raise UserError(f"{file}: the column {listed} stands twice in the header")


def _check_row_lengths(file: Path, header: _Header) -> None:
    """Raise UserError for a row with too many or too few cells, which pandas shifts in silence."""
    width = len(header.names)
    with _open_csv(file, newline="") as lines:
        for number, row in enumerate(_csv_rows(lines, header.lines), start=1):
            if len(row) != width:
                raise UserError(
                    f"{file}: row {number} has {len(row)} cells, the header {width}; mend the row"
                )


def _csv_rows(lines: IO[str], header_lines: int) -> Iterator[list[str]]:
    """Yield the rows after the header, without empty lines and comments."""
    for row in itertools.islice(csv.reader(lines), header_lines, None):
        if row and not row[0].startswith("#"):
            yield row
