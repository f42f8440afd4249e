import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lens_hpc import files, layout
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.grading.grade_settings import GradeSettings
from lens_hpc.grading.grading_folder import Grading, begin_grading, open_grading


def settings_of(made: Path, output: Path, **others: Any) -> GradeSettings:
    hidden = made / "hidden"
    same = {"known": hidden, "ordinary": hidden, "hidden_share": 0.2}
    values = {"candidates": made / "candidates", "output": output, **same, **others}
    return GradeSettings.model_validate(values)


@pytest.fixture
def begun(made: Path, tmp_path: Path) -> Path:
    """A grading of a test's own."""
    return shutil.copytree(made / "grading", tmp_path / "grading")


def test_the_same_settings_make_the_same_items_and_the_seed_others(
    made: Path, grading_once: Grading, tmp_path: Path
) -> None:
    again = begin_grading(settings_of(made, tmp_path / "again"))
    assert again.record == grading_once.record
    pd.testing.assert_frame_equal(again.items, grading_once.items)

    other = begin_grading(settings_of(made, tmp_path / "other", seed=1))
    assert other.record.fingerprint != again.record.fingerprint
    assert (
        other.record.counts == again.record.counts == {"candidate": 40, "known": 5, "ordinary": 5}
    )


def test_what_was_begun_goes_on_though_the_data_lie_elsewhere(
    made: Path, begun: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(made / "hidden", tmp_path / "moved")
    # A whole prediction is as good as its candidates.
    shutil.copytree(made / "candidates", tmp_path / "prediction" / "candidates")
    elsewhere = {"candidates": tmp_path / "prediction", "known": moved, "port": 8000}
    before = files_in(begun)
    grading = begin_grading(settings_of(made, begun, **elsewhere))
    read = open_grading(begun)
    assert grading.record == read.record
    pd.testing.assert_frame_equal(grading.items, read.items)
    assert files_in(begun) == before


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_other_settings_and_data_are_refused_with_all_that_differs(made: Path, begun: Path) -> None:
    others = {
        "candidates": made / "hidden",
        "ordinary": None,
        "injected": made / "hidden",
        "seed": 3,
        "limit": 7,
        "choose": {"top": 0.5, "random": 0.5},
    }
    with pytest.raises(UserError) as refused:
        begin_grading(settings_of(made, begun, **others))
    assert str(refused.value) == (
        f"output = {begun}: was begun with others (candidate: {made}/candidates there; injected: "
        f'none there; ordinary: {made}/hidden there; choose: "top" there, '
        '{"top": 0.5, "random": 0.5} here; limit: null there, 7 here; seed: 0 there, 3 here), and '
        "what is graded never changes; name another folder, or give the same again"
    )


def test_a_folder_of_something_else_is_refused(made: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds something else than a grading; name another"):
        begin_grading(settings_of(made, tmp_path))


def test_what_a_killed_start_has_left_is_begun_anew(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(files, "write_text", kill)
        begin_grading(settings_of(made, tmp_path / "g", seed=5))
    assert (tmp_path / "g" / layout.ITEMS).is_file()
    files.own_partial(tmp_path / "g" / layout.ITEMS).touch()
    grading = begin_grading(settings_of(made, tmp_path / "g"))
    assert files.names_in(tmp_path / "g") == {path.name for path in (tmp_path / "g").iterdir()}
    pd.testing.assert_frame_equal(grading.items, open_grading(tmp_path / "g").items)


def test_damage_is_named(begun: Path, tmp_path: Path) -> None:
    items = begun / layout.ITEMS
    table = pd.read_parquet(items)
    table[::-1].to_parquet(items)
    with pytest.raises(UserError, match=r"items.parquet: is not as it was when the grading began"):
        open_grading(begun)
    items.write_bytes(b"nothing")
    with pytest.raises(UserError, match=rf"{begun}: is damaged \(.*\); copy it again"):
        open_grading(begun)
    (begun / layout.GRADING).write_text("{")
    with pytest.raises(UserError, match=r"/grading\.json: is damaged \(Invalid JSON: .*\); copy"):
        open_grading(begun)
    with pytest.raises(UserError, match=r"is no grading: it has no grading\.json; make one with"):
        open_grading(tmp_path / "none")


def test_a_random_choice_is_smaller_and_has_its_chance(made: Path, tmp_path: Path) -> None:
    chosen = begin_grading(settings_of(made, tmp_path / "g", choose="random", limit=10)).items
    candidates = chosen[chosen["kind"] == "candidate"]
    assert len(candidates) == 10
    assert set(candidates["drawn"]) == {"random"}
    kept = Split(made / "candidates", "candidates").kept_columns()
    drawn_before = kept["inclusion_probability"].iloc[candidates["row"]].to_numpy(float)
    np.testing.assert_allclose(candidates["inclusion_probability"], 0.25 * drawn_before)


def test_diverse_candidates_are_told_apart_by_the_runs_model(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def embed(run: Path, split: Split, code: tuple[str, ...]) -> np.ndarray:
        asked.append((run, split.name, code))
        # The last row is far from the first, and all others are like that one.
        points = np.zeros((len(split), 2))
        points[-1] = 1
        return points

    monkeypatch.setattr("lens_hpc.scoring.embeddings.embed_split", embed)
    diverse = {"choose": "diverse", "limit": 2, "run": tmp_path / "run", "code": ("mine",)}
    items = begin_grading(settings_of(made, tmp_path / "g", **diverse)).items
    candidates = items[items["kind"] == "candidate"]
    assert sorted(candidates["row"]) == [0, 39]
    assert asked == [(tmp_path / "run", "candidates", ("mine",))]

    # The others need no model.
    begin_grading(settings_of(made, tmp_path / "other", run=tmp_path / "run"))
    assert len(asked) == 1
