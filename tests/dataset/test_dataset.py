import subprocess
import sys
from pathlib import Path

import pytest

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from tests.conftest import pack_survey


def test_a_dataset_is_a_mapping_of_its_splits(dataset: Path) -> None:
    opened = Dataset(str(dataset))
    assert opened.path == dataset
    assert opened.manifest.name == "toy"
    assert list(opened) == ["train", "val", "test"]
    assert len(opened) == 3

    test = opened["test"]
    assert isinstance(test, Split)
    assert test is opened["test"]
    assert dict(opened.items())["test"] is test
    assert [split.name for split in opened.values()] == ["train", "val", "test"]


def test_a_split_that_is_not_there_is_named_but_may_be_asked_after(dataset: Path) -> None:
    opened = Dataset(dataset)
    with pytest.raises(UserError, match="has no split 'tset'; it has: train, val, test"):
        opened["tset"]
    assert "tset" not in opened
    assert 5 not in opened
    assert "val" in opened
    assert opened.get("tset") is None
    assert opened.get("tset", 3) == 3
    assert opened.get("val") is opened["val"]


def test_a_folder_that_is_no_dataset_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a packed dataset"):
        Dataset(tmp_path)


def test_a_path_may_begin_at_home(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(dataset.parent))
    assert Dataset(f"~/{dataset.name}").path == dataset
    assert len(Split(f"~/{dataset.name}", "val")) == 6


def test_pandas_gets_all_splits(dataset: Path) -> None:
    table = Dataset(dataset).to_pandas()
    assert list(table.columns) == ["id", "split", "label", "radius", "colour"]
    assert table.split.value_counts().to_dict() == {"train": 28, "val": 6, "test": 6}
    assert sorted(table.id) == sorted(f"obj{i}" for i in range(40))
    assert table.index.tolist() == list(range(40))


def test_it_says_what_it_is(dataset: Path) -> None:
    assert repr(Dataset(dataset)).splitlines() == [
        f"Dataset 'toy' in {dataset}",
        "  cutouts   g, r; 8 x 8 px, 1.6 x 1.6 arcsec; counts",
        "  features  radius, colour",
        "  train     14 lenses, 14 non-lenses",
        "  val       3 lenses, 3 non-lenses",
        "  test      3 lenses, 3 non-lenses",
    ]


def test_it_says_that_there_are_no_features(tmp_path: Path, survey: Path) -> None:
    opened = Dataset(pack_survey(survey, tmp_path / "d", "columns.features=[]"))
    assert "  features  none" in repr(opened)


def test_opening_a_dataset_imports_neither_torch_nor_pandas(dataset: Path) -> None:
    code = (
        "import sys; from lens_hpc.dataset.dataset import Dataset; "
        "print(Dataset(sys.argv[1])['test'][0].label); "
        "assert not {'torch', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(dataset)], check=True)
