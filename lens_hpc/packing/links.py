"""Where paths lead: whether a file lies in the source folder, whatever links there are."""

import os
from collections.abc import Iterator
from pathlib import Path


def leads_inside(path: str | Path, real_root: str) -> bool:
    """Say whether a path leads into a folder, which is given without links."""
    real_path = os.path.realpath(path)
    return real_path == real_root or real_path.startswith(real_root.rstrip(os.sep) + os.sep)


def first_outside(path: Path, folder: Path) -> Path | None:
    """Return a path, or the first link below it, that leads out of a folder; None without one."""
    root = os.path.realpath(folder)
    if not leads_inside(path, root):
        return path
    links = (link for link in _links_below(path) if not leads_inside(link, root))
    return next(links, None)


def _links_below(folder: Path) -> Iterator[Path]:
    for subfolder, subfolders, names in os.walk(folder):
        for name in [*subfolders, *names]:
            path = os.path.join(subfolder, name)  # noqa: PTH118 - there may be a million
            if os.path.islink(path):  # noqa: PTH114
                yield Path(path)
