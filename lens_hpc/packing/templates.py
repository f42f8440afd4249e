"""Templates of paths and ids: `{column}` stands for a row's value, `{band}` for a band.

A table is a DataFrame of strings; an empty cell is a missing value.
"""

import os
import re
from pathlib import Path
from string import Formatter

import pandas as pd

from lens_hpc.errors import UserError

BAND = "band"
FILES_SHOWN = 3


def template_fields(template: str) -> list[str]:
    """Return the names of the {fields} of a template, each once, without {band}."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise UserError(
            f"{template!r} is not a template: {error}; write {{column}} for a column's value"
        ) from error

    names = [name for _, name, _, _ in parts if name is not None]
    unique_names = dict.fromkeys(names)
    return [name for name in unique_names if name != BAND]


def expand_template(template: str, table: pd.DataFrame, band: str = "") -> pd.Series:
    """Return the template with each row's values filled in, (N,) strings."""
    texts = pd.Series("", index=table.index, dtype=object)
    for literal, name, _, _ in Formatter().parse(template):
        texts = texts + literal
        if name == BAND:
            texts = texts + band
        elif name is not None:
            texts = texts + table[name]
    return texts


def match_files(pattern: str, source: Path, band: str) -> pd.DataFrame:
    """Find the files below `source` whose path matches, and return their fields as columns.

    There is a row for each file, in the order of the paths. {name} matches anything but a slash,
    {name:REGEX} what the regular expression says, {band} the band given. Raises UserError when no
    file matches or when the pattern is not valid.
    """
    regex = _pattern_regex(pattern, band)
    paths = _files_below(source)
    matches = [regex.fullmatch(path) for path in paths]
    rows = [match.groupdict(default="") for match in matches if match]
    if rows:
        return pd.DataFrame(rows, dtype=object)

    if not paths:
        raise UserError(f"{source}: no file matches images = {pattern}; it holds no files")
    examples = ", ".join(paths[:FILES_SHOWN])
    raise UserError(f"{source}: no file matches images = {pattern}; such as {examples}")


def _files_below(folder: Path) -> list[str]:
    """Return the sorted paths of all files below a folder, relative to it."""
    paths = []
    for subfolder, _, names in os.walk(folder):
        relative = Path(subfolder).relative_to(folder)
        paths += [(relative / name).as_posix() for name in names]
    return sorted(paths)


def _pattern_regex(pattern: str, band: str) -> re.Pattern[str]:
    """Return the regular expression that a path pattern stands for."""
    parts = []
    seen = set()
    for literal, name, regex, _ in Formatter().parse(pattern):
        parts.append(re.escape(literal))
        if name is None:
            continue

        if name == BAND:
            parts.append(re.escape(band))
        elif name in seen:
            # A field that is there twice must have the same value both times.
            parts.append(f"(?P={name})")
        else:
            parts.append(f"(?P<{name}>{regex or '[^/]+'})")
            seen.add(name)

    try:
        return re.compile("".join(parts))
    except re.error as error:
        raise UserError(f"images = {pattern}: is not a valid pattern: {error}") from error
