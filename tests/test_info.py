from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lens_hpc import UserError, info
from lens_hpc.analysis import cutouts


def test_it_says_what_is_inside(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info.run(dataset, [])
    text = capsys.readouterr().out
    assert "toy\n" in text
    assert "bands     g, r; 8 x 8 px of 0.2 arcsec; float32; counts" in text
    assert [line.split()[:5] for line in text.splitlines() if line.startswith("  train")] == [
        ["train", "28", "14", "14", "0"]
    ]
    (colour,) = (line.split() for line in text.splitlines() if line.startswith("  colour"))
    assert colour[-1] == "6"


def test_it_draws_lenses_and_non_lenses(dataset: Path, tmp_path: Path) -> None:
    info.run(dataset, [f"figure={tmp_path / 'sheet.png'}", "split=val"])
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.format == "PNG"
        assert np.asarray(picture.convert("L")).std() > 10


def test_a_folder_that_is_no_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a packed dataset"):
        info.run(tmp_path, [])


@pytest.mark.parametrize("bands", [1, 2, 3, 5])
def test_composites_keep_colour_and_show_the_faint(bands: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(0, 1, size=(bands, 40, 40))
    image[:, 18:22, 18:22] += 500
    image[-1 if bands < 3 else 2, 5:8, 5:8] += 30
    picture = cutouts.composite(image, tuple("grizy"[:bands]))
    assert picture.shape == (40, 40, 3)
    assert picture.min() >= 0
    assert picture.max() <= 1
    assert picture[19, 19].mean() > 0.5
    sky = picture[25:].mean()
    if bands >= 3:
        assert picture[6, 6, 0] > 3 * sky
        assert picture[6, 6, 0] > 2 * picture[6, 6, 2]
    np.testing.assert_array_equal(cutouts.composite(np.full((3, 2, 2), 255, np.uint8), ("r", "g", "b")), 1)
