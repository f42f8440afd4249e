"""A finished dataset is packed already only if nothing of its source has changed."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.errors import UserError
from lens_hpc.packing import source_record
from tests.conftest import pack_survey, write_survey
from tests.kills import files_of

pytestmark = pytest.mark.slow


def edit_cell(survey: Path, row: int, column: str, value: str) -> None:
    file = survey / "catalogue.csv"
    with file.open(newline="") as stream:
        table = list(csv.DictReader(stream))
    table[row][column] = value
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, table[0])
        writer.writeheader()
        writer.writerows(table)


def edit_pixels(survey: Path) -> None:
    """Change one pixel of obj7, and let size and time be as they were."""
    file = survey / "obj7.npy"
    before = file.stat()
    image = np.load(file)
    image[1, 2, 3] += 1
    np.save(file, image)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "label": (lambda survey: edit_cell(survey, 5, "is_lens", "0"), "labels of obj5"),
    "unlabelled": (lambda survey: edit_cell(survey, 5, "is_lens", ""), "labels of obj5"),
    "feature": (lambda survey: edit_cell(survey, 6, "radius", "9.5"), "features of obj6"),
    "missing": (lambda survey: edit_cell(survey, 6, "radius", ""), "features of obj6"),
    "id": (lambda survey: edit_cell(survey, 7, "id", "obj7b"), "ids"),
    "group": (lambda survey: edit_cell(survey, 8, "field", "z"), "groups of obj8"),
    "kept": (lambda survey: edit_cell(survey, 8, "ra", "1.25"), "columns.keep"),
    "pixel": (edit_pixels, "images of obj7"),
}


def rich_survey(folder: Path) -> Path:
    fields = [f"f{i // 2}" for i in range(40)]
    return write_survey(folder, field=fields, ra=[f"{i}.5" for i in range(40)])


SETTINGS = ("columns.group=field", "columns.keep=[ra]")


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_source_is_not_called_packed(tmp_path: Path, change: str) -> None:
    survey = rich_survey(tmp_path / "s")
    dataset = pack_survey(survey, tmp_path / "d", *SETTINGS)
    before = files_of(dataset)
    edit, told = CHANGES[change]
    edit(survey)
    if change == "id":
        shutil.copy(survey / "obj7.npy", survey / "obj7b.npy")

    with pytest.raises(UserError, match="its source has changed since it was packed") as error:
        pack_survey(survey, dataset, *SETTINGS)
    assert told in str(error.value)
    assert "Name another output, or delete this one to pack it anew" in str(error.value)
    assert files_of(dataset) == before


def test_what_the_recipe_does_not_use_may_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    survey = rich_survey(tmp_path / "s")
    dataset = pack_survey(survey, tmp_path / "d")
    edit_cell(survey, 8, "ra", "1.25")
    edit_cell(survey, 3, "radius", f"{float(read_cell(survey, 3, 'radius')):.9f}")
    pack_survey(survey, dataset)
    assert "is packed already" in capsys.readouterr().out


def read_cell(survey: Path, row: int, column: str) -> str:
    with (survey / "catalogue.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))[row][column]


def test_where_only_times_differ_the_pixels_decide(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = write_survey(tmp_path / "s")
    dataset = pack_survey(survey, tmp_path / "d", "processes=1")
    looked_at: list[str] = []
    inner = source_record._changed_in_shard

    def spy(plan: object, manifest: object, shard: object) -> object:
        looked_at.append(shard.file)  # type: ignore[attr-defined]
        return inner(plan, manifest, shard)  # type: ignore[arg-type]

    monkeypatch.setattr(source_record, "_changed_in_shard", spy)
    pack_survey(survey, dataset)
    assert looked_at == []
    for file in survey.glob("*.npy"):
        os.utime(file, ns=(0, 0))
    pack_survey(survey, dataset)
    assert len(looked_at) == 3
    assert capsys.readouterr().out.count("is packed already") == 2


def test_a_row_that_was_rejected_and_is_mended_is_a_change(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s")
    whole = (survey / "obj9.npy").read_bytes()
    (survey / "obj9.npy").write_bytes(b"junk")
    dataset = pack_survey(survey, tmp_path / "d", "on_bad=skip")
    os.utime(survey / "obj9.npy", ns=(0, 0))
    pack_survey(survey, dataset, "on_bad=skip")
    (survey / "obj9.npy").write_bytes(whole)
    with pytest.raises(UserError, match="images of obj9"):
        pack_survey(survey, dataset, "on_bad=skip")


def test_a_stack_that_was_touched_is_compared(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s")
    images = np.stack([np.load(survey / f"obj{i}.npy") for i in range(40)])
    np.save(survey / "all.npy", images)
    settings = ("images=null", "stack=all.npy")
    dataset = pack_survey(survey, tmp_path / "d", *settings)
    os.utime(survey / "all.npy", ns=(0, 0))
    pack_survey(survey, dataset, *settings)
    images[33] += 1
    np.save(survey / "all.npy", images)
    with pytest.raises(UserError, match="images of obj33"):
        pack_survey(survey, dataset, *settings)


def test_touched_files_leave_a_manifest_of_the_same_rows(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s")
    one = read_manifest(pack_survey(survey, tmp_path / "a"))
    os.utime(survey / "obj1.npy", ns=(0, 0))
    other = read_manifest(pack_survey(survey, tmp_path / "b"))
    assert one != other
    assert one.is_of_same_rows(other)
    assert not one.is_of_same_rows(read_manifest(pack_survey(survey, tmp_path / "c", "seed=1")))


def test_a_recipe_that_is_older_than_a_setting_is_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    survey = write_survey(tmp_path / "s")
    dataset = pack_survey(survey, tmp_path / "d")
    file = dataset / "manifest.json"
    tree = json.loads(file.read_text())
    del tree["recipe"]["stack_labels"]
    del tree["recipe"]["columns"]["keep"]
    file.write_text(json.dumps(tree))
    pack_survey(survey, dataset)
    assert "is packed already" in capsys.readouterr().out
    with pytest.raises(UserError, match="already holds another dataset"):
        pack_survey(survey, dataset, "columns.keep=[radius]")
