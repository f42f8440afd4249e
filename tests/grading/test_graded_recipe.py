"""`pack` takes a graded list as labels, with its soft labels and weights: a join of the recipe."""

from pathlib import Path

import numpy as np
import pandas as pd

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.grading.list_files import write_list
from tests.conftest import pack_survey, write_survey

RECIPE = (
    "join={catalogue: graded.csv, key: id}",
    "where=label >= 0",
    "columns.label=label",
    "columns.target=target",
    "columns.weight=weight",
)


def test_pack_takes_graded_objects_of_a_survey(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s")
    number = np.arange(30) % 4
    graded = pd.DataFrame(
        {
            "id": [f"obj{row}" for row in range(30)],
            "grade": np.array(["A", "B", "X", None], object)[number],
            "label": np.array([1, 1, 0, -1], np.int8)[number],
            "target": np.array([1.0, 0.7, 0.0, np.nan])[number],
            "weight": np.array([1.0, 1.0, 2.0, 1.0])[number],
        }
    )
    write_list(survey, "graded", graded)
    dataset = Dataset(pack_survey(survey, tmp_path / "d", *RECIPE))

    given = graded.set_index("id")
    samples = [sample for split in dataset.values() for sample in split]
    assert len(samples) == (graded["label"] >= 0).sum()
    for sample in samples:
        expected = given.loc[sample.id]
        assert sample.label == expected["label"]
        assert sample.target == np.float32(expected["target"])
        assert sample.weight == expected["weight"]
