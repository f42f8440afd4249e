from pathlib import Path

import pytest

from lens_hpc.errors import UserError
from lens_hpc.packing.tables import read_table
from tests.conftest import write_survey


def refusal(file: Path) -> str:
    with pytest.raises(UserError) as error:
        read_table(file)
    return str(error.value)


def test_a_catalogue_that_is_not_there_is_named(tmp_path: Path) -> None:
    reason = refusal(tmp_path / "catalogue.csv")
    assert "no such catalogue; is source= the folder that holds it?" in reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("id,is_lens\n", "has no rows"),
        ("", "has no rows"),
        ("id,is_lens\na,1,2\n", "row 1 has 3 cells, the header 2; mend the row"),
        ("id,is_lens,x\na,1,2\nb,1\n", "row 2 has 2 cells, the header 3"),
        ("id,is_lens,id\na,1,2\n", "the column 'id' stands twice"),
    ],
)
def test_a_catalogue_that_cannot_be_read_is_named(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "catalogue.csv"
    file.write_text(text)
    assert reason in refusal(file)


def test_a_damaged_fits_table_is_named(tmp_path: Path) -> None:
    file = tmp_path / "catalogue.fits"
    file.write_bytes(b"junk")
    assert "catalogue.fits: cannot be read as a catalogue" in refusal(file)


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    file = write_survey(tmp_path / "s", rows=4) / "catalogue.csv"
    file.write_text("\ufeff" + file.read_text())
    assert read_table(file)["id"][0] == "obj0"


def test_the_last_comment_before_the_rows_is_the_header(tmp_path: Path) -> None:
    file = tmp_path / "catalogue.csv"
    file.write_text("# made by hand\n# id, mag\na, 1\n# a remark\nb, 2\n")
    assert read_table(file).to_dict("list") == {"id": ["a", "b"], "mag": ["1", "2"]}
