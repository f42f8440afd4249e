import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lens_hpc import files
from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.packing import describing, publishing, writing
from lens_hpc.packing.plan import make_plan
from lens_hpc.packing.recipe import PackSettings
from lens_hpc.settings import load
from tests.conftest import call, pack_survey, write_survey


def test_the_manifest_counts_what_is_there(dataset: Path) -> None:
    manifest = json.loads((dataset / "manifest.json").read_text())
    assert {name: split["rows"] for name, split in manifest["splits"].items()} == {
        "train": 28,
        "val": 6,
        "test": 6,
    }
    for name, split in manifest["splits"].items():
        labels = Split(dataset, name).take("labels", np.arange(split["rows"]))
        assert (split["lenses"], split["non_lenses"]) == (
            int(labels.sum()),
            int((1 - labels).sum()),
        )
        assert sum(shard["rows"] for shard in split["shards"]) == split["rows"]
    assert manifest["recipe"]["columns"]["features"] == ["radius", "colour"]
    assert str(dataset.parent) not in json.dumps(manifest)


def test_a_feature_that_rejection_leaves_empty_is_refused(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", colour=["1.5" if i == 5 else "" for i in range(40)])
    (survey / "obj5.npy").write_bytes(b"junk")
    with pytest.raises(UserError, match="colour: missing in every training row"):
        pack_survey(survey, tmp_path / "d", "splits={train: 1.0}", "on_bad=skip")
    assert not (tmp_path / "d").exists()


def test_skip_packs_the_rest_and_says_what_was_left_out(tmp_path: Path, survey: Path) -> None:
    kinds = {"obj13": "unreadable", "obj20": "nan", "obj21": "missing"}
    (survey / "obj13.npy").write_bytes(b"junk")
    np.save(survey / "obj20.npy", np.full((2, 8, 8), np.nan, np.float32))
    (survey / "obj21.npy").unlink()
    dataset = pack_survey(survey, tmp_path / "d", "on_bad=skip")
    manifest = read_manifest(dataset)
    ids = [name for split in manifest.splits for name in Split(dataset, split).ids()]
    assert sorted(ids) == sorted(f"obj{i}" for i in range(40) if f"obj{i}" not in kinds)
    assert manifest.rejected == 3
    rejected = pd.read_csv(dataset / "rejected.csv")
    assert rejected["row"].tolist() == [14, 21, 22]
    assert rejected["id"].tolist() == list(kinds)
    for reason, said in zip(
        rejected["reason"], ("cannot be read", "are NaN", "no such file"), strict=True
    ):
        assert said in reason
    for split in manifest.splits:
        images = Split(dataset, split).take("images", np.arange(manifest.splits[split].rows))
        assert (images.std(axis=(1, 2, 3)) > 0.5).all()
    call("verify", dataset)


def test_no_cell_of_what_was_left_out_is_a_formula(tmp_path: Path) -> None:
    ids = [f'=HYPERLINK("http://{i}")' for i in range(40)]
    survey = write_survey(tmp_path / "s", objid=ids)
    (survey / "obj13.npy").write_bytes(b"junk")
    options = ('images="{id}.npy"', "columns.id=objid", "on_bad=skip")
    dataset = pack_survey(survey, tmp_path / "d", *options)
    assert pd.read_csv(dataset / "rejected.csv")["id"].tolist() == [f"'{ids[13]}"]


def test_identical_cutouts_across_splits_are_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["test" if i < 10 else "train" for i in range(40)]
    survey = write_survey(tmp_path / "s", split=names)
    for twin, original in ((3, 30), (4, 5), (31, 32)):
        shutil.copy(survey / f"obj{original}.npy", survey / f"obj{twin}.npy")
    dataset = pack_survey(survey, tmp_path / "d", "columns.split=split")
    assert read_manifest(dataset).duplicates_across_splits == 1
    assert "1 cutouts are identical to one in another split" in caplog.text
    assert "obj3 (test)" in caplog.text
    assert "obj30 (train)" in caplog.text


def test_shards_without_a_good_row_are_no_duplicates(tmp_path: Path) -> None:
    part = ["train" if i < 600 else "test" for i in range(1200)]
    survey = write_survey(tmp_path / "s", rows=1200, size=23, part=part)
    settings = ("shard_mib=1", "columns.split=part")  # 256 rows a shard
    places = (f"source={survey}", "output=d")
    plan = make_plan(load(PackSettings, survey / "recipe.yaml", [*places, *settings]))
    for split in plan.splits:
        for row in plan.shards_of(split)[1].rows:
            (survey / f"obj{row}.npy").write_bytes(b"junk")
    dataset = pack_survey(survey, tmp_path / "d", *settings, "on_bad=skip")
    assert read_manifest(dataset).rejected == 512
    assert read_manifest(dataset).duplicates_across_splits == 0


def settings_of(survey: Path, output: Path, *overrides: str) -> PackSettings:
    places = [f"source={survey}", f"output={output}"]
    return load(PackSettings, survey / "recipe.yaml", [*places, *overrides])


def test_another_task_may_publish_while_this_one_describes_the_dataset(
    tmp_path: Path, survey: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(settings_of(survey, tmp_path / "d"))
    writing.write_shards(plan)
    open_columns = describing.ColumnReader

    def open_late(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(describing, "ColumnReader", open_columns)
        assert publishing.publish_dataset(plan) is not None
        return open_columns(*arguments, **options)

    monkeypatch.setattr(describing, "ColumnReader", open_late)
    assert publishing.publish_dataset(plan) is None
    call("verify", tmp_path / "d")


def test_a_task_without_shards_may_come_when_the_dataset_gets_its_name(
    tmp_path: Path, survey: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(settings_of(survey, tmp_path / "d"))
    late = make_plan(settings_of(survey, tmp_path / "d", "tasks=9", "task=8"))
    writing.write_shards(plan)
    make_folder = files.make_folder

    def make_late(folder: Path) -> None:
        monkeypatch.setattr(files, "make_folder", make_folder)
        assert publishing.publish_dataset(plan) is not None
        raise UserError(f"{folder}: cannot be made: No such file or directory")

    monkeypatch.setattr(files, "make_folder", make_late)
    writing.write_shards(late)
    assert publishing.publish_dataset(late) is None
    call("verify", tmp_path / "d")
