import pickle
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from tests.conftest import pack_survey, write_survey


def test_every_row_is_read_as_it_was_packed(survey: Path, dataset: Path) -> None:
    seen = []
    for name in ("train", "val", "test"):
        split = Split(dataset, name)
        ids = split.ids()
        seen += list(ids)
        rows = np.random.default_rng(0).permutation(len(split))
        taken = split.take("images", rows)
        for row, image in zip(rows, taken, strict=True):
            np.testing.assert_array_equal(image, np.load(survey / f"{ids[row]}.npy"))
            assert split.take("labels", np.array([row]))[0] == int(ids[row][3:]) % 2
    assert sorted(seen) == sorted(f"obj{i}" for i in range(40))


def test_rows_of_several_shards_come_in_the_order_asked(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=1500, size=32)
    split = Split(pack_survey(survey, tmp_path / "d", "shard_mib=1"), "train")
    assert len(split.record.shards) > 1
    rows = np.random.default_rng(1).permutation(len(split))[:300]
    means = split.take("images", rows).mean(axis=(1, 2, 3))
    numbers = np.array([int(identifier[3:]) for identifier in split.ids()])
    np.testing.assert_allclose(means, numbers[rows], atol=0.5)


def test_a_split_goes_to_another_process_without_its_maps(dataset: Path) -> None:
    split = Split(dataset, "train")
    before = split.take("images", np.array([3]))
    sent = pickle.dumps(split)
    assert len(sent) < 10_000
    np.testing.assert_array_equal(pickle.loads(sent).take("images", np.array([3])), before)


def test_no_features_is_a_valid_dataset(tmp_path: Path, survey: Path) -> None:
    split = Split(pack_survey(survey, tmp_path / "d", "columns.features=[]"), "train")
    assert split.take("features", np.array([1, 2])).shape == (2, 0)


def test_a_split_that_is_not_there_is_named(dataset: Path) -> None:
    with pytest.raises(UserError, match="has no split 'tset'; it has: train, val, test"):
        Split(dataset, "tset")


def files_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def numbers(split: Split) -> np.ndarray:
    return np.array([int(identifier[3:]) for identifier in split.ids()])


def test_more_shards_than_file_handles(many_shards: Path) -> None:
    split = Split(many_shards, "train")
    assert len(split.files) == 20
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = files_open()
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 10, hard))
    try:
        rows = np.random.default_rng(0).permutation(len(split))
        means = split.take("images", rows).mean(axis=(1, 2, 3))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    np.testing.assert_allclose(means, numbers(split)[rows], atol=0.5)
    assert files_open() == open_now


def test_reading_ahead_is_harmless(many_shards: Path) -> None:
    split = Split(many_shards, "train")
    split.prefetch(np.array([5000, 3, 4, 5, 700, 701]))
    split.prefetch(np.empty(0, dtype=int))
    assert split.files_of(np.array([0, 5119])) == [split.files[0], split.files[-1]]


def test_a_dataset_of_another_owner_is_read_where_nothing_can_be_written(dataset: Path) -> None:
    for path in [*dataset.rglob("*"), dataset]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    split = Split(dataset, "train")
    assert split.take("images", np.array([0])).shape == (1, 2, 8, 8)


MEMORY = """
import sys, torch
from pathlib import Path
from lens_hpc.config import Augment
from lens_hpc.dataset.split import Split
from lens_hpc.loading.augmentation import make_augmentation
from lens_hpc.loading.loader import Loader
from lens_hpc.loading.order import Order
from lens_hpc.loading.samples import Samples
torch.set_num_threads(1)
split = Split(Path(sys.argv[1]), "train")
samples = Samples(split, split.manifest, "cutout", make_augmentation(Augment(engine="torch"), 0))
batch = min(len(split), 128)
order = Order(len(split), batch)
loader = Loader(samples, batch, 2, torch.device("cpu"))
for epoch in range(54):
    for _ in loader(epoch, order.shares(epoch, 0, 1)):
        pass
    if epoch in (3, 53):
        status = Path("/proc/self/status").read_text()
        print(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])
"""


@pytest.mark.slow
def test_memory_grows_neither_with_epochs_nor_with_the_dataset(
    many_shards: Path, dataset: Path
) -> None:
    """Anonymous memory: the page cache that is mapped is the system's to take back."""
    kib = {}
    for folder in (many_shards, dataset):
        printed = subprocess.run(
            [sys.executable, "-c", MEMORY, str(folder)], capture_output=True, text=True, check=True
        ).stdout.split()
        kib[folder] = [int(number) for number in printed]
        assert abs(kib[folder][1] - kib[folder][0]) < 3_000
    size = sum(file.stat().st_size for file in many_shards.rglob("*.h5")) / 1024
    assert kib[many_shards][1] - kib[dataset][1] < size / 3


