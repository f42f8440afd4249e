"""Datasets made of rows in memory are as pack would make them, and are whole or not at all."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.dataset.manifest import Manifest
from lens_hpc.dataset.shards import COLUMNS, RowBlock
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.packing.derived import SplitRows, write_dataset
from lens_hpc.packing.describing import DatasetFacts
from tests.conftest import call, pack_survey, write_survey
from tests.predicting.small_runs import make_run

TEXTS = ("ids", "groups", "sources")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """1,000 rows with a cutout that is in two splits, in shards of 256; not to be changed."""
    folder = tmp_path_factory.mktemp("packed")
    right_ascensions = [f"{0.1 * row:.1f}" for row in range(1000)]
    survey = write_survey(folder / "s", rows=1000, size=23, ra=right_ascensions)
    parts = ["test" if row < 200 else "train" for row in range(1000)]
    table = pd.read_csv(survey / "catalogue.csv").assign(part=parts)
    table.to_csv(survey / "catalogue.csv", index=False)
    shutil.copy(survey / "obj300.npy", survey / "obj100.npy")
    settings = ("shard_mib=1", "columns.split=part", "columns.keep=[ra]")
    return Dataset(pack_survey(survey, folder / "d", *settings))


def facts_of(manifest: Manifest, **changes: object) -> DatasetFacts:
    names = DatasetFacts.__dataclass_fields__
    tree = {name: getattr(manifest, name) for name in names}
    return DatasetFacts(**(tree | changes))


def blocks_of(split: Split, columns: tuple[str, ...] = COLUMNS) -> Iterator[RowBlock]:
    for start in range(0, len(split), 256):
        rows = np.arange(start, min(start + 256, len(split)))
        yield RowBlock(**{name: split.take(name, rows) for name in columns})


def rows_of(dataset: Dataset) -> dict[str, SplitRows]:
    return {name: SplitRows(len(split), blocks_of(split)) for name, split in dataset.items()}


def write_again(dataset: Dataset, output: Path, splits: Mapping[str, SplitRows]) -> Manifest:
    return write_dataset(output, facts_of(dataset.manifest), splits, shard_mib=1)


def files_in(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


# ---- as pack makes it ----


def test_rows_of_a_dataset_become_the_same_dataset(
    packed: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = pq.read_table(packed.path / "columns.parquet")
    facts = facts_of(packed.manifest)
    made = write_dataset(tmp_path / "d", facts, rows_of(packed), kept, shard_mib=1)
    before, now = files_in(packed.path), files_in(tmp_path / "d")
    assert "obj100 (test)" in caplog.text

    manifest = json.loads(before.pop("manifest.json"))
    again = json.loads(now.pop("manifest.json"))
    assert manifest["duplicates_across_splits"] == 1
    assert {name: made.splits[name].rows for name in made.splits} == {"train": 800, "test": 200}
    # What it was packed from is not known of a derived dataset.
    assert again == manifest | {"source": None}
    assert now == before
    call("verify", tmp_path / "d")


def test_columns_that_are_left_out_have_their_defaults(packed: Dataset, tmp_path: Path) -> None:
    given = ("images", "features", "labels", *TEXTS)
    test = packed["test"]
    rows = SplitRows(len(test), blocks_of(test, given))
    write_again(packed, tmp_path / "d", {"chosen": rows})
    made = Split(tmp_path / "d", "chosen")
    everything = np.arange(len(test))
    for name in COLUMNS:
        np.testing.assert_array_equal(made.take(name, everything), test.take(name, everything))
    assert made.manifest.statistics is None
    call("verify", tmp_path / "d")


@pytest.mark.slow
def test_every_verb_reads_it(packed: Dataset, tmp_path: Path) -> None:
    truth = pa.table({"id": packed["test"].ids().tolist(), "radius": np.arange(200.0)})
    made = tmp_path / "d"
    write_dataset(made, facts_of(packed.manifest), rows_of(packed), truth=truth)
    assert pd.read_parquet(made / "truth.parquet")["radius"].tolist() == [*range(200)]
    assert not (made / "columns.parquet").exists()

    assert call("info", made, f"figure={tmp_path / 'f.png'}").manifest.splits["train"].rows == 800
    assert call("verify", made).shards == 2
    assert call("audit", made)
    assert len(Dataset(made).to_pandas()) == 1000

    run = make_run(tmp_path / "run", made)
    options = (f"dataset={made}", "workers=0", "split=test")
    assert call("evaluate", run, *options).metrics["n"] == 200


# ---- whole or not at all ----


def broken(split: Split) -> Iterator[RowBlock]:
    yield next(blocks_of(split))
    raise UserError("no more")


def test_a_fault_on_the_way_leaves_nothing(packed: Dataset, tmp_path: Path) -> None:
    train = packed["train"]
    with pytest.raises(UserError, match="no more"):
        write_again(packed, tmp_path / "d", {"train": SplitRows(800, broken(train))})
    assert not any(tmp_path.iterdir())


def test_a_folder_is_replaced_only_when_told(packed: Dataset, tmp_path: Path) -> None:
    output = tmp_path / "d"
    write_again(packed, output, rows_of(packed))
    with pytest.raises(UserError, match="already exists"):
        write_again(packed, output, rows_of(packed))

    test = packed["test"]
    few = {"few": SplitRows(200, blocks_of(test))}
    write_dataset(output, facts_of(packed.manifest), few, replacing=True)
    assert list(Dataset(output)) == ["few"]
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def without_colour(split: Split) -> Iterator[RowBlock]:
    for block in blocks_of(split):
        features = block.features.copy()
        features[:, 1] = np.nan
        yield replace(block, features=features)


def test_a_feature_that_no_training_row_has_is_refused(packed: Dataset, tmp_path: Path) -> None:
    given = {"train": SplitRows(800, without_colour(packed["train"]))}
    with pytest.raises(UserError, match=r"^colour: missing in every training row"):
        write_again(packed, tmp_path / "d", given)
    assert not any(tmp_path.iterdir())


def shorter_first(split: Split) -> Iterator[RowBlock]:
    first, *others = blocks_of(split)
    yield RowBlock(**{name: getattr(first, name)[:100] for name in COLUMNS})
    yield from others


def longer_ids_later(split: Split) -> Iterator[RowBlock]:
    for number, block in enumerate(blocks_of(split)):
        yield replace(block, ids=block.ids.astype(f"S{8 + number}"))


def other_pixels(split: Split) -> Iterator[RowBlock]:
    for block in blocks_of(split):
        yield replace(block, images=block.images.astype(np.float64))


def other_size(split: Split) -> Iterator[RowBlock]:
    for block in blocks_of(split):
        yield replace(block, images=block.images[:, :, :-1])


@pytest.mark.parametrize(
    ("blocks", "rows", "said"),
    [
        (shorter_first, 644, "is short"),
        (longer_ids_later, 800, "types"),
        (other_pixels, 800, "float64"),
        (other_size, 800, "images"),
        (blocks_of, 600, "broadcast"),
        (blocks_of, 512, "more than 512 rows"),
        (blocks_of, 900, "900 were announced"),
    ],
)
def test_a_fault_of_the_caller_is_found_before_it_is_in_a_file(
    packed: Dataset,
    tmp_path: Path,
    blocks: Callable[[Split], Iterator[RowBlock]],
    rows: int,
    said: str,
) -> None:
    given = SplitRows(rows, blocks(packed["train"]))
    facts = facts_of(packed.manifest)
    with pytest.raises((AssertionError, TypeError), match=said):
        write_dataset(tmp_path / "d", facts, {"train": given})
    assert not any(tmp_path.iterdir())
