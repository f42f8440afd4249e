"""What is read beside the cutouts, catalogues and stacks, cannot end or keep the program either."""

import contextlib
import faulthandler
import os
import signal
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lens_hpc.errors import UserError
from lens_hpc.packing import guarded, standard_tables, tables
from lens_hpc.packing.guarded import TooLongError, call_within, read_in_worker
from lens_hpc.packing.tables import read_table
from tests.conftest import pack_survey
from tests.packing.damaged_surveys import write_survey_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "c.h5", "w") as opened:
        opened["id"] = ["a", "b"]
        opened["mag"] = [1.5, 2.5]
    return tmp_path / "c.h5"


def die(*_: object) -> None:
    faulthandler.disable()  # pytest's: this end is wanted
    os.kill(os.getpid(), signal.SIGSEGV)


def sleep(*_: object) -> None:
    time.sleep(1000)


def fail(*_: object) -> None:
    raise KeyError("damaged")


def test_what_is_read_comes_back(file: Path) -> None:
    assert read_in_worker(file, max, 3, 5) == 5
    table = read_table(file, ["mag", "id"])
    assert table.texts("id").to_pylist() == ["a", "b"]
    assert table.numbers("mag")[0].to_pylist() == [1.5, 2.5]


def test_an_error_comes_back(file: Path) -> None:
    with pytest.raises(KeyError, match="damaged"):
        read_in_worker(file, fail)


class UnpicklableError(ValueError):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def fail_oddly(*_: object) -> None:
    raise UnpicklableError("damaged", "inside")


def test_an_error_that_cannot_come_back_is_told(file: Path) -> None:
    with pytest.raises(RuntimeError, match="UnpicklableError: damaged inside"):
        read_in_worker(file, fail_oddly)


@pytest.mark.parametrize(
    ("name", "module", "reader"),
    [
        ("c.h5", standard_tables, "read_hdf5_table"),
        ("c.fits.gz", standard_tables, "read_fits_table"),
        ("c.vot", standard_tables, "read_votable"),
        ("c.parquet", tables, "_read_parquet"),
        ("c.feather", tables, "_read_arrow"),
    ],
)
def test_a_catalogue_that_ends_its_reader_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: Any, reader: str
) -> None:
    (tmp_path / name).write_bytes(b"never read")
    monkeypatch.setattr(module, reader, die)
    with pytest.raises(UserError, match=rf"{name}: ends the process that reads it"):
        read_table(tmp_path / name, ["id"])


def test_a_catalogue_that_is_never_read_is_named(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded, "LEAST_SECONDS", 0.5)
    monkeypatch.setattr(standard_tables, "read_hdf5_table", sleep)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"c\.h5: was not read after 1 seconds; mend or remove it"):
        read_table(file, ["id"])
    assert time.monotonic() - began < 60


def test_a_reader_is_ended_when_we_are_interrupted(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(guarded, "wait", interrupted)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        read_in_worker(file, sleep)
    assert time.monotonic() - began < 60


def test_a_damaged_file_of_labels_is_named(tmp_path: Path) -> None:
    write_survey_of("stack_labels", tmp_path / "s")
    labels = tmp_path / "s" / "labels.h5"
    with h5py.File(labels) as opened:
        place = opened["labels"].id.get_chunk_info(0)
    content = bytearray(labels.read_bytes())
    content[place.byte_offset : place.byte_offset + place.size] = np.random.default_rng(0).bytes(
        place.size
    )
    labels.write_bytes(content)
    with pytest.raises(UserError, match=r"labels\.h5: cannot be read as stack_labels"):
        pack_survey(tmp_path / "s", tmp_path / "d")


def fill_memory(*_: object) -> None:
    kept = []
    while True:
        kept.append(bytes([1]) * (8 << 20))
        time.sleep(0.001)


def test_a_reader_that_fills_the_memory_is_ended(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded, "LEAST_BYTES", 64 << 20)
    with pytest.raises(UserError, match=r"c\.h5: has .* bytes, and reading it takes more than"):
        read_in_worker(file, fill_memory)


def spin(*_: object) -> None:
    while True:
        pass


@pytest.mark.slow
def test_a_call_that_takes_too_long_is_ended() -> None:
    assert call_within(5, max, 3, 5) == 5
    with pytest.raises(TooLongError):
        call_within(1, spin)


def spin_deaf(*_: object) -> None:
    while True:
        with contextlib.suppress(Exception):
            spin()


@pytest.mark.slow
def test_no_library_keeps_a_call_from_its_end() -> None:
    with pytest.raises(TooLongError):
        call_within(1, spin_deaf)


def test_a_call_that_is_ended_by_another_did_not_take_too_long() -> None:
    with pytest.raises(UserError, match="ended from outside"):
        call_within(5, die)


@pytest.mark.slow
def test_a_reader_that_may_take_so_much_time_is_ended(file: Path) -> None:
    with pytest.raises(UserError, match=r"c\.h5: .* more than 1 s of the processor's time"):
        read_in_worker(file, spin, cpu_seconds=1)


def take_memory(size: int) -> int:
    kept = bytes([1]) * size
    time.sleep(0.2)
    return len(kept)


def test_what_is_small_on_disk_may_be_a_table_of_millions_of_rows(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_in_worker(file, take_memory, 350 << 20) == 350 << 20
    monkeypatch.setattr(guarded, "half_of_memory", lambda: 100 << 20)
    with pytest.raises(UserError, match="if it is sound, read it on a machine with more"):
        read_in_worker(file, take_memory, 350 << 20)