# ---- damage ----


@pytest.fixture(scope="module", params=["none", "lzf"])
def blocks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split of three blocks in two shards; not to be changed."""
    folder = tmp_path_factory.mktemp("blocks")
    survey = write_survey(folder / "s", rows=600, size=32)
    options = ("splits={train: 1.0}", "shard_mib=4", f"compression={request.param}")
    return pack_survey(survey, folder / "d", *options)


def damage(dataset: Path, column: str, row: int) -> None:
    """Flip a bit of a row of the first shard, wherever its column lies."""
    file = dataset / "train" / "shard-00000.h5"
    with h5py.File(file) as shard:
        stored = shard[column]
        if stored.chunks is None:
            place = stored.id.get_offset() + row * (stored.nbytes // len(stored)) + 1
        else:
            place = stored.id.get_chunk_info_by_coord((row, 0, 0, 0)).byte_offset + 100
    with file.open("r+b") as stream:
        stream.seek(place)
        (before,) = stream.read(1)
        stream.seek(place)
        stream.write(bytes([before ^ 1]))


def test_blocks_that_are_whole_are_read_once(blocks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = Split(blocks, "train")
    assert [shard.rows for shard in split.record.shards] == [512, 88]
    checked: list[tuple[int, int]] = []
    check = split._check_block
    monkeypatch.setattr(split, "_check_block", lambda *of: (checked.append(of), check(*of)))
    for rows in ([300, 299], [255, 256], [599], [0, 511, 512]):
        split.check_blocks(np.array(rows))
    split.check_blocks(np.empty(0, dtype=np.int64))
    assert checked == [(0, 1), (0, 0), (1, 0)]


def test_a_whole_packed_shard_is_checked_without_unpacking(
    survey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To unpack what is then read would take twice the time."""
    split = Split(pack_survey(survey, tmp_path / "d", "compression=lzf"), "train")
    unpacked: list[np.ndarray] = []
    monkeypatch.setattr(split, "_unpack_images", unpacked.append)
    split.check_blocks(np.arange(len(split)))
    assert not unpacked


def test_a_damaged_packed_block_is_unpacked_image_by_image(
    survey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block of large cutouts may have gigabytes."""
    dataset = pack_survey(survey, tmp_path / "d", "compression=lzf")
    damage(dataset, "labels", 3)
    split = Split(dataset, "train")
    unpack = split._unpack_images
    sizes: set[int] = set()
    monkeypatch.setattr(
        split, "_unpack_images", lambda rows: (sizes.add(len(rows)), unpack(rows))[1]
    )
    with pytest.raises(UserError, match=r"shard-00000\.h5: is damaged in rows 0-"):
        split.check_blocks(np.arange(len(split)))
    assert sizes == {1}


@pytest.mark.parametrize(
    "column", ["images", "features", "labels", "ids", "targets", "weights", "pixel_hashes"]
)
def test_a_damaged_block_is_named_with_its_rows(blocks: Path, tmp_path: Path, column: str) -> None:
    dataset = shutil.copytree(blocks, tmp_path / "d")
    damage(dataset, column, 300)
    split = Split(dataset, "train")
    split.check_blocks(np.array([0, 255, 512, 599]))
    told = r"train/shard-00000\.h5: is damaged in row(s 256-511| 300)"
    for _ in range(2):
        with pytest.raises(UserError, match=told):
            split.check_blocks(np.array([511]))


def test_texts_that_are_none_are_refused_by_their_file(dataset: Path) -> None:
    file = dataset / "train" / "shard-00000.h5"
    with h5py.File(file) as shard:
        place = shard["ids"].id.get_offset()
    with file.open("r+b") as stream:
        stream.seek(place)
        stream.write(b"\xff")
    with pytest.raises(UserError, match=r"shard-00000\.h5: is damaged in row 0: its ids are"):
        Split(dataset, "train").ids()


def test_a_packed_image_that_cannot_be_unpacked_is_named(survey: Path, tmp_path: Path) -> None:
    dataset = pack_survey(survey, tmp_path / "d", "compression=gzip")
    file = dataset / "train" / "shard-00000.h5"
    with h5py.File(file) as shard:
        place = shard["images"].id.get_chunk_info(3)
    with file.open("r+b") as stream:
        stream.seek(place.byte_offset)
        stream.write(bytes(place.size))
    with pytest.raises(UserError, match=r"shard-00000\.h5: is damaged in row 3 \(.*; copy or pack"):
        Split(dataset, "train").take("images", np.array([2, 3]))
