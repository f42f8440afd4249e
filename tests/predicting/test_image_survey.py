"""Image files as a survey: the pixels that `pack` stores, in the order of the catalogue."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lens_hpc import settings as reading
from lens_hpc.dataset.dataset import Dataset
from lens_hpc.errors import UserError
from lens_hpc.packing.recipe import PackSettings
from lens_hpc.predicting import image_survey
from lens_hpc.predicting.image_survey import ImageSurvey
from lens_hpc.predicting.survey import SurveyToScore
from tests.conftest import pack_survey, write_survey

ROWS = 50
ROWS_OF_A_PART = 16


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the catalogue into four parts."""
    monkeypatch.setattr(image_survey, "ROWS_OF_A_PART", ROWS_OF_A_PART)


def write_positions(folder: Path) -> Path:
    """Write a survey of image files with positions."""
    return write_survey(
        folder,
        ROWS,
        ra=[f"{3.5 * row:g}" for row in range(ROWS)],
        dec=[f"{-0.5 * row:g}" for row in range(ROWS)],
        note=["" if row % 4 == 0 else f"{row}" for row in range(ROWS)],
    )


def open_survey(folder: Path, *words: str, **columns: Any) -> SurveyToScore:
    """Open the survey of a folder, whose labels are not looked at."""
    words = (f"source={folder}", f"output={folder}/out", *words)
    recipe = reading.load(PackSettings, folder / "recipe.yaml", words)
    values = {"label": None, "keep": ("ra", "dec", "note"), **columns}
    recipe = recipe.model_copy(update={"columns": recipe.columns.model_copy(update=values)})
    return ImageSurvey(recipe, folder)


