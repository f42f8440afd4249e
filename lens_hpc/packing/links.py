"""Where paths lead: whether a file lies in the source folder, whatever links there are."""

import os
from collections.abc import Iterator
from pathlib import Path


def leads_inside(path: str | Path, real_root: str) -> bool:
    """Say whether a path leads into a folder, which is given without links."""
    real_path = os.path.realpath(path)
    return real_path == real_root or real_path.startswith(real_root.rstrip(os.sep) + os.sep)


def first_outside(path: Path, folder: Path) -> Path | None:
    """Return a path, or the first file below it that is read, that leads out of a folder, if so."""
    root = os.path.realpath(folder)
    if not leads_inside(path, root):
        return path
    links = (link for link in _links_below(path) if not leads_inside(link, root))
    return next(links, None)


def _links_below(folder: Path) -> Iterator[Path]:
    # Imported here, for a recipe is also read where no file is.
    from lens_hpc.packing.stack_files import STACK_ENDINGS
    from lens_hpc.packing.tables import FOLDER_ENDINGS
    from lens_hpc.packing.tar_files import TAR

    endings = (*STACK_ENDINGS, *(f".{ending}" for ending in FOLDER_ENDINGS), TAR)
    for subfolder, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(subfolder, name)  # noqa: PTH118 - there may be a million
            is_read = name.lower().removesuffix(".gz").endswith(endings)
            if is_read and os.path.islink(path) and os.path.isfile(path):  # noqa: PTH113, PTH114
                yield Path(path)
