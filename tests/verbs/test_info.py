from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lens_hpc.errors import UserError
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


def test_a_folder_that_is_no_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a packed dataset"):
        call("info", tmp_path)
