"""Catalogues in the formats of astronomy: FITS, VOTable, HDF5, and texts that describe themselves.

What a format has to say that a value is missing, becomes missing here: TNULL, also of a scaled
column, a logical that is neither true nor false, masks and nulls.
"""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import OpenerDirector, UnknownHandler, install_opener

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy.io import fits, votable
from astropy.table import Table

from lens_hpc.errors import UserError
from lens_hpc.packing.array_files import hdf5_item
from lens_hpc.packing.cells import CatalogueTable, chosen_names, from_numpy, make_table
from lens_hpc.packing.fits_images import refuse_zip_bomb

TRUE, FALSE = ord("T"), ord("F")
OF_ANY_LENGTH = re.compile(r"\d*[PQ]")


# ---- FITS ----


def read_fits_table(file: Path, names: Collection[str], which: int | str | None) -> CatalogueTable:
    """Read the named columns of a FITS table: of the HDU `which`, or of the first with a table."""
    refuse_zip_bomb(file)
    with fits.open(file) as hdus:
        hdu = _table_hdu(hdus, which)
        existing = hdu.columns.names
        chosen = chosen_names(names, existing)
        repeated = [name for name in chosen if existing.count(name) > 1]
        if repeated:
            raise UserError(f"the column {repeated[0]!r} stands twice in the table")
        arrays = {name: _fits_column(hdu, existing.index(name)) for name in chosen}
        return make_table(arrays, names, existing)


def _table_hdu(hdus: fits.HDUList, which: int | str | None) -> Any:
    tables = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)]
    if which is None:
        if not tables:
            raise UserError("holds no table")
        return tables[0]

    try:
        hdu = hdus[which]
    except (KeyError, IndexError) as error:
        listed = ", ".join(f"{number} {hdu.name}".strip() for number, hdu in enumerate(hdus))
        raise UserError(f"table = {which}: no such HDU; there are {listed}") from error
    if hdu not in tables:
        raise UserError(f"table = {which}: this HDU is no table")
    return hdu


def _fits_column(hdu: Any, number: int) -> pa.Array:
    column = hdu.columns[number]
    stored = hdu.data.view(np.ndarray)
    raw = stored[stored.dtype.names[number]]
    code = column.format.format if hasattr(column.format, "format") else column.format
    is_scaled = column.bscale not in (None, "", 1) or column.bzero not in (None, "", 0)
    if is_scaled and OF_ANY_LENGTH.match(str(column.format)):
        raise UserError(
            f"column {column.name!r}: astropy cannot read vectors of different lengths that are "
            "scaled (TSCAL, TZERO); write them unscaled"
        )

    if raw.dtype.kind == "S" and isinstance(hdu, fits.BinTableHDU):
        return _fits_texts(raw)
    if code == "L":
        is_missing = (raw != TRUE) & (raw != FALSE)
        return from_numpy(raw == TRUE, is_missing)

    values = np.array(hdu.data.field(number))
    if column.null in (None, ""):
        return from_numpy(values)
    if raw.dtype.kind == "S":
        # In a table of text, TNULL is the text that stands for no value.
        null = str(column.null).strip().encode()
        return from_numpy(values, np.char.strip(raw) == null)
    if raw.dtype.kind in "iu":
        return from_numpy(values, raw == int(column.null))
    return from_numpy(values)


def _fits_texts(raw: np.ndarray) -> pa.Array:
    """Return texts, which end at the first zero byte."""
    texts = from_numpy(np.array(raw))
    if raw.ndim > 1:
        return texts
    return pc.replace_substring_regex(texts.cast(pa.large_string()), "\\x00.*", "")


# ---- VOTable and texts ----


def read_votable(file: Path, names: Collection[str], which: int | str | None) -> CatalogueTable:
    """Read the named columns of a VOTable's table: number or name `which`, or the first.

    It runs in a process of its own, which opens no address from then on: data may be elsewhere.
    """
    nowhere = OpenerDirector()
    nowhere.add_handler(UnknownHandler())
    install_opener(nowhere)
    try:
        document = votable.parse(str(file))
    except URLError as error:
        raise UserError("its data lie elsewhere (STREAM href); put them into the file") from error
    tables = [table for table in document.iter_tables() if table.fields]
    if not tables:
        raise UserError("holds no table")

    table = tables[0]
    if which is not None:
        by_name: dict[int | str, Any] = dict(enumerate(tables))
        for each in tables:
            by_name |= {key: each for key in (each.ID, each.name) if key}
        if which not in by_name:
            listed = ", ".join(str(key) for key in by_name)
            raise UserError(f"table = {which}: there is no such table; there are {listed}")
        table = by_name[which]

    # A field's name may stand twice, its ID only once.
    fields = [(field.name or field.ID, field.ID) for field in table.fields]
    existing = [name for name, _ in fields]
    chosen = chosen_names(names, existing)
    repeated = [name for name in chosen if existing.count(name) > 1]
    if repeated:
        raise UserError(f"the column {repeated[0]!r} stands twice in the table")
    arrays = {name: from_numpy(table.array[ID]) for name, ID in fields if name in chosen}
    return make_table(arrays, names, existing)


