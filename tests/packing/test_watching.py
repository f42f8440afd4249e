"""A file that ends its reader, or keeps it for ever, is named; nothing of ours ends with it."""

from pathlib import Path

import numpy as np
import pytest

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.errors import UserError
from lens_hpc.packing import watching
from tests.conftest import pack_survey, write_survey

pytestmark = pytest.mark.slow

READER = """
import ctypes, faulthandler, os, time
import numpy as np

def read(path, hdu, key):
    if path.endswith("obj%d.npy"):
        %s
    return np.load(path)
"""
# In the process that ends, and there alone, pytest need not tell of it.
DEADLY = {
    "segmentation fault": "faulthandler.disable(), ctypes.string_at(0)",
    "abort": "faulthandler.disable(), os.abort()",
    "exit": "os._exit(0)",
}


def survey_with_reader(
    folder: Path, monkeypatch: pytest.MonkeyPatch, row: int, what: str, name: str
) -> tuple[Path, tuple[str, ...]]:
    survey = write_survey(folder / "s", rows=200)
    (folder / f"{name}.py").write_text(READER % (row, what))
    monkeypatch.syspath_prepend(str(folder))
    return survey, (f"format={name}.read", f"code=[{name}]")


# Row 0 is among those that the plan tries, and row 7 is not.
@pytest.mark.parametrize("row", [0, 7])
@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("way", DEADLY)
def test_a_file_that_ends_its_reader_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, row: int, processes: int
) -> None:
    name = f"deadly_{way.replace(' ', '_')}_{row}_{processes}"
    survey, settings = survey_with_reader(tmp_path, monkeypatch, row, DEADLY[way], name)
    with pytest.raises(UserError, match=f"obj{row}.npy: ends the process that reads it; mend or"):
        pack_survey(survey, tmp_path / "d", *settings, f"processes={processes}")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("row", [0, 7])
def test_a_file_that_is_never_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: int
) -> None:
    monkeypatch.setattr(watching, "LONGEST_READ_SECONDS", 1)
    survey, settings = survey_with_reader(
        tmp_path, monkeypatch, row, "time.sleep(1000)", f"endless_{row}"
    )
    with pytest.raises(UserError, match=f"obj{row}.npy: was not read after 1 seconds"):
        pack_survey(survey, tmp_path / "d", *settings, "processes=2")


def test_a_worker_that_was_killed_by_others_is_no_fault_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = tmp_path / "once"
    what = f"(os.path.exists({str(once)!r}) or "
    what += f"(open({str(once)!r}, 'w').close(), faulthandler.disable(), os.abort()))"
    survey, settings = survey_with_reader(tmp_path, monkeypatch, 7, what, "killed_once")
    with pytest.raises(UserError, match="perhaps for want of memory; run the same line again"):
        pack_survey(survey, tmp_path / "d", *settings)
    dataset = Dataset(pack_survey(survey, tmp_path / "d", *settings))
    assert sum(len(split) for split in dataset.values()) == 200
    ids = dataset["train"].ids().tolist()
    image = dataset["train"][3].image
    np.testing.assert_array_equal(image, np.load(survey / f"{ids[3]}.npy"))
