"""The vetted list on disk, in the formats that astronomers read: Parquet, CSV and FITS."""

from pathlib import Path

import numpy as np
import pandas as pd
from astropy.table import Table

from lens_hpc import files
from lens_hpc.texts import csv_text

UNITS = {"ra": "deg", "dec": "deg", "known_arcsec": "arcsec"}
"""Of the columns that have one, as FITS writes them."""
IDS = ("id", "duplicates")


def write_list(folder: Path, name: str, table: pd.DataFrame) -> None:
    """Write a table as folder/name.parquet, .csv and .fits.

    What is missing is null in Parquet, an empty cell in CSV, and in FITS NaN or an empty text.
    """
    table.to_parquet(folder / f"{name}.parquet", index=False)
    _write_csv(folder / f"{name}.csv", table)
    _write_fits(folder / f"{name}.fits", table)


def _write_csv(file: Path, table: pd.DataFrame) -> None:
    header = list(table.columns)
    cells = table.astype(object).where(table.notna(), None)
    rows = cells.itertuples(index=False, name=None)
    files.write_text(file, csv_text([header, *rows]))


def _write_fits(file: Path, table: pd.DataFrame) -> None:
    columns = {}
    for column in table:
        # Readers such as fitsio open no table with other letters than ASCII's. A note may be
        # escaped, as in \xe9; an id that is not ASCII must stay what it is.
        encoding = "utf-8" if column in IDS else "ascii"
        columns[column] = _for_fits(table[column], encoding)

    units = {}
    for column, unit in UNITS.items():
        if column in columns:
            units[column] = unit
    Table(columns, units=units).write(file, format="fits")


def _for_fits(column: pd.Series, encoding: str) -> np.ndarray:
    """Return a column as FITS can hold it: texts are bytes, in which other letters are escaped."""
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy()
    encoded = column.fillna("").str.encode(encoding, "backslashreplace")
    return np.array(encoded.to_list(), dtype="S")
