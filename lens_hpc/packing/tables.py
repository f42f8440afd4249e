"""Reading catalogues: one reader for each kind of file, and only the columns that are named."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from lens_hpc.errors import UserError
from lens_hpc.packing.cells import (
    CatalogueTable,
    all_missing,
    chosen_names,
    from_frame,
    make_table,
)
from lens_hpc.packing.fits_images import refuse_zip_bomb
from lens_hpc.packing.guarded import read_in_worker
from lens_hpc.packing.tar_files import tar_table
from lens_hpc.packing.text_tables import open_text, read_csv, read_json

PARQUET_ENDINGS = {"parquet", "pq", "parq"}
ARROW_ENDINGS = {"feather", "arrow", "ipc"}
JSON_ENDINGS = {"jsonl", "ndjson", "json"}
FITS_ENDINGS = {"fits", "fit", "fts"}
VOTABLE_ENDINGS = {"vot", "votable", "xml"}
HDF5_ENDINGS = {"h5", "hdf5", "hdf", "he5"}
WITH_TABLES = FITS_ENDINGS | VOTABLE_ENDINGS | HDF5_ENDINGS
FOLDER_ENDINGS = PARQUET_ENDINGS | HDF5_ENDINGS | FITS_ENDINGS
STREAM_BUFFER_BYTES = 1 << 20
LINES_TO_TELL = 60
LEAST_SECONDS = 10
BYTES_PER_SECOND = 50_000
"""Of the processor's time: no sound text is read more slowly, and a short one may tell for ever."""
SEXTRACTOR = re.compile(r"#\s*1\s+[A-Z]\w*")
"""The header of SExtractor's ASCII_HEAD: a comment for each column, with its number."""


def read_table(
    file: Path, names: Collection[str], which: int | str | None = None
) -> CatalogueTable:
    """Read the columns `names` of a catalogue, as far as they are there, by the file's ending.

    `which` is the table in a file that may hold several: number or name. Raises UserError when the
    file cannot be read or has no rows.
    """
    _check_is_catalogue(file)
    table = _read_file(file, names, which)
    if table.columns and not len(table):
        raise UserError(f"{file}: has no rows")
    pa.default_memory_pool().release_unused()
    return table


def stream_table(
    file: Path, names: Collection[str], which: int | str | None, most_rows: int
) -> Iterator[CatalogueTable]:
    """Yield the rows of `read_table` in tables of `most_rows`, the last one with what is left.

    Their types are those of the whole table. Parquet files are never held whole.
    """
    _check_is_catalogue(file)
    parts = [] if which is not None else _parquet_files(file)
    if parts:
        yield from _stream_parquet(file, parts, names, most_rows)
        return

    table = read_table(file, names, which)
    for start in range(0, len(table), most_rows):
        yield table.slice(start, most_rows)


def _check_is_catalogue(file: Path) -> None:
    try:
        is_there = file.exists()
    except OSError as error:  # such as a name that is too long
        raise UserError(f"{file}: is no catalogue: {error.strerror}") from error
    if not is_there:
        raise UserError(f"{file}: no such catalogue; is source= the folder that holds it?")
    if not file.is_file() and not file.is_dir():
        raise UserError(f"{file}: is no catalogue, but a device or a pipe; name a file")


def _read_file(file: Path, names: Collection[str], which: int | str | None) -> CatalogueTable:
    ending = file.name.lower().removesuffix(".gz").rpartition(".")[2]
    if which is not None and ending not in WITH_TABLES and not file.is_dir():
        raise UserError(f"{file}: table = {which}: only FITS, VOTable and HDF5 hold several tables")

    with _faults_named(file):
        return _read_by_ending(file, ending, names, which)


@contextmanager
def _faults_named(file: Path) -> Iterator[None]:
    """Turn what readers raise into a UserError with the file."""
    try:
        yield
    except UserError as error:
        message = str(error)
        raise error if str(file) in message else UserError(f"{file}: {message}") from error
    except Exception as error:  # the readers raise whatever they like on a damaged file
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{file}: cannot be read as a catalogue: {reason}") from error


def _read_by_ending(
    file: Path, ending: str, names: Collection[str], which: int | str | None
) -> CatalogueTable:
    if ending == "tar" or (file.is_dir() and any(file.glob("*.tar"))):
        return from_frame(tar_table(file))
    if file.is_dir():
        return _read_folder(file, names, which)
    refuse_zip_bomb(file)
    # On a damaged file, what is written in C may never end, or end the process.
    if ending in PARQUET_ENDINGS:
        return read_in_worker(file, _read_parquet, file, names)
    if ending in ARROW_ENDINGS:
        return read_in_worker(file, _read_arrow, file, names)
    if ending in WITH_TABLES:
        return read_in_worker(file, _reader_of_tables(ending), file, names, which)

    if ending in JSON_ENDINGS:
        return read_json(file, names)
    standard = _standard_of_text(file, ending)
    if standard:
        # Imported here, for astropy takes longer than a small survey takes to pack.
        from lens_hpc.packing.standard_tables import read_standard_text

        seconds = LEAST_SECONDS + file.stat().st_size // BYTES_PER_SECOND
        return read_in_worker(file, read_standard_text, file, standard, names, cpu_seconds=seconds)
    return read_csv(file, ending, names)


