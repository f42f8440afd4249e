"""One reason instead of twenty: what is said where all rows fail alike, and a guess why."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

NO_FILE = "there is no such file"
NAMES_SHOWN = 3
MOST_FILES_SEARCHED = 100_000


def one_reason(bad: Mapping[int, str], count: int) -> str | None:
    """Return the reason that all of `count` rows share, from an example; None where they differ."""
    if len(bad) < max(count, 2):
        return None
    kinds = {_kind(reason) for reason in bad.values()}
    if len(kinds) > 1:
        return None
    row = min(bad)
    return f"all of them for one reason, as row {row + 1:,}: {bad[row]}"


def _kind(reason: str) -> str:
    """Return a reason without what differs from row to row: values, paths and numbers."""
    without_values = re.sub(r"'[^']*'|\"[^\"]*\"", "", reason)
    without_paths = without_values.rpartition(": ")[2]
    return re.sub(r"\d+(\.\d+)?", "", without_paths)


def guess_why_absent(source: Path, path: str) -> str:
    """Guess why a file is not there: which folder is not, or where one of that name lies."""
    elsewhere = _find_name(source, path.rpartition("/")[2])
    folder = source
    for part in path.split("/")[:-1]:
        if not (folder / part).is_dir():
            return f"There is no folder {part!r} in {folder}; {elsewhere or _held_by(folder)}"
        folder /= part

    stem = Path(path).name.partition(".")[0]
    with os.scandir(folder) as entries:
        alike = sorted(entry.name for entry in entries if entry.name.partition(".")[0] == stem)
    if alike:
        return f"There is {alike[0]} in {folder}: is the ending right?"
    return f"The folder is there; {elsewhere or _held_by(folder)}"


def _held_by(folder: Path) -> str:
    with os.scandir(folder) as entries:
        names = sorted(entry.name + "/" * entry.is_dir() for entry in entries)
    if not names:
        return f"{folder} holds nothing"
    listed = ", ".join(names[:NAMES_SHOWN])
    more = " and more" * (len(names) > NAMES_SHOWN)
    return f"{folder} holds {listed}{more}"


def _find_name(source: Path, name: str) -> str:
    """Say where in the source a file of this name lies, if one is found soon."""
    searched = 0
    for folder, _, names in os.walk(source):
        if name in names:
            found = (Path(folder) / name).relative_to(source).as_posix()
            return f"but {found} is there: mend the folders in images"
        searched += len(names)
        if searched > MOST_FILES_SEARCHED:
            break
    return ""
