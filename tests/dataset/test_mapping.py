import ctypes
import faulthandler
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lens_hpc.dataset.mapping import MappedFiles, cut_shards_named
from lens_hpc.errors import UserError

SIGACTION_BYTES = 152  # of glibc on Linux

CUT_WHILE_READ = """
import sys
import numpy as np
from lens_hpc.dataset.mapping import cut_shards_named, name_cut_shards
from lens_hpc.dataset.split import Split
from lens_hpc.workers import make_pool

def read_twice(split):
    rows = np.arange(len(split))
    split.take("images", rows)
    split.files[3].write_bytes(b"")  # what was mapped is gone
    split.take("images", rows)
    print("nothing happened")

split = Split(sys.argv[1], "train")
if sys.argv[2] == "here":
    with cut_shards_named():
        read_twice(split)
else:
    with make_pool(1, "fork", name_cut_shards) as pool:
        pool.submit(read_twice, split).result()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("where", "status"), [("here", 2), ("worker", 1)])
def test_a_shard_that_is_cut_while_it_is_read_ends_the_process_with_its_name(
    many_shards: Path, tmp_path: Path, where: str, status: int
) -> None:
    dataset = tmp_path / "d"
    shutil.copytree(many_shards, dataset)
    ended = subprocess.run(
        [sys.executable, "-c", CUT_WHILE_READ, str(dataset), where],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    file = dataset / "train" / "shard-00003.h5"
    assert ended.returncode == status
    assert f"shrank while it was read: {file}; copy or pack it again" in ended.stderr
    assert "nothing happened" not in ended.stdout


def bus_error_action() -> bytes:
    """What the system does at SIGBUS now, as the C library tells it."""
    action = ctypes.create_string_buffer(SIGACTION_BYTES)
    assert ctypes.CDLL(None).sigaction(signal.SIGBUS, None, action) == 0
    handler, mask, flags = action.raw[:8], action.raw[8:16], action.raw[136:140]
    return handler + mask + flags


@pytest.fixture
def with_faulthandler() -> Iterator[None]:
    """A handler of somebody else, with flags of its own."""
    was_enabled = faulthandler.is_enabled()
    faulthandler.enable()
    yield
    if not was_enabled:
        faulthandler.disable()


@pytest.mark.skipif(sys.platform != "linux", reason="reads a struct of Linux")
def test_the_handler_before_is_back_when_the_last_entry_is_left(with_faulthandler: None) -> None:
    before = bus_error_action()
    with cut_shards_named():
        ours = bus_error_action()
        assert ours != before
        with cut_shards_named():
            assert bus_error_action() == ours
        assert bus_error_action() == ours
    assert bus_error_action() == before

    with pytest.raises(KeyError), cut_shards_named():
        assert bus_error_action() == ours
        raise KeyError
    assert bus_error_action() == before


@pytest.mark.skipif(sys.platform != "linux", reason="reads a struct of Linux")
def test_mapping_files_installs_no_handler(tmp_path: Path) -> None:
    before = bus_error_action()
    (tmp_path / "a").write_bytes(b"abc")
    mapped = MappedFiles([tmp_path / "a"], [3])
    assert bytes(mapped.bytes[:3]) == b"abc"
    assert bus_error_action() == before


def test_files_lie_one_behind_the_other_each_from_a_page_on(tmp_path: Path) -> None:
    contents = [b"x" * 5000, b"y", b"z" * 4096]
    files = [tmp_path / str(number) for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)

    mapped = MappedFiles(files, [len(content) for content in contents])
    assert not (mapped.starts % 4096).any()
    for start, content in zip(mapped.starts, contents, strict=True):
        assert bytes(mapped.bytes[start : start + len(content)]) == content
    mapped.read_ahead(int(mapped.starts[1]), 1)
    with pytest.raises(ValueError, match="read-only"):
        mapped.bytes[0] = np.uint8(0)


def resident_bytes(mapped: MappedFiles) -> int:
    """Pages of a map that are in this process's memory, as Linux tells them."""
    first = f"{mapped.bytes.ctypes.data:x}-"
    lines = Path("/proc/self/smaps").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(first))
    return 1024 * next(int(line.split()[1]) for line in lines[start:] if line.startswith("Rss"))


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="only Linux tells")
def test_what_was_read_is_given_back_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "file"
    values = np.random.default_rng(0).integers(256, size=1 << 20, dtype=np.uint8)
    values.tofile(file)
    mapped = MappedFiles([file], [len(values)])
    np.testing.assert_array_equal(mapped.bytes[: len(values)], values)
    assert resident_bytes(mapped) >= len(values)
    mapped.forget()
    assert resident_bytes(mapped) == 0
    np.testing.assert_array_equal(mapped.bytes[: len(values)], values)


def test_a_size_beyond_all_memory_is_named(tmp_path: Path) -> None:
    file = tmp_path / "shard.h5"
    file.write_bytes(b"small")
    with pytest.raises(UserError, match=r"bytes cannot be mapped into memory: Cannot allocate"):
        MappedFiles([file], [1 << 60])