def read_all(
    survey: SurveyToScore, batch_size: int = 7
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the pixels of each id, and the reasons of those that have none."""
    pixels: dict[str, np.ndarray] = {}
    why_not: dict[str, str] = {}
    for part in range(len(survey.parts)):
        rows = survey.rows(part)
        ids = rows.table["id"].to_pylist()
        reasons = dict(rows.reasons)
        for batch in survey.batches(part, rows, batch_size, reasons):
            assert len(batch.rows) <= batch_size
            assert not batch.edge_fraction.any()
            numbers = batch.rows.tolist()
            assert numbers == sorted(numbers)
            pixels |= zip([ids[number] for number in numbers], batch.pixels, strict=True)
        why_not |= {ids[number]: reason for number, reason in reasons.items()}
    assert not pixels.keys() & why_not.keys()
    return pixels, why_not


def packed_images(folder: Path, *words: str) -> dict[str, np.ndarray]:
    """Return what `pack` stores of each id."""
    dataset = Dataset(pack_survey(folder, folder / "packed", *words))
    images: dict[str, np.ndarray] = {}
    for split in dataset.values():
        stored = split.take("images", np.arange(len(split)))
        images |= zip(split.ids().tolist(), stored, strict=True)
    return images


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("size=[6, 10]", "dtype=float16")])
def test_the_pixels_are_those_that_pack_stores(tmp_path: Path, words: tuple[str, ...]) -> None:
    folder = write_positions(tmp_path)
    image = np.load(folder / "obj5.npy")
    image[0, 2, 3] = np.nan
    np.save(folder / "obj5.npy", image)
    words = (*words, "bad_pixels.most=0.1")

    survey = open_survey(folder, *words)
    pixels, reasons = read_all(survey)
    stored = packed_images(folder, *words)
    assert reasons == {}
    assert pixels.keys() == stored.keys()
    for name, expected in stored.items():
        assert pixels[name].dtype == expected.dtype
        np.testing.assert_array_equal(pixels[name], expected)

    candidates = survey.cutouts(1, np.array([4, 0]))
    first = ROWS_OF_A_PART
    np.testing.assert_array_equal(candidates[0], stored[f"obj{first + 4}"])
    np.testing.assert_array_equal(candidates[1], stored[f"obj{first}"])


def test_the_rows_of_a_stack_are_read_alike(tmp_path: Path) -> None:
    folder = write_positions(tmp_path)
    stack = np.stack([np.load(folder / f"obj{row}.npy") for row in range(ROWS)])
    np.save(folder / "stack.npy", stack)
    pixels, reasons = read_all(open_survey(folder, "images=null", "stack=stack.npy"))
    assert reasons == {}
    for row in range(ROWS):
        np.testing.assert_array_equal(pixels[f"obj{row}"], stack[row])


def test_parts_follow_the_catalogue(tmp_path: Path) -> None:
    survey = open_survey(write_positions(tmp_path))
    names = [f"rows-{first:08}" for first in (0, 16, 32, 48)]
    assert [part.name for part in survey.parts] == names
    assert [part.objects for part in survey.parts] == [16, 16, 16, 2]
    assert survey.kind.bands == ("g", "r")
    assert (survey.kind.height, survey.kind.width) == (8, 8)

    tables = [survey.rows(part).table for part in range(4)]
    assert len({str(table.schema) for table in tables}) == 1
    assert tables[0].column_names == ["id", "ra", "dec", "tile", "note"]
    ids = [name for table in tables for name in table["id"].to_pylist()]
    assert ids == [f"obj{row}" for row in range(ROWS)]
    ra = [value for table in tables for value in table["ra"].to_pylist()]
    assert ra == [3.5 * row for row in range(ROWS)]
    notes = [value for table in tables for value in table["note"].to_pylist()]
    assert notes == [None if row % 4 == 0 else row for row in range(ROWS)]


def test_a_row_without_a_usable_cutout_has_a_reason(tmp_path: Path) -> None:
    folder = write_positions(tmp_path)
    (folder / "obj3.npy").unlink()
    np.save(folder / "obj20.npy", np.zeros((2, 8, 8), np.float32))
    np.save(folder / "obj21.npy", np.ones((2, 9, 9), np.float32))
    (folder / "obj22.npy").write_text("no image")

    pixels, reasons = read_all(open_survey(folder))
    assert list(reasons) == ["obj3", "obj20", "obj21", "obj22"]
    assert "obj3.npy: there is no such file" in reasons["obj3"]
    assert "band g: all pixels are 0" in reasons["obj20"]
    assert len(pixels) == ROWS - 4


def test_cutouts_of_another_shape_have_that_as_reason(tmp_path: Path) -> None:
    folder = write_positions(tmp_path)
    rng = np.random.default_rng(0)
    np.save(folder / "obj21.npy", rng.normal(size=(2, 9, 9)).astype(np.float32))
    _, reasons = read_all(open_survey(folder))
    assert list(reasons) == ["obj21"]
    assert "has the shape (2, 9, 9), others have (2, 8, 8)" in reasons["obj21"]


def test_a_part_is_known_by_its_rows_and_files(tmp_path: Path) -> None:
    folder = write_positions(tmp_path)
    before = [part.fingerprint for part in open_survey(folder).parts]
    assert len(set(before)) == 4
    assert [part.fingerprint for part in open_survey(folder).parts] == before

    np.save(folder / "obj20.npy", np.load(folder / "obj21.npy"))
    touched = [part.fingerprint for part in open_survey(folder).parts]
    assert [one == other for one, other in zip(before, touched, strict=True)] == [
        True,
        False,
        True,
        True,
    ]

    catalogue = (folder / "catalogue.csv").read_text()
    (folder / "catalogue.csv").write_text(catalogue.replace(",49\n", ",50\n"))
    changed = [part.fingerprint for part in open_survey(folder).parts]
    assert changed[:3] == touched[:3]
    assert changed[3] != touched[3]


def test_an_id_that_stands_twice_is_refused(tmp_path: Path) -> None:
    folder = write_positions(tmp_path)
    catalogue = (folder / "catalogue.csv").read_text()
    (folder / "catalogue.csv").write_text(catalogue.replace("obj30,", "obj7,"))
    with pytest.raises(UserError, match=r"the id 'obj7' stands in row 7 and in row 30, .* one row"):
        open_survey(folder)


def test_a_file_that_ends_its_reader_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_positions(tmp_path)
    reader = "import os\nimport numpy as np\n\ndef read(path, hdu, key):\n"
    reader += "    if path.endswith('obj21.npy'):\n        os._exit(0)\n    return np.load(path)\n"
    (tmp_path / "ends_its_reader.py").write_text(reader)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("lens_hpc.packing.plan.CUTOUTS_TRIED", 2)

    survey = open_survey(folder, "format=ends_its_reader.read", "code=[ends_its_reader]")
    with pytest.raises(UserError, match=r"obj21\.npy: ends the process that reads it; mend or"):
        read_all(survey)
