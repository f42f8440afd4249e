from pathlib import Path

import numpy as np
import pytest

from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.dataset.split import Split
from lens_hpc.dataset.training_rows import hash_rows, write_row_hashes
from lens_hpc.errors import UserError
from lens_hpc.layout import TRAINING_ROWS
from lens_hpc.scoring.provenance import check_same_survey, find_rows_seen
from tests.conftest import pack_survey


@pytest.mark.parametrize(
    ("change", "key", "told"),
    [
        ({"pixel_scale_arcsec": 0.21}, "pixel_scale", "pixels of 0.21 arcsec, .* trained on 0.2"),
        ({"pixel_scale_arcsec": 0.05}, "pixel_scale", "pixels of 0.05 arcsec"),
        ({"units": "Jy"}, "units", "units of Jy, where the run was trained on counts"),
        (
            {"zero_point": {"g": None, "r": 22.5}},
            "units",
            "a zero point of 22.5 in r, where the run was trained on 27, so that counts mean",
        ),
    ],
)
def test_another_kind_of_survey_is_refused_unless_allowed(
    dataset: Path, change: dict[str, object], key: str, told: str
) -> None:
    training = read_manifest(dataset).model_copy(update={"zero_point": {"g": 25.0, "r": 27.0}})
    scored = training.model_copy(update=change)
    with pytest.raises(UserError, match=rf"{told}.*allow=\[{key}\]"):
        check_same_survey(scored.kind, training.kind)
    (difference,) = check_same_survey(scored.kind, training.kind, [key])
    assert difference.split(" of ")[0] in told


def test_the_same_kind_has_no_difference(dataset: Path) -> None:
    training = read_manifest(dataset)
    nearly = training.model_copy(update={"pixel_scale_arcsec": 0.202})
    assert check_same_survey(training.kind, training.kind) == []
    assert check_same_survey(nearly.kind, training.kind) == []


def test_rows_that_a_run_was_trained_on_are_known_in_another_packing(
    tmp_path: Path, survey: Path, dataset: Path
) -> None:
    run = tmp_path / "best"
    run.mkdir()
    write_row_hashes(run / TRAINING_ROWS, hash_rows(Split(dataset, "train")))

    other = pack_survey(survey, tmp_path / "other", "splits={train: 0.5, test: 0.5}", "seed=7")
    test = Split(other, "test")
    seen = find_rows_seen(test, [tmp_path / "older run", run])
    assert seen is not None
    trained = set(Split(dataset, "train").ids())
    expected = np.array([text in trained for text in test.ids()])
    np.testing.assert_array_equal(seen.rows, expected)
    assert seen.count == seen.by_pixels == seen.by_id == expected.sum() > 0
    assert seen.as_dict() == {"by_pixels": seen.count, "by_position": 0, "by_id": seen.count}


def test_of_runs_that_kept_nothing_nothing_is_known(dataset: Path, tmp_path: Path) -> None:
    assert find_rows_seen(Split(dataset, "test"), [tmp_path]) is None
