from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.reporting import pictures
from lens_hpc.verbs import info
from tests.conftest import call


def test_it_says_what_is_inside(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("info", dataset)
    text = capsys.readouterr().out
    assert "toy\n" in text
    assert "bands     g, r; 8 x 8 px of 0.2 arcsec; float32; counts" in text
    assert [line.split()[:5] for line in text.splitlines() if line.startswith("  train")] == [
        ["train", "28", "14", "14", "0"]
    ]
    (colour,) = (line.split() for line in text.splitlines() if line.startswith("  colour"))
    assert colour[-1] == "6"


def test_it_draws_lenses_and_non_lenses(dataset: Path, tmp_path: Path) -> None:
    call("info", dataset, f"figure={tmp_path / 'sheet.png'}", "split=val")
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.format == "PNG"
        assert np.asarray(picture.convert("L")).std() > 10


def test_each_cutout_has_the_scale_bar_of_the_dataset(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(pictures, "draw_bar", lambda _, bar: drawn.append(bar))
    call("info", dataset, f"figure={tmp_path / 'sheet.png'}", "split=val")
    # A cutout of 8 pixels is 1.6 arcsec wide.
    assert drawn == [(0.5, pytest.approx(31.25))] * len(Split(dataset, "val"))


def test_a_folder_that_is_no_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a packed dataset"):
        call("info", tmp_path)


@pytest.mark.parametrize(
    ("figure", "told"),
    [
        ("nodir/a.png", "there is no folder nodir; make it first"),
        ("a.xyz", "must end in .png"),
        ("a", "must end in .png"),
        ("folder.png", "is no file that could be replaced"),
        ("device.png", "is no file that could be replaced"),
    ],
)
def test_a_figure_that_cannot_be_drawn_is_refused_before_work(
    figure: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "device.png").symlink_to("/dev/null")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=f"figure.*{told}"):
        call("info", tmp_path / "no dataset", f"figure={figure}")
    assert sorted(tmp_path.iterdir()) == before


def test_a_split_without_rows_is_not_drawn(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Split, "__len__", lambda _: 0)
    monkeypatch.setattr(info, "_count_missing", lambda _: ())
    with pytest.raises(UserError, match="val has no rows to draw"):
        call("info", dataset, f"figure={tmp_path}/a.png", "split=val")
