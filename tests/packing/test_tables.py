import gzip
import json
import math
import random
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import fitsio
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.io.ascii import InconsistentTableError
from astropy.io.votable import from_table
from astropy.table import Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lens_hpc.errors import UserError
from lens_hpc.packing.cells import CatalogueTable, common_type, with_type
from lens_hpc.packing.tables import read_table, stream_table
from tests.conftest import write_survey
from tests.packing.hostile_surveys import ecsv_of_merges


def refusal(file: Path, names: tuple[str, ...] = ("id", "is_lens"), **which: Any) -> str:
    with pytest.raises(UserError) as error:
        read_table(file, names, **which)
    return str(error.value)


def texts(table: CatalogueTable) -> dict[str, list[str | None]]:
    return {name: table.texts(name).to_pylist() for name in table.columns}


def read_text(folder: Path, text: str, *names: str, ending: str = "csv") -> dict[str, list]:
    file = folder / f"catalogue.{ending}"
    file.write_bytes(gzip.compress(text.encode()) if ending.endswith("gz") else text.encode())
    return texts(read_table(file, names))


# ---- refusals ----


def test_a_catalogue_that_is_not_there_is_named(tmp_path: Path) -> None:
    reason = refusal(tmp_path / "catalogue.csv")
    assert "no such catalogue; is source= the folder that holds it?" in reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("id,is_lens\n", "has no rows"),
        ("# id,is_lens\n", "has no rows"),
        ("", "has no rows"),
        ("\n\n", "has no rows"),
        ("id,is_lens\na,1,2\n", "row 1 has 3 cells, the header 2; mend the row"),
        ("id,is_lens,x\na,1,2\nb,1\n", "row 2 has 2 cells, the header 3"),
        ("id,is_lens,x\n# note\n\na,1,2\nb,1\n", "row 2 has 2 cells, the header 3"),
        ('id, is_lens,x\na, "1, 2",2\nb,1\n', "row 2 has 2 cells, the header 3"),
        ('id,is_lens\na,1\n"b,1\n', "row 2 has 1 cells"),
        ('id, is_lens\na, "1"\n"b,1\n', "row 2 cannot be read: unexpected end of data"),
        ("id,is_lens,id\na,1,2\n", "the column 'id' stands twice"),
        ("id,is_lens\na,1\n#b,0\n", "row 2 begins with '#b': a row, or a comment?"),
        ("id,is_lens\na,\xff\n", None),
    ],
)
def test_a_catalogue_that_cannot_be_read_is_named(
    tmp_path: Path, text: str, reason: str | None
) -> None:
    file = tmp_path / "catalogue.csv"
    file.write_text(text, encoding="utf-8" if reason else "latin-1")
    assert (reason or "cannot be read as a catalogue") in refusal(file)
    assert str(file) in refusal(file)


@pytest.mark.parametrize(
    "ending",
    ["fits", "fits.gz", "vot", "parquet", "feather", "h5", "jsonl", "json", "csv.gz", "ecsv"],
)
def test_a_damaged_catalogue_is_named(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"catalogue.{ending}"
    file.write_bytes(b"# %ECSV 1.0\njunk \xff" if ending == "ecsv" else b"junk")
    reason = refusal(file)
    assert f"catalogue.{ending}" in reason
    assert "cannot be read as a catalogue" in reason or "is not JSON" in reason


def test_a_table_is_for_files_that_hold_several(tmp_path: Path, survey: Path) -> None:
    assert "only FITS, VOTable and HDF5" in refusal(survey / "catalogue.csv", which=1)


# ---- dialects of CSV ----


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    file = write_survey(tmp_path / "s", rows=4) / "catalogue.csv"
    file.write_text("\ufeff" + file.read_text())
    assert texts(read_table(file, ["id"]))["id"][0] == "obj0"


ROWS = {"id": ["a", "b"], "mag": ["1", "2"]}


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        ("csv", "# made by hand\n# id, mag\na, 1\n# a remark\nb, 2\n"),
        ("csv", "# made by hand, today\n# id, mag\na, 1\n#c, 3\nb, 2\n# the end\n"),
        ("csv", "# made by a tool on 2024-03-01\n# version, 2\nid,mag\na,1\nb,2\n"),
        ("csv", "# id, mag\n# text, mag\na,1\nb,2\n"),
        ("csv", "id,mag\na,1\n# a remark\n\nb,2\n   \n"),
        ("csv", "id;mag;x,y\na;1;,\nb;2;\n"),
        ("csv", "id|mag\na|1\nb|2\n"),
        ("csv", "id,mag\r\na,1\r\nb,2"),
        ("csv", "id,mag\ra,1\rb,2\r"),
        ("csv", '"id","mag"\n"a","1"\n"b","2"\n'),
        ("csv", 'id, mag, x\na, 1, "y, z"\nb, 2, "#"\n'),
        ("csv", "x,id,mag\n,a , 1\n#,b,2\n".replace("#", "0")),
        ("csv.gz", "id,mag\na,1\nb,2\n"),
        ("tsv", "id\tmag\tnote\na\t1\tx, y\nb\t2\t\n"),
        ("txt", "# id   mag\n  a    1\nb\t2   \n"),
        ("txt", "id mag note\na 1 'x'\nb 2 \"y z\"\n"),
        ("dat", "id,mag\na,1\nb,2\n"),
        ("dat", "#id mag\n\n# more\na 1\n# c 3\nb 2\n"),
        ("jsonl", '{"id": "a", "mag": 1}\n\n{"mag": 2, "id": "b", "x": null}\n'),
        ("json", '[{"id": "a", "mag": 1},\n {"id": "b", "mag": 2}]'),
        ("ndjson.gz", '{"id": "a", "mag": 1}\n{"id": "b", "mag": 2}\n'),
    ],
)
def test_dialects(tmp_path: Path, ending: str, text: str) -> None:
    assert read_text(tmp_path, text, "id", "mag", ending=ending) == ROWS


