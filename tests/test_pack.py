import json
from pathlib import Path

import numpy as np
import pytest

from lens_hpc import UserError, cli
from lens_hpc.data.shards import Split
from tests.conftest import pack_survey, write_survey


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


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
            np.save(file, np.zeros((2, 9, 8), np.float32))
            return "has the shape (2, 9, 8), others have (2, 8, 8)"
        case "nan":
            np.save(file, np.full((2, 8, 8), np.nan, np.float32))
            return "128 pixels are NaN or infinite"
        case _:
            file.unlink()
            return "no image file"


@pytest.mark.parametrize("kind", ["unreadable", "shape", "nan", "missing"])
def test_a_bad_image_ends_with_2_and_leaves_nothing(
    tmp_path: Path, survey: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    said = damage(survey, kind)
    output = tmp_path / "out" / "dataset"
    assert cli.main(["pack", str(survey / "recipe.yaml"), f"source={survey}", f"output={output}"]) == 2
    text = capsys.readouterr().err
    assert said in text
    assert "obj13.npy" in text
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


def test_an_existing_output_is_kept(tmp_path: Path, survey: Path, dataset: Path) -> None:
    before = files_of(dataset)
    with pytest.raises(UserError, match="already exists"):
        pack_survey(survey, dataset)
    assert files_of(dataset) == before


def test_wrong_numbers_of_planes_are_named(tmp_path: Path, survey: Path) -> None:
    with pytest.raises(UserError, match=r"obj0\.npy: has 2 planes, the recipe names the bands g, r, i"):
        pack_survey(survey, tmp_path / "d", "bands=[g, r, i]")


def test_a_feature_that_training_never_has_is_refused(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", colour=[""] * 40)
    with pytest.raises(UserError, match="colour: missing in every training row"):
        pack_survey(survey, tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_a_split_without_rows_is_refused(tmp_path: Path, survey: Path) -> None:
    with pytest.raises(UserError, match="no row is left for the split 'tiny'"):
        pack_survey(survey, tmp_path / "d", "splits={train: 0.99, tiny: 0.01}")
