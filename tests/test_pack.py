import errno
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lens_hpc import UserError, cli, config, verify
from lens_hpc.data import shards
from lens_hpc.data.plan import make_plan
from lens_hpc.data.reader import Split
from lens_hpc.data.shards import read_manifest
from tests.conftest import pack_survey, write_survey
from tests.kills import files_of, kill_and_restart


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, survey: Path) -> None:
    one, again = (files_of(pack_survey(survey, tmp_path / name)) for name in ("a", "b"))
    other = files_of(pack_survey(survey, tmp_path / "c", "seed=1"))
    assert one == again
    assert one["train/shard-00000.h5"] != other["train/shard-00000.h5"]


def test_the_manifest_counts_what_is_there(dataset: Path) -> None:
    manifest = json.loads((dataset / "manifest.json").read_text())
    assert {name: split["rows"] for name, split in manifest["splits"].items()} == {"train": 28, "val": 6, "test": 6}
    for name, split in manifest["splits"].items():
        labels = Split(dataset, name).take("labels", np.arange(split["rows"]))
        assert (split["lenses"], split["non_lenses"]) == (int(labels.sum()), int((1 - labels).sum()))
        assert sum(shard["rows"] for shard in split["shards"]) == split["rows"]
    assert manifest["recipe"]["columns"]["features"] == ["radius", "colour"]
    assert str(dataset.parent) not in json.dumps(manifest)