def _reader_of_tables(ending: str) -> Callable[..., CatalogueTable]:
    from lens_hpc.packing import standard_tables  # astropy, too

    if ending in HDF5_ENDINGS:
        return standard_tables.read_hdf5_table
    if ending in FITS_ENDINGS:
        return standard_tables.read_fits_table
    return standard_tables.read_votable


def _standard_of_text(file: Path, ending: str) -> str | None:
    """Return astropy's name of the standard that a file of text follows, if it does."""
    with open_text(file) as lines:
        top = [line for line, _ in zip(lines, range(LINES_TO_TELL), strict=False)]
    first = top[0] if top else ""

    if first.startswith("# %ECSV"):
        return "ascii.ecsv"
    if any(line.startswith("Byte-by-byte Description") for line in top):
        return "ascii.cds"
    if SEXTRACTOR.match(first):
        return "ascii.sextractor"
    if ending in ("tbl", "ipac") and first.startswith(("\\", "|")):
        return "ascii.ipac"
    return None


def _read_folder(folder: Path, names: Collection[str], which: int | str | None) -> CatalogueTable:
    """Read the files of a folder as one table, in the order of their paths."""
    parts = _parts_of(folder)
    if not parts:
        raise UserError(f"{folder}: holds no Parquet, HDF5 or FITS files; name a file in catalogue")

    tables = [_read_file(part, names, which) for part in parts]
    _check_columns_agree(parts, [table.columns for table in tables])
    for name in tables[0].columns:
        _give_nulls_a_type(name, tables)
    pieces = [pa.table(table.columns) for table in tables]
    whole = pa.concat_tables(pieces, promote_options="permissive")
    return _from_arrow(whole, names, list(tables[0].existing))


def _give_nulls_a_type(name: str, tables: list[CatalogueTable]) -> None:
    """Give a column the type of the other tables in a table where all of it is missing."""
    columns = [table.columns[name] for table in tables]
    kinds = [column.type for column in columns if column.null_count < len(column)]
    for table, column in zip(tables, columns, strict=True):
        if kinds and column.null_count == len(column):
            table.columns[name] = pa.nulls(len(column), kinds[0])