def test_a_number_sign_within_a_cell_is_text(tmp_path: Path) -> None:
    expected = {"id": ["a", "b"], "note": ["see #1", None]}
    for header in ("# id,note", "id,note"):
        assert read_text(tmp_path, f"{header}\na,see #1\nb,\n", "id", "note") == expected


def test_a_cell_may_hold_lines_and_quotes(tmp_path: Path) -> None:
    for header in ("id,note", "id, note"):
        rows = f'{header}\na,"x\n#y, ""z"""\nb,"  "\n'
        expected = {"id": ["a", "b"], "note": ['x\n#y, "z"', None]}
        assert read_text(tmp_path, rows, "id", "note") == expected


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
@pytest.mark.parametrize(
    ("rows", "row"),
    [
        (["a,1,x", 'b,2,"3 arcsec ring', "c,3,y", "d,4,z"], 2),
        (["a,1,x", 'b,2,"3 arcsec ring', "c,3,y", 'd,4,"4 arcsec', "e,5,z"], 2),
        (["a,1,x", 'b,2,"3 arcsec ring', 'c,3,"y"', "d,4,z"], 2),
        (["a,1,x", "b,2,y", 'c,3,"'], 3),
        (["a,1,x", 'b,2,"y', *["c,3," + 200 * "z"] * 1_000], 2),
        (["a,1,x", 'b,2,"y', *["c,3," + 200 * "z"] * 40_000], 2),
    ],
)
def test_a_quote_that_is_not_closed_is_refused(
    tmp_path: Path, ending: str, rows: list[str], row: int
) -> None:
    with pytest.raises(UserError, match=rf"row {row} cannot be read: .*; is a quote not closed\?"):
        read_text(tmp_path, "\n".join(["id,n,note", *rows, ""]), "id", ending=ending)


@pytest.mark.parametrize("blank", ["", " "])
def test_a_quote_within_a_cell_is_text(tmp_path: Path, blank: str) -> None:
    rows = f'id,{blank}note\na,5"\nb,6" x\nc,{blank}"7"""\nd,"8\n""9"""\n'
    expected = {"id": ["a", "b", "c", "d"], "note": ['5"', '6" x', '7"', '8\n"9"']}
    assert read_text(tmp_path, rows, "id", "note") == expected


@pytest.mark.parametrize(
    ("rows", "ending"),
    [
        ('# id,mag\na,1\n# see,"poor\nb,2\n# see,"good\n', "csv"),
        ('# id,mag\na,1\n#see, "poor\nb,2\n # see, "good\n', "csv"),
        ('id,mag\na, "1"\n# see "poor\nb,2\n# seeing, 1" or "poor, again\n', "csv"),
        ('# id mag\na 1\n# seeing 0.6 " in g\nb 2\n# seeing 0.7 " in r\n', "txt"),
    ],
)
def test_a_quote_in_a_comment_is_none(tmp_path: Path, rows: str, ending: str) -> None:
    assert read_text(tmp_path, rows, "id", "mag", ending=ending) == ROWS


@pytest.mark.parametrize("ending", ["txt", "dat", "cat"])
@pytest.mark.parametrize("delimiter", ["\t", " , ", " | "])
def test_a_name_may_hold_a_blank(tmp_path: Path, ending: str, delimiter: str) -> None:
    lines = ["id|object name|mag|note", "a|NGC 1|1|no fit", "b|NGC 2|2|good fit", ""]
    text = "\n".join(lines).replace("|", delimiter)
    assert read_text(tmp_path, text, "id", "mag", ending=ending) == ROWS


def test_the_header_of_lens_challenge_2(tmp_path: Path) -> None:
    """An index without a name comes first, after 28 comments, as programs read it that pass
    index_col=0 and comment='#' or skiprows=28 to pandas (see shared/cases/bologna2_real_header)."""
    comments = "".join(f"# line {i} of a description, with a comma\n" for i in range(28))
    text = comments + ",ID,n_source_im\n0,200000,1\n1,200001,0\n"
    found = read_text(tmp_path, text, "ID", "n_source_im", ">")
    assert found == {"ID": ["200000", "200001"], "n_source_im": ["1", "0"]}


