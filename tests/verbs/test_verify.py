import random
from pathlib import Path

import h5py
import pytest

from lens_hpc.dataset import manifest as manifests
from lens_hpc.dataset import shards
from lens_hpc.errors import UserError
from tests.conftest import call, pack_survey, write_survey


def test_a_whole_dataset_is_said_to_be_whole(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("verify", dataset)
    assert "3 shards" in capsys.readouterr().out


@pytest.mark.slow
def test_every_single_byte_that_changes_is_found_in_its_shard(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=600, size=24)
    dataset = pack_survey(survey, tmp_path / "d", "shard_mib=1")
    records = [
        shard
        for split in manifests.read_manifest(dataset).splits.values()
        for shard in split.shards
    ]
    assert len(records) > 3
    rng = random.Random(0)
    rows_named = 0
    for _ in range(1000):
        record = rng.choices(records, [record.bytes for record in records])[0]
        place, change = rng.randrange(record.bytes), rng.randrange(1, 256)
        with (dataset / record.file).open("r+b") as file:
            file.seek(place)
            (before,) = file.read(1)
            file.seek(place)
            file.write(bytes([before ^ change]))
        said = shards.find_damage(dataset, record)
        assert record.file in said
        rows_named += "is damaged in rows" in said
        with (dataset / record.file).open("r+b") as file:
            file.seek(place)
            file.write(bytes([before]))
        assert shards.find_damage(dataset, record) == ""
    assert rows_named > 800


def test_all_damage_is_named_at_once_with_rows(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=700, size=8)
    dataset = pack_survey(survey, tmp_path / "d", "splits={train: 0.8, val: 0.1, test: 0.1}")
    with h5py.File(dataset / "train" / "shard-00000.h5") as shard:
        offset = shard["images"].id.get_offset()
    with (dataset / "train" / "shard-00000.h5").open("r+b") as file:
        file.seek(offset + 300 * 2 * 8 * 8 * 4)
        file.write(b"\x00\x01\x02\x03")
    (dataset / "val" / "shard-00000.h5").unlink()
    with (dataset / "test" / "shard-00000.h5").open("ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match="3 of 3 shards are damaged") as error:
        call("verify", dataset)
    said = str(error.value)
    assert "train/shard-00000.h5: is damaged in rows 256-511" in said
    assert "val/shard-00000.h5: is missing" in said
    assert "test/shard-00000.h5: has " in said