def _parts_of(folder: Path) -> list[Path]:
    """Return the files that are a table together, in their order."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path for path in paths if _is_part(path.relative_to(folder))]


def _check_columns_agree(parts: Sequence[Path], columns: Sequence[Collection[str]]) -> None:
    first = set(columns[0])
    for part, names in zip(parts, columns, strict=True):
        absent = sorted(first ^ set(names))
        if absent:
            raise UserError(f"{part}: the column {absent[0]} is not in all files of the folder")


def _is_part(path: Path) -> bool:
    is_hidden = any(part.startswith(("_", ".")) for part in path.parts)
    return not is_hidden and path.suffix.lower().removeprefix(".") in FOLDER_ENDINGS


# ---- Parquet and Arrow ----


def _read_parquet(file: Path, names: Collection[str]) -> CatalogueTable:
    with pq.ParquetFile(file) as opened:
        existing = opened.schema_arrow.names
        chosen = chosen_names(names, existing)
        return _from_arrow(opened.read(columns=chosen).select(chosen), names, existing)


def _read_arrow(file: Path, names: Collection[str]) -> CatalogueTable:
    with pa.memory_map(str(file)) as source:
        reader: Any
        try:
            reader = pa.ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            reader = pa.ipc.open_stream(source)
        existing = reader.schema.names
        table = reader.read_all().select(chosen_names(names, existing))
        return _from_arrow(table, names, existing)


def _from_arrow(table: pa.Table, names: Collection[str], existing: list[str]) -> CatalogueTable:
    arrays = dict(zip(table.column_names, table.columns, strict=True))
    return make_table(arrays, names, existing)


# ---- Parquet, some rows at a time ----


class _PartKind(NamedTuple):
    """What one Parquet file holds."""

    rows: int
    types: dict[str, pa.DataType]
    filled: set[str]
    """The columns in which any row has a value."""
    existing: list[str]


def _parquet_files(file: Path) -> list[Path]:
    """Return the files of a catalogue that is in Parquet; nothing where any of it is not."""
    if file.is_dir() and any(file.glob("*.tar")):
        return []
    parts = _parts_of(file) if file.is_dir() else [file]
    endings = {part.suffix.lower().removeprefix(".") for part in parts}
    return parts if endings <= PARQUET_ENDINGS else []


def _stream_parquet(
    file: Path, parts: Sequence[Path], names: Collection[str], most_rows: int
) -> Iterator[CatalogueTable]:
    # A damaged file may end its reader, so each is first read in a process that may end.
    kinds = []
    for part in parts:
        with _faults_named(part):
            kinds.append(read_in_worker(part, _look_through, part, names, most_rows))

    _check_columns_agree(parts, [kind.types for kind in kinds])
    rows = sum(kind.rows for kind in kinds)
    if not rows:
        raise UserError(f"{file}: has no rows")
    try:
        schema = _common_schema(kinds)
    except pa.ArrowException as error:
        raise UserError(f"{file}: its files are not of one table: {error}") from error

    pieces = _typed_pieces(parts, names, schema, most_rows)
    for table in _in_tables_of(most_rows, pieces):
        columns = {}
        for name in table.column_names:
            columns[name] = pa.concat_arrays(table[name].chunks)
        yield CatalogueTable(columns, kinds[0].existing)


def _look_through(file: Path, names: Collection[str], most_rows: int) -> _PartKind:
    """Read a Parquet file to its end, and say what it holds."""
    with _open_parquet(file) as opened:
        schema = opened.schema_arrow
        existing = schema.names
        chosen = chosen_names(names, existing)
        empty = schema.empty_table().select(chosen)
        columns = _from_arrow(empty, names, existing).columns
        types = {name: column.type for name, column in columns.items() if name in names}

        rows = 0
        filled: set[str] = set()
        for table in _tables_in(opened, names, most_rows):
            rows += len(table)
            for name in types:
                if not all_missing(table.columns[name]):
                    filled.add(name)
    return _PartKind(rows, types, filled, existing)


def _open_parquet(file: Path) -> pq.ParquetFile:
    """Open a file to be read in pieces, of which Arrow keeps none."""
    # What is read ahead would stay until the end, and without a buffer a column comes whole.
    return pq.ParquetFile(file, pre_buffer=False, buffer_size=STREAM_BUFFER_BYTES)


def _tables_in(
    opened: pq.ParquetFile, names: Collection[str], most_rows: int
) -> Iterator[CatalogueTable]:
    existing = opened.schema_arrow.names
    chosen = chosen_names(names, existing)
    for batch in opened.iter_batches(most_rows, columns=chosen):
        table = pa.Table.from_batches([batch]).select(chosen)
        yield _from_arrow(table, names, existing)


def _common_schema(kinds: Sequence[_PartKind]) -> pa.Schema:
    """Return the types that hold the values of all files, as in a table that is read whole."""
    filled = set().union(*(kind.filled for kind in kinds))
    schemas = []
    for kind in kinds:
        # A column without any value takes the type that it has in another file.
        types = dict(kind.types)
        for name in filled - kind.filled:
            types[name] = pa.null()
        schemas.append(pa.schema(types))
    return pa.unify_schemas(schemas, promote_options="permissive")


def _typed_pieces(
    parts: Sequence[Path], names: Collection[str], schema: pa.Schema, most_rows: int
) -> Iterator[pa.Table]:
    """Yield the rows of Parquet files, in columns of the types of a schema."""
    for part in parts:
        try:
            with _open_parquet(part) as opened:
                for table in _tables_in(opened, names, most_rows):
                    yield _to_schema(table, schema)
        except (pa.ArrowException, OSError) as error:
            # It could be read a moment ago, so it has changed, or its disk is gone.
            raise UserError(f"{part}: cannot be read any more: {error}; run again") from error


def _to_schema(table: CatalogueTable, schema: pa.Schema) -> pa.Table:
    """Return the columns of a table with the types of a schema."""
    columns = []
    for field in schema:
        column = table.columns[field.name]
        if all_missing(column):
            columns.append(pa.nulls(len(column), field.type))
        else:
            columns.append(column.cast(field.type))
    return pa.table(columns, schema=schema)


def _in_tables_of(rows: int, pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the rows of tables in tables of so many rows, the last one with what is left."""
    waiting: list[pa.Table] = []
    count = 0
    for piece in pieces:
        waiting.append(piece)
        count += len(piece)
        if count < rows:
            continue

        joined = pa.concat_tables(waiting)
        whole = count - count % rows
        for start in range(0, whole, rows):
            yield joined.slice(start, rows)
        waiting = [joined.slice(whole)]
        count -= whole

    if count:
        yield pa.concat_tables(waiting)