def test_json_keeps_numbers_as_they_are_written(tmp_path: Path) -> None:
    large = 2**70 + 1
    rows = [{"id": large, "mag": 1e-9, "flag": True}, {"id": 1}, {"id": None, "flag": False}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    table = read_text(tmp_path, text, "id", "mag", "flag", ending="jsonl")
    assert table["id"] == [str(large), "1", None]
    assert table["mag"] == ["1e-09", None, None]
    assert table["flag"] == ["True", None, "False"]
    mixed = '{"id": true}\n{"id": "x"}\n'
    assert read_text(tmp_path, mixed, "id", ending="jsonl") == {"id": ["True", "x"]}
    (tmp_path / "bad.jsonl").write_text('{"id": 1}\n[2]\n')
    assert "line 2 is not an object" in refusal(tmp_path / "bad.jsonl")


# ---- standards of astronomy ----


@pytest.mark.parametrize("kind", ["ecsv", "mrt", "ipac"])
def test_texts_that_describe_themselves(tmp_path: Path, kind: str) -> None:
    table = Table({"id": ["a", "b c", "d"], "mag": [1.5, 2.25, 3.0], "n": [2**60, 5, 6]})
    table = Table(table, masked=True)
    table["n"].mask[1] = True
    file = tmp_path / {"ecsv": "c.csv", "mrt": "c.txt", "ipac": "c.tbl"}[kind]
    table.write(file, format=f"ascii.{kind}")
    read = read_table(file, ["id", "mag", "n"])
    assert texts(read)["id"] == ["a", "b c", "d"]
    assert read.numbers("mag")[0].to_pylist() == [1.5, 2.25, 3.0]
    assert read.numbers("n")[0].to_pylist() == [2**60, None, 6]


def test_what_fits_says_of_missing_values(tmp_path: Path) -> None:
    file = tmp_path / "c.fits"
    columns = [
        fits.Column("id", "4A", array=np.array([b"a", b"", b"c d", "é".encode()])),
        fits.Column("mag", "I", array=np.array([0, -32768, 100, 7], "i2"), null=-32768),
        fits.Column("n", "K", array=np.array([2**60 + 1, -1, 3, 4]), null=-1),
        fits.Column("u", "J", bzero=2**31, array=np.array([1, 2, 3, 2**32 - 1], np.uint32)),
        fits.Column("is_lens", "L", array=[True, False, True, False]),
        fits.Column("f", "E", array=np.array([0.1, np.nan, 1, 2], "f4")),
        fits.Column("ugriz", "5E", array=np.arange(20).reshape(4, 5)),
        fits.Column("two", "2J", array=np.array([[1, -9], [-9, 2], [3, 4], [5, 6]]), null=-9),
    ]
    hdus = [
        fits.PrimaryHDU(),
        fits.ImageHDU(np.zeros((2, 2))),
        fits.BinTableHDU.from_columns(columns),
    ]
    fits.HDUList(hdus).writeto(file)
    with fitsio.FITS(file, "rw") as opened:
        opened[2].write_key("TSCAL2", 0.01)
        opened[2].write_key("TZERO2", 20.0)

    # A logical may be neither true nor false: a zero byte, which no writer here can write.
    content = file.read_bytes()
    with fits.open(file) as opened:
        dtype = opened[2].data.dtype
        start = opened[2]._data_offset + dtype.fields["is_lens"][1] + 2 * dtype.itemsize
    file.write_bytes(content[:start] + b"\0" + content[start + 1 :])

    names = ["id", "mag", "n", "u", "is_lens", "f", "ugriz[2]", "two[1]"]
    table = read_table(file, names)
    assert set(table.columns) >= set(names)
    assert texts(table)["id"] == ["a", None, "c d", "é"]
    assert table.numbers("mag")[0].to_pylist() == pytest.approx([20, None, 21, 20.07])
    assert texts(table)["n"] == [str(2**60 + 1), None, "3", "4"]
    assert table.numbers("u")[0].to_pylist() == [1, 2, 3, 2**32 - 1]
    assert texts(table)["is_lens"] == ["True", "False", None, "False"]
    assert texts(table)["f"] == ["0.1", None, "1.0", "2.0"]
    assert table.numbers("ugriz[2]")[0].to_pylist() == [2, 7, 12, 17]
    assert table.numbers("two[1]")[0].to_pylist() == [None, 2, 4, 6]
    assert "there is no such element" in refusal(file, ("ugriz[5]",))
    assert "this HDU is no table" in refusal(file, which=1)
    assert "no such HDU; there are 0 PRIMARY" in refusal(file, which="CAT")


def test_a_fits_table_of_text(tmp_path: Path) -> None:
    file = tmp_path / "c.fits"
    columns = [
        fits.Column("id", "A3", array=["a", "b", "c"], ascii=True),
        fits.Column("n", "I6", array=[1, 2, 3], ascii=True, null="---"),
    ]
    fits.TableHDU.from_columns(columns).writeto(file)
    content = file.read_bytes()
    assert content.count(b"     2c") == 1
    file.write_bytes(content.replace(b"     2c", b"   ---c"))
    table = read_table(file, ["id", "n"])
    assert texts(table)["id"] == ["a", "b", "c"]
    assert table.numbers("n")[0].to_pylist() == [1, None, 3]


@pytest.mark.parametrize(("which", "expected"), [(None, "a"), (2, "b"), ("LENSES", "b")])
def test_a_fits_table_by_number_or_name(
    tmp_path: Path, which: int | str | None, expected: str
) -> None:
    hdus = [fits.BinTableHDU(Table({"id": [text]})) for text in "ab"]
    hdus[1].name = "LENSES"
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "c.fits")
    assert texts(read_table(tmp_path / "c.fits", ["id"], which)) == {"id": [expected]}


