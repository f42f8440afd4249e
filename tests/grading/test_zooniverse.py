"""Volunteers get a picture of each candidate, and are told nothing else."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from lens_hpc.grading.zooniverse import write_manifest, write_pictures

TABLE = pd.DataFrame(
    {
        "rank": [1, 2],
        "item": ["i000007", "i000001"],
        "id": ["a, é", "b"],
        "ra": [10.5, np.nan],
        "dec": [-3.0, np.nan],
        "grade": ["A", None],
        "mean_grade": [2.8, np.nan],
        "score": [4.5, -1.0],
        "probability": [0.9, 0.1],
        "known_name": pd.array([None, None], dtype="string"),
    }
)


def test_each_row_has_its_picture(tmp_path: Path) -> None:
    (tmp_path / "zooniverse").mkdir()
    images = np.random.default_rng(0).normal(size=(2, 1, 8, 8)).astype(np.float32)
    images[1] = 0
    write_pictures(tmp_path, TABLE, images, ("g",))
    write_manifest(tmp_path, TABLE)

    with (tmp_path / "zooniverse.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["zooniverse/i000007.png", "zooniverse/i000001.png"]
    brightness = []
    for row in rows:
        with Image.open(tmp_path / row["image"]) as picture:
            assert picture.size == (512, 512)
            brightness.append(np.asarray(picture).std())
    assert brightness[0] > 10
    assert brightness[1] == 0


def test_what_is_known_is_hidden_from_volunteers(tmp_path: Path) -> None:
    write_manifest(tmp_path, TABLE)
    with (tmp_path / "zooniverse.csv").open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert [name for name in first if not name.startswith("#")] == ["image"]
    assert (first["#id"], first["#ra"], first["#grade"]) == ("a, é", "10.5", "A")
    assert (second["#ra"], second["#grade"], second["#known_name"]) == ("", "", "")