def read_standard_text(file: Path, standard: str, names: Collection[str]) -> CatalogueTable:
    """Read the named columns of a text that describes itself; `standard` is astropy's name."""
    table = Table.read(file, format=standard)
    arrays = {}
    for name in chosen_names(names, table.colnames):
        column = table[name]
        values = np.ma.asanyarray(getattr(column, "value", column))
        arrays[name] = from_numpy(np.ma.MaskedArray(values))
    return make_table(arrays, names, table.colnames)


# ---- HDF5 ----


def read_hdf5_table(file: Path, names: Collection[str], which: int | str | None) -> CatalogueTable:
    """Read the named columns of an HDF5 table.

    `which` is the path of a dataset with fields, or of a group with a dataset a column; without
    it, the file is such a group, or has one such dataset.
    """
    with h5py.File(file, "r", locking=False) as opened:
        node = _hdf5_node(opened, which, names)
        if isinstance(node, h5py.Dataset):
            existing = list(node.dtype.names)
            chosen = chosen_names(names, existing)
            rows = node.fields(chosen)[...] if chosen else {}
            arrays = {name: _hdf5_array(rows[name]) for name in chosen}
            return make_table(arrays, names, existing)

        existing = list(_datasets_in(node))
        chosen = chosen_names(names, existing)
        columns = {name: hdf5_item(node, name) for name in chosen}
        lengths = {name: len(columns[name]) if columns[name].ndim else 0 for name in chosen}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
            raise UserError(f"columns differ in length: {listed}")
        arrays = {name: _hdf5_array(columns[name][...]) for name in chosen}
        return make_table(arrays, names, existing)


def _datasets_in(group: h5py.Group) -> dict[str, h5py.Dataset | None]:
    """Return the datasets of a group by name; None for what lies in another file.

    That is refused only where it is read.
    """
    datasets: dict[str, h5py.Dataset | None] = {}
    for name in group:
        try:
            item = hdf5_item(group, name)
        except ValueError:
            datasets[name] = None
            continue
        if isinstance(item, h5py.Dataset):
            datasets[name] = item
    return datasets


def _hdf5_node(
    file: h5py.File, which: int | str | None, names: Collection[str]
) -> h5py.Dataset | h5py.Group:
    tables = []

    def note_table(path: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.dtype.names and node.ndim == 1:
            tables.append(path)

    if which is None:
        if any(node is not None and not node.dtype.names for node in _datasets_in(file).values()):
            return _root_or_table(file, names)
        file.visititems(note_table)
        if len(tables) != 1:
            listed = ", ".join(tables or file)
            raise UserError(f"say table=, which of these is the catalogue: {listed}")
        return hdf5_item(file, tables[0])

    node = hdf5_item(file, str(which))
    is_table = isinstance(node, h5py.Group) or (
        isinstance(node, h5py.Dataset) and bool(node.dtype.names)
    )
    if not is_table:
        file.visititems(note_table)
        listed = ", ".join([*tables, *file])
        raise UserError(f"table = {which}: is no table in this file, which has {listed}")
    return node


def _root_or_table(file: h5py.File, names: Collection[str]) -> h5py.Dataset | h5py.Group:
    """Return the one dataset with fields beside datasets without, if it has more of the names."""
    datasets = _datasets_in(file)
    nodes = [node for node in datasets.values() if node is not None]
    tables = [node for node in nodes if node.dtype.names and node.ndim == 1]
    if len(tables) != 1:
        return file
    in_table = chosen_names(names, list(tables[0].dtype.names))
    return tables[0] if len(in_table) > len(chosen_names(names, list(datasets))) else file


def _hdf5_array(values: np.ndarray) -> pa.Array:
    if values.dtype.kind == "O":
        return pa.array(values.tolist())
    return from_numpy(values)
