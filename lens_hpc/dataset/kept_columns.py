"""Tables beside the shards: columns that a recipe keeps, and what simulations know, by id."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lens_hpc import files, layout
from lens_hpc.dataset.manifest import FileRecord, Manifest
from lens_hpc.dataset.shards import file_crc32
from lens_hpc.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

ID = "id"


def write_kept_columns(file: Path, ids: np.ndarray, columns: "pd.DataFrame") -> None:
    """Write the kept columns of the rows of these ids, each with its type, as Parquet."""
    import pyarrow as pa

    table = pa.Table.from_pandas(columns, preserve_index=False).replace_schema_metadata()
    if ID in table.column_names:
        raise UserError(
            f"columns.keep: {ID} is the name of the ids in {layout.KEPT_COLUMNS}; leave it out"
        )
    write_rows_by_id(file, table.add_column(0, ID, pa.array(ids.tolist(), pa.string())))


def write_rows_by_id(file: Path, table: "pa.Table") -> None:
    """Write a table of rows by their column id as Parquet."""
    import pyarrow.parquet as pq

    assert ID in table.column_names, f"{file}: its table has no column {ID}"
    with files.whole_file(file) as partial:
        pq.write_table(table, partial)


def read_kept_columns(dataset: Path, manifest: Manifest) -> "pd.DataFrame":
    """Return the columns that were kept beside a dataset, by id; without columns if none were.

    Raises UserError when the file is not as it was packed, or no table of rows by their id.
    """
    return _read_rows_by_id(dataset, manifest, layout.KEPT_COLUMNS)


def read_truth_columns(dataset: Path, manifest: Manifest) -> "pd.DataFrame":
    """Return what is known of painted objects, by id, as `read_kept_columns` does."""
    return _read_rows_by_id(dataset, manifest, layout.TRUTH)


def _read_rows_by_id(dataset: Path, manifest: Manifest, name: str) -> "pd.DataFrame":
    import pandas as pd
    import pyarrow as pa

    record = manifest.files.get(name)
    if record is None:
        return pd.DataFrame(index=pd.Index([], name=ID, dtype=str))

    damage = find_table_damage(dataset, name, record)
    if damage:
        raise UserError(f"{damage}; copy or pack it again")
    file = dataset / name
    try:
        table = pd.read_parquet(file, dtype_backend="pyarrow").astype({ID: str}).set_index(ID)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(f"{file}: cannot be read ({error}); pack the dataset again") from error
    if not table.index.is_unique:
        raise UserError(f"{file}: has rows of the same {ID}; pack the dataset again")
    return table


def record_tables(dataset: Path) -> dict[str, FileRecord]:
    """Return the manifest's records of the tables that lie beside the shards."""
    records = {}
    for name in (layout.KEPT_COLUMNS, layout.TRUTH):
        file = dataset / name
        if file.is_file():
            records[name] = FileRecord(bytes=file.stat().st_size, crc32=file_crc32(file))
    return records


def find_table_damage(dataset: Path, name: str, record: FileRecord) -> str:
    """Return what is wrong with a table beside the shards; an empty string if nothing is."""
    file = dataset / name
    if not file.is_file():
        return f"{file}: is missing"
    if file.stat().st_size != record.bytes or file_crc32(file) != record.crc32:
        return f"{file}: is damaged"
    return ""