def test_blocks_are_fair_samples(tmp_path: Path) -> None:
    sorted_labels = ["0"] * 2400 + ["1"] * 1600
    survey = write_survey(tmp_path / "s", rows=4000, size=4, is_lens=sorted_labels)
    split = Split(pack_survey(survey, tmp_path / "d", "splits={train: 1.0}"), "train")
    labels = split.take("labels", np.arange(len(split)))
    blocks = labels[: len(labels) // 256 * 256].reshape(-1, 256).sum(axis=1)
    sigma = np.sqrt(256 * 0.4 * 0.6)
    assert abs(blocks - 256 * 0.4).max() < 4 * sigma
    assert 0.4 * sigma < blocks.std() < 1.8 * sigma


def test_splits_come_from_a_column(tmp_path: Path) -> None:
    names = ["test" if i < 10 else "train" for i in range(40)]
    survey = write_survey(tmp_path / "s", split=names)
    dataset = pack_survey(survey, tmp_path / "d", "columns.split=split")
    assert sorted(Split(dataset, "test").ids()) == sorted(f"obj{i}" for i in range(10))
    assert len(Split(dataset, "train")) == 30


def test_groups_are_kept_whole(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", field=[f"f{i // 4}" for i in range(40)])
    dataset = pack_survey(survey, tmp_path / "d", "columns.group=field")
    fields = [{int(name[3:]) // 4 for name in Split(dataset, split).ids()} for split in ("train", "val", "test")]
    assert sum(len(part) for part in fields) == len(set.union(*fields)) == 10


def test_pixels_are_stored_as_asked(tmp_path: Path, survey: Path) -> None:
    dataset = pack_survey(survey, tmp_path / "d", "dtype=float16")
    assert Split(dataset, "train").take("images", np.array([0])).dtype == np.float16


def damage(survey: Path, kind: str) -> str:
    """Spoil obj13 of a survey; return what the message must say of it."""
    file = survey / "obj13.npy"
    match kind:
        case "unreadable":
            file.write_bytes(b"junk")
            return "cannot be read as an image"
        case "shape":
            np.save(file, np.arange(2 * 9 * 8, dtype=np.float32).reshape(2, 9, 8))
            return "cutouts differ in height x width: 8 x 8 (39), 9 x 8 (1)"
        case "nan":
            np.save(file, np.full((2, 8, 8), np.nan, np.float32))
            return "128 of 128 pixels are NaN"
        case _:
            file.unlink()
            return "there is no such file"


@pytest.mark.parametrize("kind", ["unreadable", "shape", "nan", "missing"])
def test_a_bad_image_ends_with_2_and_leaves_nothing(
    tmp_path: Path, survey: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    said = damage(survey, kind)
    output = tmp_path / "out" / "dataset"
    assert cli.main(["pack", str(survey / "recipe.yaml"), f"source={survey}", f"output={output}"]) == 2
    text = capsys.readouterr().err
    assert said in text
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


def test_the_same_line_again_changes_nothing(survey: Path, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(dataset)
    pack_survey(survey, dataset)
    assert "is packed already" in capsys.readouterr().out
    assert files_of(dataset) == before


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


def test_wrong_numbers_of_planes_are_named(tmp_path: Path, survey: Path) -> None:
    with pytest.raises(UserError, match=r"obj0\.npy: has 2 planes, the recipe names the bands g, r, i"):
        pack_survey(survey, tmp_path / "d", "bands=[g, r, i]")


def test_a_feature_that_training_never_has_is_refused(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", colour=[""] * 40)
    with pytest.raises(UserError, match="colour: missing in every training row"):
        pack_survey(survey, tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_a_feature_that_rejection_leaves_empty_is_refused(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", colour=["1.5" if i == 5 else "" for i in range(40)])
    (survey / "obj5.npy").write_bytes(b"junk")
    with pytest.raises(UserError, match="colour: missing in every training row"):
        pack_survey(survey, tmp_path / "d", "splits={train: 1.0}", "on_bad=skip")
    assert not (tmp_path / "d").exists()


def test_a_split_without_rows_is_refused(tmp_path: Path, survey: Path) -> None:
    with pytest.raises(UserError, match="no row is left for the split 'tiny'"):
        pack_survey(survey, tmp_path / "d", "splits={train: 0.99, tiny: 0.01}")


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
    for reason, said in zip(rejected["reason"], ("cannot be read", "are NaN", "no such file"), strict=True):
        assert said in reason
    for split in manifest.splits:
        images = Split(dataset, split).take("images", np.arange(manifest.splits[split].rows))
        assert (images.std(axis=(1, 2, 3)) > 0.5).all()
    verify.run(dataset, [])


def test_a_dry_run_says_all_and_writes_nothing(
    tmp_path: Path, survey: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack_survey(survey, tmp_path / "d", "dry_run=true")
    text = capsys.readouterr().out
    assert "would pack 40 rows, 0 of them rejected" in text
    assert "28 rows: 14 lenses, 14 non-lenses; 1 shard" in text
    assert "(2, 8, 8) (bands, height, width), stored as float32" in text
    assert not list(tmp_path.glob("d*"))


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A survey of 900 rows, whose training split makes several shards of 1 MiB."""
    return write_survey(tmp_path / "large", rows=900, size=16)


LARGE = ("shard_mib=1", "splits={train: 0.8, test: 0.2}")


@pytest.mark.slow
def test_tasks_share_the_shards_and_the_last_one_finishes(tmp_path: Path, large: Path) -> None:
    alone = files_of(pack_survey(large, tmp_path / "alone", *LARGE, "processes=1"))
    together = files_of(pack_survey(large, tmp_path / "together", *LARGE, "processes=3"))
    assert len([name for name in alone if name.startswith("train/")]) > 1
    assert together == alone
    for task in (1, 2, 0):
        assert not (tmp_path / "tasks").exists()
        pack_survey(large, tmp_path / "tasks", *LARGE, f"task={task}", "tasks=3")
    assert files_of(tmp_path / "tasks") == alone


@pytest.mark.slow
def test_tasks_at_the_same_time_make_one_dataset(tmp_path: Path, large: Path) -> None:
    alone = files_of(pack_survey(large, tmp_path / "alone", *LARGE))
    for attempt in range(3):
        output = tmp_path / f"together{attempt}"
        command = [sys.executable, "-m", "lens_hpc", "pack", str(large / "recipe.yaml"), f"source={large}"]
        command += [f"output={output}", *LARGE, "tasks=4", "processes=1"]
        tasks = [
            subprocess.Popen([*command, f"task={task}"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
            for task in range(4)
        ]
        for task in tasks:
            assert task.communicate()[1].count("Traceback") == 0
            assert task.returncode == 0
        assert files_of(output) == alone


def test_an_empty_output_folder_is_used_and_another_kept(tmp_path: Path, survey: Path, dataset: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert files_of(pack_survey(survey, tmp_path / "mine")) == files_of(dataset)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(UserError, match="already holds something else than a dataset"):
        pack_survey(survey, tmp_path / "other")


def test_srun_is_known_by_its_step_and_a_batch_script_is_no_step(
    tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert config.load(config.Pack, large / "recipe.yaml", ["source=a", "output=b"]).tasks == 1
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    settings = config.load(config.Pack, large / "recipe.yaml", ["source=a", "output=b"])
    assert (settings.task, settings.tasks) == (1, 2)


def test_shards_of_the_same_recipe_and_source_are_kept(
    tmp_path: Path, large: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = files_of(pack_survey(large, tmp_path / "whole", *LARGE))
    pack_survey(large, tmp_path / "d", *LARGE, "task=0", "tasks=2")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "d.partial").rglob("*.h5")}
    assert kept
    pack_survey(large, tmp_path / "d", *LARGE)
    assert files_of(tmp_path / "d") == whole
    for path, when in kept.items():
        assert (tmp_path / "d" / path.relative_to(tmp_path / "d.partial")).stat().st_mtime_ns == when
    assert f"{len(kept)} shards are there already" in caplog.text


def test_shards_of_another_recipe_or_a_changed_source_are_made_anew(tmp_path: Path, large: Path) -> None:
    pack_survey(large, tmp_path / "d", *LARGE, "seed=7", "task=0", "tasks=2")
    np.save(large / "obj5.npy", np.random.default_rng(9).normal(size=(2, 16, 16)).astype(np.float32))
    pack_survey(large, tmp_path / "d", *LARGE)
    assert files_of(tmp_path / "d") == files_of(pack_survey(large, tmp_path / "e", *LARGE))


@pytest.mark.slow
def test_killed_at_any_instant_it_ends_with_the_same_bytes(tmp_path: Path, large: Path) -> None:
    assert kill_and_restart(large, tmp_path / "d", LARGE, kills=10, seed=0) >= 1


def test_a_shard_without_a_good_row_is_left_out(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=600, size=23)  # 256 rows a shard of 1 MiB
    order = make_plan(config.load(config.Pack, survey / "recipe.yaml", [f"source={survey}", "output=d", *ONE_SHARD]))
    for row in order.shards[1].rows:
        (survey / f"obj{row}.npy").write_bytes(b"junk")
    dataset = pack_survey(survey, tmp_path / "d", *ONE_SHARD, "on_bad=skip")
    split = Split(dataset, "train")
    assert [shard.rows for shard in split.record.shards] == [256, 88]
    assert read_manifest(dataset).rejected == 256
    assert len(split.ids()) == 344
    verify.run(dataset, [])
    assert sorted(path.name for path in (dataset / "train").iterdir()) == ["shard-00000.h5", "shard-00002.h5"]


ONE_SHARD = ("shard_mib=1", "splits={train: 1.0}")


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=6000, size=16)
    command = [sys.executable, "-m", "lens_hpc", "pack", str(survey / "recipe.yaml"), f"source={survey}"]
    command += [f"output={tmp_path / 'd'}", "shard_mib=1", "processes=3"]
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 30
    while len(members := group_of(parent.pid)) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(members) >= 4, "the workers never came"
    parent.kill()
    parent.wait()
    time.sleep(2)
    assert group_of(parent.pid) == []
    pack_survey(survey, tmp_path / "d", "shard_mib=1")
    verify.run(tmp_path / "d", [])


def group_of(group: int) -> list[int]:
    """Live processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it ended meanwhile
            continue
        found += [int(stat.parent.name)] * (int(of_group) == group and state != "Z")
    return found


def test_identical_cutouts_across_splits_are_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["test" if i < 10 else "train" for i in range(40)]
    survey = write_survey(tmp_path / "s", split=names)
    for twin, original in ((3, 30), (4, 5), (31, 32)):
        shutil.copy(survey / f"obj{original}.npy", survey / f"obj{twin}.npy")
    dataset = pack_survey(survey, tmp_path / "d", "columns.split=split")
    assert read_manifest(dataset).duplicates_across_splits == 1
    assert "1 cutouts are identical to one in another split" in caplog.text
    assert "obj3 (test)" in caplog.text
    assert "obj30 (train)" in caplog.text


@pytest.mark.parametrize("compression", ["lzf", "gzip"])
def test_compressed_shards_are_read_alike(tmp_path: Path, survey: Path, dataset: Path, compression: str) -> None:
    squeezed = Split(pack_survey(survey, tmp_path / "z", f"compression={compression}"), "train")
    rows = np.array([7, 0, 3, 3])
    plain = Split(dataset, "train")
    for column in ("images", "features", "labels", "ids"):
        np.testing.assert_array_equal(squeezed.take(column, rows), plain.take(column, rows))
    verify.run(tmp_path / "z", [])


def test_validation_is_drawn_out_of_a_given_train(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", part=["B" if i < 10 else "A" for i in range(40)])
    names = "columns.split_names={A: train, B: test}"
    dataset = pack_survey(survey, tmp_path / "d", "columns.split=part", names, "validation=0.2")
    assert {name: len(Split(dataset, name)) for name in ("train", "val", "test")} == {"train": 24, "val": 6, "test": 10}


def test_a_group_too_large_for_its_split_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    survey = write_survey(tmp_path / "s", field=["big" if i < 20 else f"f{i}" for i in range(40)])
    pack_survey(survey, tmp_path / "d", "columns.group=field", "splits={train: 0.2, test: 0.8}")
    assert not caplog.text
    pack_survey(survey, tmp_path / "e", "columns.group=field", "splits={train: 0.33, val: 0.33, test: 0.34}")
    assert "a group in column field is too large to fit better" in caplog.text


def test_a_train_without_a_class_is_refused_and_a_test_without_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    survey = write_survey(tmp_path / "s", split=["train" if i % 2 else "test" for i in range(40)])
    with pytest.raises(UserError, match="the split train has no non-lenses"):
        pack_survey(survey, tmp_path / "d", "columns.split=split")
    survey = write_survey(tmp_path / "t", split=["test" if i in (1, 3) else "train" for i in range(40)])
    pack_survey(survey, tmp_path / "e", "columns.split=split")
    assert "split test has no non-lenses" in caplog.text


@pytest.mark.parametrize("name", ["../evil", "a/b", "", "manifest.json"])
def test_names_of_splits_are_names(tmp_path: Path, survey: Path, name: str) -> None:
    with pytest.raises(UserError, match="splits"):
        pack_survey(survey, tmp_path / "d", f"splits={{train: 0.7, '{name}': 0.3}}")


def test_a_full_disk_keeps_what_is_complete(tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = shards.write_shard, []

    def fails_at_the_third(*arguments: object) -> tuple[str, ...]:
        calls.append(1)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(shards, "write_shard", fails_at_the_third)
    with pytest.raises(UserError, match=r"No space left on device; make room or choose another output"):
        pack_survey(large, tmp_path / "d", *LARGE, "processes=1")
    assert not (tmp_path / "d").exists()
    assert len(list((tmp_path / "d.partial" / ".notes").iterdir())) == 2
    monkeypatch.undo()
    pack_survey(large, tmp_path / "d", *LARGE)
    assert files_of(tmp_path / "d") == files_of(pack_survey(large, tmp_path / "e", *LARGE))


cells = st.sampled_from(["", "0", "1", "2.5", "-1e3", "nan", "x", "1e99"])
rows_of_text = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", "d", "ä", " e"]), st.sampled_from(["0", "1", "", "2"]), cells),
    min_size=1, max_size=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows_of_text, on_bad=st.sampled_from(["error", "skip"]), dtype=st.sampled_from(["float32", "float16"]))
def test_any_small_catalogue_packs_exactly_or_is_refused_whole(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], on_bad: str, dtype: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    source = folder / "s"
    source.mkdir()
    rng = np.random.default_rng(0)
    for name in {row[0].strip() for row in rows}:
        np.save(source / f"{name}.npy", rng.integers(0, 9, size=(1, 4, 4)).astype(np.float32))
    pd.DataFrame(rows, columns=["id", "label", "x"]).to_csv(source / "c.csv", index=False)
    recipe = {"name": "any", "catalogue": "c.csv", "columns": {"label": "label", "features": ["x"]}}
    recipe |= {"images": "{id}.npy", "bands": ["g"], "pixel_scale": 1, "units": "u", "splits": {"train": 1.0}}
    (folder / "r.yaml").write_text(json.dumps(recipe | {"on_bad": on_bad, "dtype": dtype}))
    status = cli.main(["pack", str(folder / "r.yaml"), f"source={source}", f"output={folder / 'd'}", "processes=1"])
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
        np.testing.assert_array_equal(split.take("images", np.array([row]))[0], np.load(source / f"{identifier}.npy"))
    names = [row[0].strip() for row in rows]
    good = [n for n, label, x in rows if names.count(n.strip()) == 1 and label != "2" and x not in ("x", "1e99")]
    assert sorted(split.ids()) == sorted(name.strip() for name in good)
