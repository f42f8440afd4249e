"""Files within tar archives, as WebDataset has them: an archive is like a folder of its members.

A path such as shards/train-000.tar/000017.png leads into one. The members of a sample share a key,
the part of their name before the first dot.
"""

import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import NamedTemporaryFile

import pandas as pd

TAR = ".tar"
TAR_BLOCK = 512
"""Zeros of at least this length end an archive."""

TEXTS = ("cls", "txt", "id")
"""Endings of members whose content is a word; those of .json hold several."""


def tar_of(path: str, folder: str = "") -> str | None:
    """Return the archive that a path leads into; None where it leads into none.

    A path may be relative to a `folder`. A folder with the name of an archive is none.
    """
    end = path.find(TAR + "/")
    while end >= 0:
        archive = path[: end + len(TAR)]
        if not os.path.isdir(os.path.join(folder, archive)):  # noqa: PTH112, PTH118
            return archive
        end = path.find(TAR + "/", end + 1)
    return None


def tar_members(path: str) -> dict[str, tuple[int, int]]:
    """Return where each file in an archive begins, and its size, bytes.

    Raises OSError or tarfile.TarError when it cannot be read.
    """
    status = os.stat(path)  # noqa: PTH116 - called for every row, and a Path costs more
    return _read_members(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _read_members(path: str, time_ns: int, size: int) -> dict[str, tuple[int, int]]:
    try:
        return _list_members(path)
    except (MemoryError, OverflowError) as error:
        raise tarfile.ReadError("a header says that it is larger than any archive") from error


def _list_members(path: str) -> dict[str, tuple[int, int]]:
    with tarfile.open(path, "r:") as archive:
        members = {}
        for member in archive:
            # What is read of it would be the numbers before and after its holes.
            if member.sparse is not None:
                raise tarfile.ReadError(
                    f"its member {member.name} is stored with holes; make it again without tar -S"
                )
            if member.isreg():
                name = member.name.removeprefix("./")
                members[name] = (member.offset_data, member.size)
        end = archive.offset
    _check_end(path, end)
    return members


def _check_end(path: str, end: int) -> None:
    """Raise tarfile.ReadError where an archive does not end after its last member.

    Python takes a damaged header for the end, and what follows would be lost without a word.
    """
    with Path(path).open("rb") as file:
        file.seek(end)
        first = block = file.read(TAR_BLOCK)
        while block and not block.strip(b"\0"):
            block = file.read(TAR_BLOCK)
    if block or len(first) < TAR_BLOCK:
        raise tarfile.ReadError(
            f"it is damaged or cut off after byte {end:,}, or has several ends; make it again"
        )


@contextmanager
def path_on_disk(path: str) -> Iterator[str]:
    """Give a path under which a file can be opened: a copy, while one is needed, of a member."""
    archive = tar_of(path)
    if archive is None:
        yield path
        return

    # The copy has the member's name at its end, which tells its type.
    name = path[len(archive) + 1 :]
    with NamedTemporaryFile(suffix="-" + name.rpartition("/")[2]) as copy:
        copy.write(_read_member(archive, name))
        copy.flush()
        yield copy.name


def _read_member(archive: str, name: str) -> bytes:
    members = tar_members(archive)
    if name not in members:
        raise ValueError(f"there is no member {name} in the archive")

    offset, size = members[name]
    with Path(archive).open("rb") as file:
        file.seek(offset)
        content = file.read(size)
    if len(content) < size:
        raise ValueError("the archive's end is missing")
    return content


# ---- what is told of the samples ----


def tar_table(path: Path) -> pd.DataFrame:
    """Return what the members of an archive, or of all in a folder, tell of each sample.

    Columns of texts, empty where a sample has none: __tar__, the name of the archive; __key__;
    the fields of .json members, and cls, txt and id of members with such endings. Raises ValueError
    where a .json member holds no mapping.
    """
    archives = sorted(path.glob("*" + TAR)) if path.is_dir() else [path]
    rows: list[dict[str, str]] = []
    for archive in archives:
        samples: dict[str, dict[str, str]] = {}
        for name in tar_members(str(archive)):
            folder, _, file = name.rpartition("/")
            key, _, ending = file.partition(".")
            key = f"{folder}/{key}" if folder else key
            sample = samples.setdefault(key, {"__tar__": archive.name, "__key__": key})
            sample.update(_words(str(archive), name, ending))
        rows += samples.values()
    return pd.DataFrame(rows, dtype=object).fillna("")


def _words(archive: str, name: str, ending: str) -> dict[str, str]:
    """Return the fields of a member, by name; none where it holds an image."""
    if ending not in (*TEXTS, "json"):
        return {}
    text = _read_member(archive, name).decode("utf-8")
    if ending != "json":
        return {ending: text.strip()}

    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError(f"{archive}/{name}: must hold a mapping, not {type(fields).__name__}")
    return {field: _as_text(value) for field, value in fields.items() if _is_word(value)}


def _is_word(value: object) -> bool:
    return not isinstance(value, (dict, list))


def _as_text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