def test_a_votable_by_number_or_name(tmp_path: Path) -> None:
    document = from_table(Table({"id": ["a"], "n": [5]}))
    other = from_table(Table({"id": ["b"], "n": [6]}))
    other.resources[0].tables[0].name = "lenses"
    document.resources.append(other.resources[0])
    document.to_xml(str(tmp_path / "c.vot"))
    for which, expected in ((None, "a"), (1, "b"), ("lenses", "b")):
        assert texts(read_table(tmp_path / "c.vot", ["id"], which)) == {"id": [expected]}
    assert "there is no such table; there are 0, 1" in refusal(tmp_path / "c.vot", which="x")


def test_tables_in_hdf5(tmp_path: Path) -> None:
    file = tmp_path / "c.hdf5"
    rows = np.array([(2**60 + 1, b"a", True)], [("object_id", "i8"), ("id", "S3"), ("ok", "?")])
    with h5py.File(file, "w") as opened:
        opened["group/table"] = rows
        opened["columns/id"] = ["x", "y"]
        opened["columns/v"] = np.arange(6.0).reshape(2, 3)
        opened["columns/short"] = [1]
    read = read_table(file, ["object_id", "id", "ok"])
    assert texts(read) == {"object_id": [str(2**60 + 1)], "id": ["a"], "ok": ["True"]}
    read = read_table(file, ["id", "v[2]"], "columns")
    assert texts(read)["id"] == ["x", "y"]
    assert read.numbers("v[2]")[0].to_pylist() == [2, 5]
    assert "columns differ in length: id 2, short 1" in refusal(
        file, ("id", "short"), which="columns"
    )
    assert "is no table in this file, which has group/table" in refusal(file, which="nowhere")
    with h5py.File(tmp_path / "flat.h5", "w") as opened:
        opened["object_id"] = np.array([b"7", b"8"])
        opened["image_array"] = np.zeros((2, 3, 8, 8))
    assert texts(read_table(tmp_path / "flat.h5", ["object_id"])) == {"object_id": ["7", "8"]}


# ---- Parquet ----


def test_parquet_keeps_what_it_holds(tmp_path: Path) -> None:
    large = 2305843033332768000
    columns = {
        "id": pa.array([large + 1, None]),
        "u": pa.array([2**64 - 1, None], pa.uint64()),
        "cost": pa.array([Decimal("1.10"), None]),
        "day": pa.array([date(2024, 3, 1), None]),
        "flag": pa.array([True, None]),
        "grade": pa.array(["A", None]).dictionary_encode(),
        "f": pa.array([0.1, math.nan], pa.float32()),
        "raw": pa.array([b"x ", None]),
        "none": pa.array([None, None]),
        "v": pa.array([[1, 2], [3, 4]]),
    }
    file = tmp_path / "c.parquet"
    pq.write_table(pa.table(columns), file)
    found = texts(read_table(file, [*list(columns)[:-1], "v[1]"]))
    assert found.pop("v[1]") == ["2", "4"]
    assert found.pop("none") == [None, None]
    firsts = {name: column[0] for name, column in found.items() if name != "v"}
    assert all(column[1] is None for name, column in found.items() if name != "v")
    assert firsts == {
        "id": str(large + 1),
        "u": str(2**64 - 1),
        "cost": "1.10",
        "day": "2024-03-01",
        "flag": "True",
        "grade": "A",
        "f": "0.1",
        "raw": "x",
    }


def test_a_folder_of_parquet_files_is_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    for number in (0, 1):
        (folder / f"Npix={number}").mkdir(parents=True)
        part = pa.table({"id": [f"o{number}"], "n": pa.array([number or None], pa.int64())})
        pq.write_table(part, folder / f"Npix={number}" / "part.parquet")
    (folder / "_metadata.parquet").write_bytes(b"junk")
    assert texts(read_table(folder, ["id", "n"])) == {"id": ["o0", "o1"], "n": [None, "1"]}
    pq.write_table(pa.table({"id": ["x"]}), folder / "z.parquet")
    assert "z.parquet: the column n is not in all files" in refusal(folder, ("id", "n"))


