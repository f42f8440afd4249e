import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lens_hpc import cli
from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.packing import packing
from lens_hpc.packing.recipe import PackSettings
from lens_hpc.settings import load
from tests.conftest import call, pack_survey, write_survey
from tests.kills import files_of


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, survey: Path) -> None:
    one, again = (files_of(pack_survey(survey, tmp_path / name)) for name in ("a", "b"))
    other = files_of(pack_survey(survey, tmp_path / "c", "seed=1"))
    assert one == again
    assert one["train/shard-00000.h5"] != other["train/shard-00000.h5"]


def damage(survey: Path, kind: str) -> str:
    """Spoil obj13 of a survey; return what the message must say of it."""
    file = survey / "obj13.npy"
    match kind:
        case "unreadable":
            file.write_bytes(b"junk")
            return "cannot be read as an image"
        case "shape":
            np.save(file, np.arange(2 * 9 * 8, dtype=np.float32).reshape(2, 9, 8))
            return "8 x 8 (39, such as obj0.npy), 9 x 8 (1, such as obj13.npy) of 40 tried"
        case "nan":
            np.save(file, np.full((2, 8, 8), np.nan, np.float32))
            return "band g: 64 of 64 pixels are NaN"
        case _:
            file.unlink()
            return "there is no such file"


