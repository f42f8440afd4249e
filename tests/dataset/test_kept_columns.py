"""Tables beside the shards are as they were packed, or refused by their name."""

import json
from pathlib import Path

import pandas as pd
import pytest

from lens_hpc.dataset.shards import file_crc32
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from tests.conftest import pack_survey, write_survey


def write_table(dataset: Path, content: bytes) -> None:
    """Put a file in the place of the kept columns, and its checksum into the manifest."""
    file = dataset / "columns.parquet"
    file.write_bytes(content)
    tree = json.loads((dataset / "manifest.json").read_text())
    tree["files"]["columns.parquet"] = {"bytes": len(content), "crc32": file_crc32(file)}
    (dataset / "manifest.json").write_text(json.dumps(tree))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    survey = write_survey(folder / "s", ra=[str(i) for i in range(40)])
    return pack_survey(survey, folder / "d", "columns.keep=[ra]")


def test_what_is_not_as_it_was_packed_is_refused(kept: Path) -> None:
    file = kept / "columns.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:-9] + bytes(9))
    with pytest.raises(UserError, match=r"columns\.parquet: is damaged; copy or pack"):
        Split(kept, "train").kept_columns()
    file.write_bytes(content)
    assert list(Split(kept, "train").kept_columns().columns) == ["ra"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (None, "cannot be read"),
        (pd.DataFrame({"name": ["obj1"]}), "cannot be read"),
        (pd.DataFrame({"id": ["obj1", "obj1"], "ra": [1, 2]}), "has rows of the same id"),
    ],
    ids=["junk", "no id", "an id twice"],
)
def test_a_table_of_somebody_else_is_refused(
    kept: Path, table: pd.DataFrame | None, said: str
) -> None:
    write_table(kept, b"PAR1junkPAR1" if table is None else table.to_parquet())
    with pytest.raises(UserError, match=rf"columns\.parquet: {said}"):
        Split(kept, "train").kept_columns()