@pytest.mark.parametrize("ending", ["parquet", "fits", "h5"])
def test_only_the_columns_that_are_named_are_read(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"c.{ending}"
    columns = {"id": ["a", "b"], "n": [1, 2], "z": [0.5, 1.5]}
    if ending == "parquet":
        pd.DataFrame(columns).to_parquet(file)
    elif ending == "fits":
        Table(columns).write(file)
    else:
        with h5py.File(file, "w") as opened:
            for name, values in columns.items():
                opened[name] = values
    table = read_table(file, ["n", "absent"])
    assert list(table.columns) == ["n"]
    assert set(table.existing) == set(columns)


# ---- any table, in any format that a library writes ----

words = st.text("ab #,;|'\"\u00e9\n.5-", max_size=6)
cells = st.fixed_dictionaries(
    {
        "id": st.one_of(st.none(), st.integers(-(2**63) + 1, 2**63 - 1)),
        "text": st.one_of(st.none(), words, st.sampled_from(["nan", "-99", "07", "1e5"])),
        "mag": st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
        "flag": st.one_of(st.none(), st.booleans()),
    }
)
tables = st.lists(cells, min_size=1, max_size=6)


def framed(rows: list[dict[str, Any]]) -> pd.DataFrame:
    types = {"id": "Int64", "text": "string", "mag": "Float64", "flag": "boolean"}
    return pd.DataFrame(
        {name: pd.array([r[name] for r in rows], kind) for name, kind in types.items()}
    )


def as_csv(file: Path, rows: list[dict[str, Any]], separator: str, quoting: int) -> None:
    framed(rows).to_csv(file, index=False, sep=separator, quoting=quoting)


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {
    "parquet": lambda file, rows: framed(rows).to_parquet(file),
    "feather": lambda file, rows: framed(rows).to_feather(file),
    "jsonl": lambda file, rows: file.write_text("".join(json.dumps(row) + "\n" for row in rows)),
    "json": lambda file, rows: file.write_text(json.dumps(rows)),
    "csv": lambda file, rows: as_csv(file, rows, ",", 0),
    "csv.gz": lambda file, rows: as_csv(file, rows, ";", 0),
    "tsv": lambda file, rows: as_csv(file, rows, "\t", 2),
    "txt": lambda file, rows: as_csv(file, rows, "|", 1),
}


def plain(text: str | None) -> str | None:
    return (text or "").strip() or None


@pytest.mark.slow
@pytest.mark.usefixtures("without_workers")
@pytest.mark.parametrize("ending", WRITERS)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=tables)
def test_a_written_table_is_read_as_it_was(
    tmp_path: Path, ending: str, rows: list[dict[str, Any]]
) -> None:
    file = tmp_path / f"c.{ending}"
    WRITERS[ending](file, rows)
    table = read_table(file, list(rows[0]))
    assert table.texts("text").to_pylist() == [plain(row["text"]) for row in rows]
    assert table.numbers("id")[0].to_pylist() == [row["id"] for row in rows]
    assert table.numbers("mag")[0].to_pylist() == [row["mag"] for row in rows]
    flags = [None if row["flag"] is None else str(row["flag"]) for row in rows]
    assert table.texts("flag").to_pylist() == flags


def masked(rows: list[dict[str, Any]]) -> Table:
    table = Table(masked=True)
    fills = {"id": 0, "text": "", "mag": 0.0, "flag": False}
    for name, fill in fills.items():
        given = [row[name] for row in rows]
        table[name] = np.ma.MaskedArray(
            [fill if value is None else value for value in given],
            mask=[value is None for value in given],
        )
    return table