@pytest.mark.parametrize("kind", ["unreadable", "shape", "nan", "missing"])
def test_a_bad_image_ends_with_2_and_leaves_nothing(
    tmp_path: Path, survey: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    reason = damage(survey, kind)
    output = tmp_path / "out" / "dataset"
    assert (
        cli.main(["pack", str(survey / "recipe.yaml"), f"source={survey}", f"output={output}"]) == 2
    )
    text = capsys.readouterr().err
    assert reason in text
    assert "obj13.npy" in text or kind == "shape"
    assert "Traceback" not in text
    assert not output.parent.exists() or list(output.parent.iterdir()) == []


def test_a_catalogue_without_the_label_column_ends_with_2(
    tmp_path: Path, survey: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "pack",
        str(survey / "recipe.yaml"),
        f"source={survey}",
        f"output={tmp_path / 'd'}",
        "columns.label=lens",
    ]
    assert cli.main(arguments) == 2
    assert "no column 'lens' (columns.label); it has: id, is_lens" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_the_same_line_again_changes_nothing(
    survey: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_of(dataset)
    pack_survey(survey, dataset)
    assert "is packed already" in capsys.readouterr().out
    assert files_of(dataset) == before


def test_a_finished_dataset_needs_no_lock(
    survey: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may lie where nothing can be written, or be looked at by two at once."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("lens_hpc.packing.packing.held", fail)
    pack_survey(survey, dataset)


def test_a_source_that_has_grown_is_not_called_packed(survey: Path, dataset: Path) -> None:
    before = files_of(dataset)
    write_survey(survey, rows=41)
    with pytest.raises(UserError, match="was packed from 40 rows, and the source has 41 now"):
        pack_survey(survey, dataset)
    assert files_of(dataset) == before


def test_an_output_with_another_dataset_is_kept(survey: Path, dataset: Path) -> None:
    before = files_of(dataset)
    with pytest.raises(UserError, match="already holds another dataset, toy; name another folder"):
        pack_survey(survey, dataset, "seed=3")
    assert files_of(dataset) == before


def test_an_empty_output_folder_is_used_and_another_kept(
    tmp_path: Path, survey: Path, dataset: Path
) -> None:
    (tmp_path / "mine").mkdir()
    assert files_of(pack_survey(survey, tmp_path / "mine")) == files_of(dataset)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(UserError, match="already holds something else than a dataset"):
        pack_survey(survey, tmp_path / "other")


def test_a_dry_run_says_all_and_writes_nothing(
    tmp_path: Path, survey: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack_survey(survey, tmp_path / "d", "dry_run=true")
    text = capsys.readouterr().out
    assert "would pack 40 rows, 0 of them rejected" in text
    assert "28 rows: 14 lenses, 14 non-lenses; 1 shard" in text
    assert "(2, 8, 8) (bands, height, width), stored as float32" in text
    assert not list(tmp_path.glob("d*"))


cells = st.sampled_from(["", "0", "1", "2.5", "-1e3", "nan", "x", "1e99"])


rows_of_text = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d", "ä", " e"]),
        st.sampled_from(["0", "1", "", "2"]),
        cells,
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.slow
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=rows_of_text,
    on_bad=st.sampled_from(["error", "skip"]),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_any_small_catalogue_packs_exactly_or_is_refused_whole(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, str]],
    on_bad: str,
    dtype: str,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    source = folder / "s"
    source.mkdir()
    rng = np.random.default_rng(0)
    for name in {row[0].strip() for row in rows}:
        np.save(source / f"{name}.npy", rng.integers(0, 9, size=(1, 4, 4)).astype(np.float32))
    pd.DataFrame(rows, columns=["id", "label", "x"]).to_csv(source / "c.csv", index=False)
    recipe = {"name": "any", "catalogue": "c.csv", "columns": {"label": "label", "features": ["x"]}}
    recipe |= {
        "images": "{id}.npy",
        "bands": ["g"],
        "pixel_scale": 1,
        "units": "u",
        "splits": {"train": 1.0},
    }
    (folder / "r.yaml").write_text(json.dumps(recipe | {"on_bad": on_bad, "dtype": dtype}))
    status = cli.main(
        [
            "pack",
            str(folder / "r.yaml"),
            f"source={source}",
            f"output={folder / 'd'}",
            "processes=1",
        ]
    )
    if status == 2:
        assert sorted(path.name for path in folder.iterdir()) == ["r.yaml", "s"]
        return
    assert status == 0
    split = Split(folder / "d", "train")
    packed = split.take("features", np.arange(len(split)))[:, 0]
    by_id = {name.strip(): (label, x) for name, label, x in rows}
    for row, identifier in enumerate(split.ids()):
        label, x = by_id[identifier]
        assert split.take("labels", np.array([row]))[0] == (int(label) if label else -1)
        np.testing.assert_equal(packed[row], np.float32(float(x or "nan")))
        np.testing.assert_array_equal(
            split.take("images", np.array([row]))[0], np.load(source / f"{identifier}.npy")
        )
    names = [row[0].strip() for row in rows]
    good = [
        n
        for n, label, x in rows
        if names.count(n.strip()) == 1 and label != "2" and x not in ("x", "1e99")
    ]
    assert sorted(split.ids()) == sorted(name.strip() for name in good)


# ---- the result ----


def test_the_result_says_what_happened(tmp_path: Path, survey: Path) -> None:
    output = tmp_path / "d"

    def pack(*overrides: str) -> packing.Packed:
        return call(
            "pack", survey / "recipe.yaml", f"source={survey}", f"output={output}", *overrides
        )

    planned = pack("dry_run=true")
    assert planned.manifest is None
    assert repr(planned) == f"<Packed: would pack 40 rows, 0 of them rejected, into {output}>"

    half = pack("task=1", "tasks=2")
    assert (half.manifest, half.text) == (None, "")
    assert repr(half) == f"<Packed: this task's shards of {output}; the last task publishes it>"

    packed = pack()
    assert packed.is_new
    assert packed.manifest == read_manifest(output)
    assert repr(packed) == f"<Packed {output}: rows train 28, val 6, test 6>"
    assert packed.text.startswith(f"{output}\n  train            28 rows: 14 lenses")
    assert "\n  audit at first sight: " in packed.text

    again = pack()
    assert not again.is_new
    assert again.manifest == packed.manifest
    assert "audit at first sight" not in again.text


def test_the_room_prints_nothing(
    tmp_path: Path, survey: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [f"source={survey}", f"output={tmp_path / 'd'}"]
    packing.pack_survey(load(PackSettings, survey / "recipe.yaml", places))
    assert capsys.readouterr() == ("", "")
