"""Templates of paths and ids: `{column}` stands for a row's value, `{band}` for a band.

A number may be padded: `{number:06d}`. In a pattern that finds files, what follows the colon is a
regular expression instead.
"""

import os
import re
import tarfile
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lens_hpc.errors import UserError
from lens_hpc.packing.cells import CatalogueTable
from lens_hpc.packing.guarded import TooLongError, call_within
from lens_hpc.packing.tar_files import TAR, tar_members

BAND = "band"
PADDED = re.compile(r"0?\d{0,2}d")
FILES_SHOWN = 3
LONGEST = 4096
"""No path that a system opens is longer."""
LEAST_SECONDS = 1
PATHS_PER_SECOND = 50_000
"""A sound pattern is compared with many more, and one that backtracks perhaps with none."""


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


def check_template(template: str, is_pattern: bool = False) -> None:
    """Raise UserError for a text that is no template."""
    if len(template) > LONGEST:
        raise UserError(f"{template[: FILES_SHOWN * 20]}...: is longer than {LONGEST:,} characters")
    template_fields(template)
    for _, name, spec, conversion in Formatter().parse(template):
        is_width = not spec or is_pattern or PADDED.fullmatch(spec)
        if name is not None and (conversion or not is_width):
            raise UserError(f"{template}: only a number's width can be given, as in {{name:06d}}")


def expand_template(
    template: str, table: CatalogueTable, band: str = "", is_pattern: bool = False
) -> pd.Series:
    """Return the template with each row's values filled in, (N,) strings.

    A missing value is an empty text. `is_pattern` says that a field's format is a regular
    expression, which matters only to `match_files`.
    """
    check_template(template, is_pattern)

    # An empty column first, for a template without a field.
    parts: list[Any] = [pa.repeat(_text(""), len(table))]
    for literal, name, spec, _ in Formatter().parse(template):
        parts.append(_text(literal))
        if name is None:
            continue
        if name == BAND:
            parts.append(_text(band))
        elif spec and not is_pattern:
            parts.append(_padded(template, table, name, spec))
        else:
            parts.append(pc.fill_null(table.texts(name), ""))

    texts = pc.binary_join_element_wise(*parts, _text(""))
    return pd.Series(texts.to_numpy(zero_copy_only=False), dtype=object)


def _text(text: str) -> pa.Scalar:
    return pa.scalar(text, pa.large_string())


def _padded(template: str, table: CatalogueTable, name: str, spec: str) -> pa.Array:
    """Return a column's whole numbers as texts of some width."""
    numbers, wrong = table.numbers(name)
    if pa.types.is_floating(numbers.type):
        wrong = np.append(wrong, np.flatnonzero(_is_not_whole(numbers)))
    if len(wrong):
        text = table.texts(name)[int(wrong[0])].as_py()
        raise UserError(
            f"{template}: {name} = {text!r} is not a whole number, or too large for one; take the "
            f"width off, as in {{{name}}}, or mend the row"
        )

    whole = numbers.cast(pa.int64()).to_pylist()
    texts = [None if number is None else format(number, spec) for number in whole]
    return pc.fill_null(pa.array(texts, pa.large_string()), "")


def _is_not_whole(numbers: pa.Array) -> np.ndarray:
    """Say which of (N,) floats are no whole numbers with all their digits; none that is missing."""
    values = numbers.to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):  # of what is infinite
        is_whole = (values % 1 == 0) & (abs(values) < 2**53)
    return ~is_whole & np.asarray(numbers.is_valid())


def match_files(
    pattern: str,
    source: Path,
    band: str,
    paths: list[str] | None = None,
    setting: str = "images",
) -> pd.DataFrame:
    """Find the files below `source` whose path matches, and return their fields as columns.

    There is a row for each file, in the order of the paths. {name} matches anything but a slash,
    {name:REGEX} what the regular expression says, {band} the band given. `paths` are the files
    below the folder, where they are known already, and `setting` is the one that holds the
    pattern. Raises UserError when no file matches or when the pattern is not valid.
    """
    regex = _pattern_regex(pattern, band, setting)
    if paths is None:
        paths = files_below(source)
    seconds = LEAST_SECONDS + len(paths) // PATHS_PER_SECOND
    try:
        count, columns = call_within(seconds, _match_all, regex, paths)
    except TooLongError as error:
        raise UserError(
            f"{setting} = {pattern}: comparing it with {len(paths):,} paths takes more than "
            f"{seconds} s; write fewer of * and +, and none within another"
        ) from error
    if count:
        return pd.DataFrame(columns, index=range(count), dtype=object)

    if not paths:
        raise UserError(f"{source}: no file matches {setting} = {pattern}; it holds no files")
    examples = ", ".join(paths[:FILES_SHOWN])
    raise UserError(
        f"{source}: no file matches {setting} = {pattern}; such as {examples}"
        + _passed_over(source)
    )


def _match_all(regex: re.Pattern[str], paths: list[str]) -> tuple[int, dict[str, list[str]]]:
    """Return how many paths match, and the fields of those, each as a column."""
    matches = [match for path in paths if (match := regex.fullmatch(path))]
    columns = {name: [match[name] or "" for match in matches] for name in regex.groupindex}
    return len(matches), columns


def files_below(folder: Path, follow_links: bool = False) -> list[str]:
    """Return the sorted paths of all files below a folder, relative to it.

    Those within tar archives are among them. Folders that are links are passed over unless
    `follow_links` says otherwise.
    """
    paths = []
    seen = set()
    for subfolder, subfolders, names in os.walk(folder, followlinks=follow_links):
        relative = Path(subfolder).relative_to(folder)
        for name in names:
            path = (relative / name).as_posix()
            paths += [path, *_members(folder, path)]

        # A link may lead back to a folder above itself.
        if follow_links:
            real_path = os.path.realpath(subfolder)
            if real_path in seen:
                subfolders.clear()
            seen.add(real_path)
    return sorted(paths)


def _members(folder: Path, path: str) -> list[str]:
    """Return the paths of the files in a tar archive; none for another file."""
    if not path.endswith(TAR) or not (folder / path).is_file():
        return []
    try:
        members = tar_members(str(folder / path))
    except (OSError, tarfile.TarError) as error:
        # Its samples would be left out without a word.
        raise UserError(
            f"{folder / path}: cannot be read as a tar archive: {error}; mend it or move it away"
        ) from error
    return [f"{path}/{name}" for name in members]


def _passed_over(folder: Path) -> str:
    """Name a linked folder in which nothing was looked for, if there is one."""
    for subfolder, subfolders, _ in os.walk(folder):
        for name in subfolders:
            path = Path(subfolder) / name
            if path.is_symlink():
                return f"; {path} is a link, which follow_links=true follows"
    return ""


def _pattern_regex(pattern: str, band: str, setting: str) -> re.Pattern[str]:
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
        raise UserError(f"{setting} = {pattern}: is not a valid pattern: {error}") from error