@pytest.mark.slow
@pytest.mark.usefixtures("without_workers")
@pytest.mark.parametrize("ending", ["fits", "vot", "ecsv"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=tables)
def test_a_masked_table_is_read_as_astropy_reads_it(
    tmp_path: Path, ending: str, rows: list[dict[str, Any]]
) -> None:
    rows = [row | {"text": (row["text"] or "").encode("ascii", "ignore").decode()} for row in rows]
    file = tmp_path / f"c.{ending}"
    kind = {"fits": "fits", "vot": "votable", "ecsv": "ascii.ecsv"}[ending]
    masked(rows).write(file, format=kind, overwrite=True)
    try:
        expected = Table.read(file, format=kind)
    except InconsistentTableError:  # astropy writes a comment where a cell has "\n#"
        assert "cannot be read as a catalogue" in refusal(file, tuple(rows[0]))
        return

    table = read_table(file, expected.colnames)
    for name in ("id", "mag"):
        values = [None if value is np.ma.masked else value for value in expected[name]]
        assert table.numbers(name)[0].to_pylist() == values
    for name in ("text", "flag"):
        values = [None if value is np.ma.masked else plain(str(value)) for value in expected[name]]
        assert table.texts(name).to_pylist() == values


def test_numbers_are_written_in_many_ways(tmp_path: Path) -> None:
    written = ["+5", "1e3", ".5", "5.", "-0", "0x10", "1_0", "--", "N/A", "", "12,5", "1e999"]
    frame = pd.DataFrame({"id": range(len(written)), "n": written})
    frame.to_csv(tmp_path / "c.csv", index=False)
    numbers, wrong = read_table(tmp_path / "c.csv", ["id", "n"]).numbers("n")
    assert numbers.to_pylist() == [5, 1000, 0.5, 5, 0, *[None] * 6, math.inf]
    assert [written[row] for row in wrong] == ["0x10", "1_0", "12,5"]


def test_pandas_and_the_reader_agree_on_a_file_with_everything(tmp_path: Path) -> None:
    text = 'id,note,mag\n1,"a, ""b""",1.5\n2,,\n9223372036854775807,"x\ny",-2\n'
    (tmp_path / "c.csv").write_text(text)
    expected = pd.read_csv(StringIO(text), dtype={"id": "Int64"})
    table = read_table(tmp_path / "c.csv", ["id", "note", "mag"])
    assert table.numbers("id")[0].to_pylist() == expected["id"].tolist()
    assert (
        table.texts("note").to_pylist()
        == expected["note"].astype(object).where(expected["note"].notna(), None).tolist()
    )
    assert table.typed("id").type == pa.int64()
    assert table.typed("mag").type == pa.float64()
    assert table.typed("note").type == pa.large_string()


@pytest.mark.parametrize("quoted", [False, True])
def test_cells_may_be_parted_by_any_blanks(tmp_path: Path, quoted: bool) -> None:
    rows = [("id", "mag"), ("a", "1"), ("b", "2"), ('"c"' if quoted else "c", "3")]
    text = "".join(f"  {one}   {two}  \r\n" for one, two in rows) + "\r\n  # the very end\r\n"
    expected = {"id": ["a", "b", "c"], "mag": ["1", "2", "3"]}
    assert read_text(tmp_path, text, "id", "mag", ending="dat") == expected
    assert "row 2 has 3 cells" in refusal_of(tmp_path, "id mag\na 1\nb  2  3\n")


def refusal_of(folder: Path, text: str) -> str:
    (folder / "c.dat").write_text(text)
    return refusal(folder / "c.dat", ("id", "mag"))


def test_the_header_of_sextractor(tmp_path: Path) -> None:
    """ASCII_HEAD, as https://sextractor.readthedocs.io/en/latest/Using.html has it."""
    text = (
        "#   1 NUMBER                 Running object number\n"
        "#   2 MAG_AUTO               Kron-like elliptical aperture magnitude    [mag]\n"
        "#   3 FLAGS                  Extraction flags\n"
        "         1    20.5    0\n         2    99.0    4\n"
    )
    found = read_text(tmp_path, text, "NUMBER", "MAG_AUTO", ending="cat")
    assert found == {"NUMBER": ["1", "2"], "MAG_AUTO": ["20.5", "99.0"]}


def test_a_vector_is_no_value(tmp_path: Path) -> None:
    pq.write_table(pa.table({"v": [[1, 2]], "s": [{"a": 1}]}), tmp_path / "c.parquet")
    assert "name one element, as v[0]" in refusal(tmp_path / "c.parquet", ("v",))
    assert "name one element, as s[0]" in refusal(tmp_path / "c.parquet", ("s",))


@pytest.mark.parametrize("ending", ["fits.gz", "vot.gz", "ecsv.gz", "txt.gz"])
def test_catalogues_may_be_gzipped(tmp_path: Path, ending: str) -> None:
    kind = {"fits": "fits", "vot": "votable", "ecsv": "ascii.ecsv", "txt": "ascii.mrt"}
    plain_file = tmp_path / "c.plain"
    table = Table({"id": ["a", "b"], "n": [1, 2]})
    table.write(plain_file, format=kind[ending.removesuffix(".gz")], overwrite=True)
    file = tmp_path / f"c.{ending}"
    file.write_bytes(gzip.compress(plain_file.read_bytes()))
    assert texts(read_table(file, ["id", "n"])) == {"id": ["a", "b"], "n": ["1", "2"]}


@pytest.mark.parametrize("ending", ["parquet", "h5", "feather"])
def test_the_masks_of_astropy_are_looked_at(tmp_path: Path, ending: str) -> None:
    table = Table({"id": ["a", "b"], "n": [1, -999], "x": [2.5, -1.0]}, masked=True)
    table["n"].mask = table["x"].mask = [False, True]
    file = tmp_path / f"c.{ending}"
    if ending == "h5":
        table.write(file, path="t", serialize_meta=True)
    else:
        table.write(tmp_path / "c.parquet")
    if ending == "feather":
        feather.write_feather(pq.read_table(tmp_path / "c.parquet"), file)
    assert texts(read_table(file, ["id", "n", "x"])) == {
        "id": ["a", "b"],
        "n": ["1", None],
        "x": ["2.5", None],
    }
    assert texts(read_table(file, ["n.mask"])) == {"n.mask": ["False", "True"]}


def test_the_masks_of_vectors_are_looked_at(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "c.h5", "w") as opened:
        opened["v"] = np.array([[1, 2], [3, 4]])
        opened["v.mask"] = np.array([[False, True], [False, False]])
    found = texts(read_table(tmp_path / "c.h5", ["v[0]", "v[1]"]))
    assert (found["v[0]"], found["v[1]"]) == (["1", "3"], [None, "4"])


def test_a_vector_of_any_length_may_have_missing_elements(tmp_path: Path) -> None:
    field = '<FIELD name="v" datatype="int" arraysize="*"><VALUES null="-1"/></FIELD>'
    rows = "<TR><TD>-1 2</TD></TR><TR><TD>1 3 4</TD></TR>"
    (tmp_path / "c.vot").write_text(
        '<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE>'
        f"{field}<DATA><TABLEDATA>{rows}</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"
    )
    assert texts(read_table(tmp_path / "c.vot", ["v[0]"]))["v[0]"] == [None, "1"]


def test_a_scaled_vector_of_any_length_is_refused(tmp_path: Path) -> None:
    vectors = np.array([np.array([1, 2], "i2"), np.array([3, 4], "i2")], dtype=object)
    hdu = fits.BinTableHDU.from_columns([fits.Column("x", "PI()", array=vectors)])
    hdu.writeto(tmp_path / "plain.fits")
    assert texts(read_table(tmp_path / "plain.fits", ["x[0]"]))["x[0]"] == ["1", "3"]
    hdu.header["TSCAL1"] = 0.5
    hdu.writeto(tmp_path / "c.fits")
    assert "column 'x': astropy cannot read vectors" in refusal(tmp_path / "c.fits", ("x[0]",))


def test_a_table_in_hdf5_may_stand_beside_images(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "c.h5", "w") as opened:
        opened["catalogue"] = np.array([("a", 1), ("b", 2)], [("id", "S4"), ("mag", "i4")])
        opened["images"] = np.zeros((2, 4, 4))
    assert texts(read_table(tmp_path / "c.h5", ["id", "mag"])) == ROWS
    with h5py.File(tmp_path / "d.h5", "w") as opened:
        opened["notes"] = np.array([("a", 1)], [("by", "S4"), ("year", "i4")])
        opened["id"] = ["a", "b"]
        opened["mag"] = [1, 2]
    assert texts(read_table(tmp_path / "d.h5", ["id", "mag"])) == ROWS


def test_a_part_of_a_folder_may_be_empty(tmp_path: Path) -> None:
    nothing = pa.table({"id": pa.array([], pa.string()), "mag": pa.array([], pa.null())})
    all_null = pa.table({"id": ["c"], "mag": pa.nulls(1)})
    for name, part in (("a", nothing), ("b", pa.table(ROWS)), ("c", all_null)):
        (tmp_path / "c").mkdir(exist_ok=True)
        mag = part["mag"].cast(pa.int64())
        part = part.set_column(1, "mag", mag) if name == "b" else part
        pq.write_table(part, tmp_path / "c" / f"{name}.parquet")
    table = read_table(tmp_path / "c", ["id", "mag"])
    assert texts(table) == {"id": ["a", "b", "c"], "mag": ["1", "2", None]}
    assert table.columns["mag"].type == pa.int64()
    (tmp_path / "none").mkdir()
    pq.write_table(nothing, tmp_path / "none" / "a.parquet")
    assert "none: has no rows" in refusal(tmp_path / "none", ("id",))


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["12", "3"], [12, 3]),
        (["0.5", "0", "-0.25"], [0.5, 0, -0.25]),
        (["1.25", "1000"], [1.25, 1000]),
        (["0012", "13"], None),
        (["12345678901234567890", "5"], None),
        (["2305843009213693953", "1.5"], None),
    ],
)
def test_texts_become_numbers_where_no_digit_is_lost(
    cells: list[str], expected: list[float] | None
) -> None:
    table = CatalogueTable({"x": pa.array(cells, pa.large_string())}, ["x"])
    assert table.typed("x").to_pylist() == (expected or cells)


