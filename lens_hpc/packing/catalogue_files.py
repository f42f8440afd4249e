"""The files of a catalogue's rows: their paths, whether they are there, and where links lead."""

import os
import stat
import tarfile
from pathlib import Path

import numpy as np

from lens_hpc.errors import UserError
from lens_hpc.packing.cells import CatalogueTable
from lens_hpc.packing.links import leads_inside
from lens_hpc.packing.reasons import NO_FILE, guess_why_absent
from lens_hpc.packing.recipe import PathPattern, Recipe
from lens_hpc.packing.tar_files import tar_members, tar_of
from lens_hpc.packing.templates import expand_template


def image_patterns(recipe: Recipe) -> list[list[str]]:
    """Return, for each file of a row, the alternatives of its path; nothing for a stack."""
    if recipe.images is None:
        return []
    if isinstance(recipe.images, dict):
        return [_alternatives(recipe.images[band]) for band in recipe.bands]

    paths = _alternatives(recipe.images)
    files_of_a_row = len(recipe.bands) if any("{band" in path for path in paths) else 1
    return [paths] * files_of_a_row


def _alternatives(pattern: PathPattern) -> list[str]:
    if isinstance(pattern, str):
        return [pattern]
    if not pattern:
        raise UserError("images: an empty list names no file; name one path, or several")
    return list(pattern)


def expand_paths(
    recipe: Recipe, patterns: list[list[str]], table: CatalogueTable, source: Path
) -> np.ndarray:
    """Return the paths of each row's files, (N, files of a row)."""
    if not patterns:
        return np.empty((len(table), 0), dtype=object)

    is_pattern = recipe.catalogue is None
    columns = []
    for band, alternatives in zip(recipe.bands, patterns, strict=False):
        expanded = [
            expand_template(template, table, band, is_pattern).to_numpy()
            for template in alternatives
        ]
        columns.append(_existing_alternative(expanded, source))
    return np.array(columns, dtype=object).T


def _existing_alternative(alternatives: list[np.ndarray], source: Path) -> np.ndarray:
    """Return for each row the first alternative that has its file, or else the first of all."""
    paths = alternatives[0].copy()
    if len(alternatives) == 1:
        return paths

    for row, choices in enumerate(zip(*alternatives, strict=True)):
        for path in choices:
            if os.path.isfile(f"{source}/{path}"):  # noqa: PTH113
                paths[row] = path
                break
    return paths


class FileCheck:
    """Checks that files are there and inside the source folder, where links may be refused.

    It runs for every file, and remembers which folders are inside.
    """

    def __init__(self, source: Path, follow_links: bool) -> None:
        self.root = os.path.realpath(source)
        self.follow_links = follow_links
        self._inside_folders: dict[str, bool] = {}

    def check(self, path: str) -> tuple[str, int]:
        """Return why a file cannot be used, if so, and its time and size as one number."""
        if path.startswith("/") or ".." in path.split("/"):
            return f"{path}: leaves the source folder", 0

        archive = tar_of(path, self.root)
        if archive is None:
            return self._check_file(path)
        return self._check_member(archive, path)

    def _check_file(self, path: str) -> tuple[str, int]:
        # A Path would cost more than all the rest.
        full_path = f"{self.root}/{path}"
        try:
            status = os.lstat(full_path)
            is_link = stat.S_ISLNK(status.st_mode)
            if not self.follow_links and not self._is_inside(full_path, is_link):
                return (
                    f"{path}: a link leads out of the source folder; follow_links=true reads it",
                    0,
                )
            if is_link:
                status = os.stat(full_path)  # noqa: PTH116
        except (OSError, ValueError):
            return f"{path}: {NO_FILE}", 0

        if not stat.S_ISREG(status.st_mode):
            return f"{path}: is not a file", 0
        return "", status.st_mtime_ns * 31 + status.st_size

    def _check_member(self, archive: str, path: str) -> tuple[str, int]:
        reason, stamp = self._check_file(archive)
        if reason:
            return reason, 0

        try:
            members = tar_members(f"{self.root}/{archive}")
        except (OSError, tarfile.TarError) as error:
            return f"{archive}: cannot be read as a tar archive: {error}", 0
        name = path[len(archive) + 1 :]
        if name not in members:
            return f"{path}: there is no such member of the archive", 0

        offset, size = members[name]
        return "", (stamp * 31 + offset) * 31 + size

    def _is_inside(self, full_path: str, is_link: bool) -> bool:
        folder = full_path.rpartition("/")[0]
        if folder not in self._inside_folders:
            self._inside_folders[folder] = leads_inside(folder, self.root)
        if not self._inside_folders[folder]:
            return False
        return not is_link or leads_inside(full_path, self.root)


def check_some_files_exist(
    ids: np.ndarray, paths: np.ndarray, bad: dict[int, str], source: Path
) -> None:
    """Raise UserError, with a guess of the cause, where no row has its files."""
    count = len(ids)
    if len(bad) < max(count, 2) or not all(reason.endswith(NO_FILE) for reason in bad.values()):
        return

    path = bad[0].removesuffix(f": {NO_FILE}")
    raise UserError(
        f"{source}: none of the {count:,} rows has its file, such as {path} of id {ids[0]}. "
        + guess_why_absent(source, path)
    )
