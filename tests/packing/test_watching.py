"""A file that ends its reader, or keeps it for ever, is named; nothing of ours ends with it."""

from pathlib import Path

import numpy as np
import pytest

from lens_hpc import settings as reading
from lens_hpc.dataset.dataset import Dataset
from lens_hpc.errors import UserError
from lens_hpc.packing import watching
from lens_hpc.packing.cutouts import Cutouts
from lens_hpc.packing.image_formats import find_reader
from lens_hpc.packing.recipe import PackSettings
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


@pytest.mark.parametrize("processes", [1, 3])
def test_cutouts_are_read_in_order_and_bad_ones_have_a_reason(
    tmp_path: Path, processes: int
) -> None:
    survey = write_survey(tmp_path / "s", rows=40)
    (survey / "obj5.npy").write_text("no image")
    settings = reading.load(
        PackSettings, survey / "recipe.yaml", [f"source={survey}", f"output={tmp_path / 'd'}"]
    )
    paths = np.array([[f"obj{row}.npy"] for row in range(40)], dtype=object)
    readers = watching.CutoutReaders(Cutouts(settings, survey, paths), processes)

    groups = [list(range(start, min(start + 6, 40))) for start in range(0, 40, 6)]
    for _ in range(2):
        found = list(readers.read(groups))
        assert [len(group) for group in found] == [len(group) for group in groups]
        for row, image in enumerate(image for group in found for image in group):
            if row == 5:
                assert "obj5.npy" in str(image)
            else:
                np.testing.assert_array_equal(image, np.load(survey / f"obj{row}.npy"))


def test_the_file_that_ends_a_reader_of_cutouts_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey, words = survey_with_reader(tmp_path, monkeypatch, 7, "os._exit(0)", "ends_in_a_group")
    places = (f"source={survey}", f"output={tmp_path / 'd'}")
    settings = reading.load(PackSettings, survey / "recipe.yaml", [*places, *words])
    paths = np.array([[f"obj{row}.npy"] for row in range(200)], dtype=object)
    reader = find_reader(settings.format, settings.code)
    readers = watching.CutoutReaders(Cutouts(settings, survey, paths, reader), 2)
    with pytest.raises(UserError, match=r"obj7.npy: ends the process that reads it; mend or"):
        list(readers.read([[0, 1], [6, 7], [8, 9]]))