def test_a_folder_of_hdf5_files_is_one_table(tmp_path: Path) -> None:
    """As the Multimodal Universe has them: healpix=*/*.hdf5 with a dataset a column."""
    for number in (10, 9):
        folder = tmp_path / "c" / f"healpix={number}"
        folder.mkdir(parents=True)
        with h5py.File(folder / "001-of-001.hdf5", "w") as opened:
            opened["object_id"] = [number, number + 1]
            opened["image_array"] = np.zeros((2, 3, 8, 8))
    found = texts(read_table(tmp_path / "c", ["object_id"]))
    assert found == {"object_id": ["10", "11", "9", "10"]}


def test_a_text_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    """Parquet readers do not look: a fuzz of our own found that."""
    for raw in (pa.array(["a\0b", "c"]), pa.array([b"a\0b", b"c"])):
        file = tmp_path / "c.parquet"
        pq.write_table(pa.table({"id": raw}), file, compression="none", use_dictionary=False)
        file.write_bytes(file.read_bytes().replace(b"a\0b", b"a\xffb"))
        assert str(file) in refusal(file, ("id",))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning")
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "feather", "fits", "vot", "ecsv"])
def test_random_damages_end_in_a_table_or_a_message(tmp_path: Path, ending: str) -> None:
    rows = [{"id": n, "text": f"o{n}", "mag": n / 7, "flag": n % 2 == 0} for n in range(30)]
    file = tmp_path / f"c.{ending}"
    if ending in WRITERS:
        WRITERS[ending](file, rows)
    else:
        kind = {"fits": "fits", "vot": "votable", "ecsv": "ascii.ecsv"}[ending]
        masked(rows).write(file, format=kind)
    whole = file.read_bytes()

    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(25):
        content = bytearray(whole)
        for _ in range(rng.choice([1, 3, 20])):
            start = rng.randrange(len(content))
            removed = rng.choice([0, 1, 1, 30])
            content[start : start + removed] = rng.randbytes(rng.choice([0, 1, 1, 8]))
        file.write_bytes(content)
        try:
            table = read_table(file, list(rows[0]))
        except UserError:
            continue
        for name in table.columns:
            table.texts(name), table.numbers(name), table.typed(name), table.coded(name)


def test_a_name_that_is_too_long_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no catalogue: File name too long"):
        read_table(tmp_path / ("a" * 5000), ["id"])


@pytest.mark.parametrize("as_rows", [False, True])
@pytest.mark.parametrize("kind", ["external", "virtual"])
def test_an_hdf5_table_beside_images_in_other_files_is_read(
    tmp_path: Path, kind: str, as_rows: bool
) -> None:
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["images"] = np.zeros((2, 4, 4))
    with h5py.File(tmp_path / "c.h5", "w") as file:
        if as_rows:
            rows = [(b"a", 1), (b"b", 0)]
            file["table"] = np.array(rows, [("id", "S1"), ("is_lens", "i8")])
        else:
            file["id"], file["is_lens"] = ["a", "b"], [1, 0]
        if kind == "external":
            file["images"] = h5py.ExternalLink("images.h5", "/images")
        else:
            layout = h5py.VirtualLayout((2, 4, 4), "f8")
            layout[...] = h5py.VirtualSource(str(tmp_path / "images.h5"), "images", (2, 4, 4))
            file.create_virtual_dataset("images", layout)
    table = read_table(tmp_path / "c.h5", ["id", "is_lens"])
    assert texts(table) == {"id": ["a", "b"], "is_lens": ["1", "0"]}
    if not as_rows:
        assert "other file" in refusal(tmp_path / "c.h5", ("id", "images")).replace(
            "another", "other"
        )


