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


def test_bad_rows_are_listed_by_the_kind_of_their_reason(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=80)
    for i in range(0, 10, 2):
        (survey / f"obj{i}.npy").write_bytes(b"junk")
    (survey / "obj5.npy").write_bytes(b"")
    with pytest.raises(UserError) as error:
        pack_survey(survey, tmp_path / "d")

    image = "cannot be read as an image"
    junk = f"{image}: it is no NumPy file: it begins with 'junk'"
    assert str(error.value).splitlines() == [
        f"{survey}/catalogue.csv: 6 of 80 rows cannot be packed:",
        f"  row 1, id obj0: {survey}/obj0.npy: {junk}",
        f"  row 3, id obj2: {survey}/obj2.npy: {junk}",
        f"  row 5, id obj4: {survey}/obj4.npy: {junk}",
        "  and 2 rows more for the same reason",
        f"  row 6, id obj5: {survey}/obj5.npy: {image}: it is empty",
        "Mend them, or pack the others with on_bad=skip",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_dataset_of_more_shards_than_can_be_read_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = write_survey(tmp_path / "s")
    monkeypatch.setattr(plan, "MOST_SHARDS", 2)
    with pytest.raises(UserError, match=r"would have 3 shards, and may have 2; raise shard_mib"):
        pack_survey(survey, tmp_path / "d")
    assert not (tmp_path / "d").exists()
