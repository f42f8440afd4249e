import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.grading.grade_settings import GradeSettings
from lens_hpc.grading.grading_folder import Grading, begin_grading
from lens_hpc.grading.shown_items import ShownItems
from lens_hpc.grading.views import sheet_png


def test_nothing_tells_what_an_item_is(grading_once: Grading) -> None:
    shown = ShownItems(grading_once)
    facts = shown.facts(0, len(shown))
    assert [one.pop("item") for one in facts] == grading_once.items["item"].tolist()
    # Hidden galaxies have neither scores nor positions here, so nothing has.
    nothing = {"score": None, "probability": None, "ra": None, "dec": None, "columns": {}}
    assert all(one == nothing for one in facts)
    told = json.dumps([shown.describe(), shown.facts(0, 50)])
    for secret in ("known", "ordinary", "candidate", "obj", "hidden", "truth"):
        assert secret not in told


def test_without_hidden_ones_scores_and_positions_are_shown(made: Path, tmp_path: Path) -> None:
    settings = GradeSettings(candidates=made / "candidates", output=tmp_path / "g", limit=3)
    grading = begin_grading(settings)
    shown = ShownItems(grading)
    assert shown.describe()["has_scores"]

    rows = grading.items["row"].to_numpy()[1:]
    kept = Split(made / "candidates", "candidates").kept_columns()
    expected = kept[["logit", "probability", "ra", "dec"]].iloc[rows].to_numpy(float).tolist()
    assert shown.facts(1, 10) == [
        {
            "item": f"i00000{number}",
            "score": logit,
            "probability": probability,
            "ra": ra,
            "dec": dec,
            "columns": {},
        }
        for number, (logit, probability, ra, dec) in enumerate(expected, start=1)
    ]


def test_pictures_are_those_of_the_items(grading_once: Grading) -> None:
    shown = ShownItems(grading_once)
    items = grading_once.items
    images = shown.images(10, 30)
    for image, (dataset, split, row) in zip(
        images, items[["dataset", "split", "row"]][10:40].to_numpy().tolist(), strict=True
    ):
        np.testing.assert_array_equal(image, Split(dataset, split)[row].image)

    assert shown.sheet(10, 30, "asinh", 16) == sheet_png(images, ("g", "r"), "asinh", 16)
    with Image.open(io.BytesIO(shown.cutout("i000049", "r", 100))) as picture:
        assert picture.size == (100, 100)
    assert shown.images(49, 5)[0].shape == (2, 8, 8)
    assert shown.images(50, 5) == []


def test_a_damaged_cutout_is_told_and_not_shown(made: Path, tmp_path: Path) -> None:
    dataset = shutil.copytree(made / "candidates", tmp_path / "candidates")
    settings = GradeSettings(candidates=dataset, output=tmp_path / "g")
    shown = ShownItems(begin_grading(settings))
    shard = dataset / "candidates" / "shard-00000.h5"
    with shard.open("r+b") as file:
        file.seek(Split(dataset, "candidates")._layouts[0]["images"].offset + 100)
        file.write(b"\xff\xff")
    with pytest.raises(UserError, match=r"shard-00000.h5: is damaged in rows 0"):
        shown.images(0, 1)