@pytest.mark.slow
def test_a_text_whose_header_repeats_itself_is_not_read_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lens_hpc.packing.tables.LEAST_SECONDS", 1)
    (tmp_path / "c.ecsv").write_bytes(ecsv_of_merges())
    assert "more than 1 s of the processor's time" in refusal(tmp_path / "c.ecsv")


# ---- some rows at a time ----


def random_table(rng: np.random.Generator, rows: int) -> pa.Table:
    """Return columns of many types, in which anything may be missing."""
    is_missing = rng.random((5, rows)) < 0.3
    words = rng.choice(["x", " y ", "", "12"], rows)
    vectors = pa.array(rng.normal(size=rows * 3).astype("f4"))
    return pa.table(
        {
            "id": pa.array(np.arange(rows)),
            "word": pa.array(words, mask=is_missing[0]).dictionary_encode(),
            "mag": pa.array(rng.normal(size=rows).astype("f4"), mask=is_missing[1]),
            "is_lens": pa.array(rng.random(rows) < 0.5, mask=is_missing[2]),
            "day": pa.array(rng.integers(0, 99, rows).astype("datetime64[D]"), mask=is_missing[3]),
            "flux": pa.FixedSizeListArray.from_arrays(vectors, 3),
            "flux.mask": pa.array(is_missing[4]),
            "nothing": pa.nulls(rows),
        }
    )


@pytest.mark.usefixtures("without_workers")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most_rows", [1, 6, 1000])
def test_a_table_in_pieces_is_the_one_that_is_read_whole(
    tmp_path: Path, seed: int, most_rows: int
) -> None:
    rng = np.random.default_rng(seed)
    for number in range(3):
        table = random_table(rng, int(rng.integers(0, 20)) if number else 20)
        pq.write_table(
            table, tmp_path / f"{number}.parquet", row_group_size=int(rng.integers(1, 9))
        )

    names = {"id", "word", "mag", "is_lens", "day", "flux[1]", "nothing"}
    whole = read_table(tmp_path, names)
    pieces = list(stream_table(tmp_path, names, None, most_rows))
    lengths = [len(piece) for piece in pieces]
    assert lengths[:-1] == [most_rows] * (len(pieces) - 1)
    assert 0 < lengths[-1] <= most_rows
    for name in names:
        assert pa.concat_arrays([piece.columns[name] for piece in pieces]) == whole.columns[name]
        assert {piece.columns[name].type for piece in pieces} == {whole.columns[name].type}


@pytest.mark.parametrize("ending", ["csv", "feather", "parquet"])
def test_any_catalogue_comes_in_pieces(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"catalogue.{ending}"
    frame = pd.DataFrame({"id": list("abcde"), "mag": [1.5, 2, np.nan, 4, 5]})
    write = {"csv": frame.to_csv, "feather": frame.to_feather, "parquet": frame.to_parquet}
    write[ending](file)
    pieces = list(stream_table(file, {"id", "mag"}, None, 2))
    assert [piece.texts("id").to_pylist() for piece in pieces] == [["a", "b"], ["c", "d"], ["e"]]
    assert pieces[1].numbers("mag")[0].to_pylist() == [None, 4]


def test_a_column_that_one_file_lacks_is_told_before_any_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "mag": [2.0]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": [1]}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"b\.parquet: the column mag is not in all files"):
        next(stream_table(tmp_path, {"id", "mag"}, None, 1))


@pytest.mark.slow
@pytest.mark.parametrize("row_group_size", [10_000, 10_000_000])
def test_parquet_is_never_held_whole(tmp_path: Path, row_group_size: int) -> None:
    file = tmp_path / "catalogue.parquet"
    numbers = np.random.default_rng(0).random((2, 1_000_000))
    table = pa.table({"ra": numbers[0], "dec": numbers[1]})
    pq.write_table(table, file, row_group_size=row_group_size)
    whole = table.nbytes

    before = pa.total_allocated_bytes()
    pieces = stream_table(file, {"ra", "dec"}, None, 10_000)
    alive = [pa.total_allocated_bytes() - before for _ in pieces]
    assert len(alive) == 100
    assert 0 < max(alive) < whole / 2


CELLS = ["1", "-3", "2.5", "nan", "n/a", "", "0012", "x", "0x10", "inf", "9" * 17, "9" * 20]


@settings(max_examples=200, deadline=None)
@given(
    words=st.lists(st.sampled_from(CELLS), min_size=1, max_size=3),
    draws=st.lists(st.integers(0, 2), min_size=2, max_size=8),
    cut=st.integers(1, 7),
)
def test_a_column_in_pieces_has_the_type_of_the_whole(
    words: list[str], draws: list[int], cut: int
) -> None:
    cells = [words[draw % len(words)] or None for draw in draws]
    column = pa.array(cells, pa.large_string())
    pieces = [piece for piece in (column[:cut], column[cut:]) if len(piece)]
    data_type = common_type(pieces)
    typed = pa.concat_arrays([with_type(piece, data_type) for piece in pieces])
    assert typed.equals(CatalogueTable({"x": column}, ["x"]).typed("x"))
