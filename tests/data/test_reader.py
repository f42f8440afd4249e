import resource
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from lens_hpc import UserError
from lens_hpc.data.reader import Split


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
    split.fetch_ahead(np.array([5000, 3, 4, 5, 700, 701]))
    split.fetch_ahead(np.empty(0, dtype=int))
    assert split.shards_of(np.array([0, 5119])) == [split.files[0], split.files[-1]]


def test_a_dataset_of_another_owner_is_read_where_nothing_can_be_written(dataset: Path) -> None:
    for path in [*dataset.rglob("*"), dataset]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    split = Split(dataset, "train")
    assert split.take("images", np.array([0])).shape == (1, 2, 8, 8)


CUT = """
import sys, numpy as np, torch
from pathlib import Path
from lens_hpc.data.loader import Loader, Samples
from lens_hpc.data.order import Order
from lens_hpc.data.reader import Split
split = Split(Path(sys.argv[1]), "train")
order = Order(len(split), 50)
loader = Loader(Samples(split, split.manifest, "cutout"), 50, int(sys.argv[2]), torch.device("cpu"))
for epoch in range(1000):
    for batch in loader(epoch, order.shares(epoch, 0, 1)):
        if epoch == 1:
            split.files[3].write_bytes(b"")  # what was mapped is gone
print("nothing happened")
"""


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.slow
def test_a_shard_that_is_cut_while_it_is_read_ends_the_process_with_its_name(
    many_shards: Path, tmp_path: Path, workers: int
) -> None:
    dataset = tmp_path / "d"
    shutil.copytree(many_shards, dataset)
    ended = subprocess.run(
        [sys.executable, "-c", CUT, str(dataset), str(workers)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert "train/shard-00003.h5; copy or pack it again" in ended.stderr
    assert "shrank while it was read" in ended.stderr


def test_swapped_shards_are_named(many_shards: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "d"
    shutil.copytree(many_shards, dataset)
    one, other = (dataset / "train" / f"shard-0000{n}.h5" for n in (3, 4))
    assert one.stat().st_size == other.stat().st_size
    aside = one.rename(dataset / "aside")
    other.rename(one)
    aside.rename(other)
    with pytest.raises(UserError, match=r"shard-00003\.h5: is really train/shard-00004\.h5"):
        Split(dataset, "train")


def test_columns_of_another_type_are_named(many_shards: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "d"
    shutil.copytree(many_shards, dataset)
    file = dataset / "train" / "shard-00002.h5"
    with h5py.File(file, "r+") as shard:
        labels = shard["labels"][:].astype(np.int16)
        del shard["labels"]
        shard["labels"] = labels
    manifest = dataset / "manifest.json"
    size = next(shard.bytes for shard in Split(many_shards, "train").record.shards if "00002" in shard.file)
    head, told, tail = manifest.read_text().partition('"train/shard-00002.h5"')
    manifest.write_text(head + told + tail.replace(str(size), str(file.stat().st_size), 1))
    with pytest.raises(UserError, match=r"shard-00002\.h5: its columns are not of the types of .*shard-00000"):
        Split(dataset, "train")


MEMORY = """
import sys, torch
from pathlib import Path
from lens_hpc.config import Augment
from lens_hpc.data.augment import Augmentation
from lens_hpc.data.loader import Loader, Samples
from lens_hpc.data.order import Order
from lens_hpc.data.reader import Split
torch.set_num_threads(1)
split = Split(Path(sys.argv[1]), "train")
samples = Samples(split, split.manifest, "cutout", Augmentation(Augment(engine="torch"), 0))
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
def test_memory_grows_neither_with_epochs_nor_with_the_dataset(many_shards: Path, dataset: Path) -> None:
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
