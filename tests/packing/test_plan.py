from pathlib import Path

import pytest

from lens_hpc.errors import UserError
from lens_hpc.packing import plan
from tests.conftest import pack_survey, write_survey


def test_wrong_numbers_of_planes_are_named(tmp_path: Path, survey: Path) -> None:
    with pytest.raises(
        UserError, match=r"obj0\.npy: has 2 planes, the recipe names the bands g, r, i"
    ):
        pack_survey(survey, tmp_path / "d", "bands=[g, r, i]")


def test_a_feature_that_training_never_has_is_refused(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", colour=[""] * 40)
    with pytest.raises(UserError, match="colour: missing in every training row"):
        pack_survey(survey, tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_bad_rows_are_listed_with_their_reasons_up_to_twenty(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=80)
    for i in range(0, 50, 2):
        (survey / f"obj{i}.npy").write_bytes(b"junk")
    with pytest.raises(UserError) as error:
        pack_survey(survey, tmp_path / "d")
    assert "rows cannot be packed" in str(error.value)
    assert str(error.value).count("cannot be read as an image") == 20
    assert "or pack the others with on_bad=skip" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_dataset_of_more_shards_than_can_be_read_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = write_survey(tmp_path / "s")
    monkeypatch.setattr(plan, "MOST_SHARDS", 2)
    with pytest.raises(UserError, match=r"would have 3 shards, and may have 2; raise shard_mib"):
        pack_survey(survey, tmp_path / "d")
    assert not (tmp_path / "d").exists()
