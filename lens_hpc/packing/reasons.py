"""One reason instead of twenty: what is said where many rows fail alike, and a guess why."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

NO_FILE = "there is no such file"
NAMES_SHOWN = 3
EXAMPLES = 3
"""Of rows that fail for one kind of reason."""
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


class _Kind:
    """Rows that fail for one kind of reason."""

    def __init__(self) -> None:
        self.examples: list[str] = []
        self.first_reason = ""
        self.rows_left_out = 0


class Listing:
    """Bad rows by the kind of their reason: some examples of each, and how many more there are."""

    def __init__(self, most_lines: int) -> None:
        self.most_lines = most_lines
        self.kinds: dict[str, _Kind] = {}

    def add(self, line: str, reason: str, rows: int = 1) -> None:
        """Add a line that names one row, or several, and their reason."""
        kind = self.kinds.setdefault(_kind(reason), _Kind())
        kind.first_reason = kind.first_reason or reason
        if len(kind.examples) < EXAMPLES:
            kind.examples.append(line)
        else:
            kind.rows_left_out += rows

    def lines(self, source: Path) -> list[str]:
        """Return the lines; `source` is where a guess looks for files that are not there."""
        lines: list[str] = []
        for number, kind in enumerate(self.kinds.values()):
            if len(lines) >= self.most_lines:
                lines.append(f"  and {len(self.kinds) - number:,} reasons more")
                break
            lines += [f"  {example}" for example in kind.examples]
            if kind.rows_left_out:
                lines.append(f"  and {kind.rows_left_out:,} rows more for the same reason")
            guess = _guess_of_folder(source, kind.first_reason)
            lines += [f"  {guess}"] if guess else []
        return lines


def _guess_of_folder(source: Path, reason: str) -> str:
    """Say which folder is not there, where that is why a file is not."""
    path = reason.removesuffix(f": {NO_FILE}")
    if path == reason or (source / path).parent.is_dir():
        return ""
    return guess_why_absent(source, path)


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
