"""Extras: what a verb needs beyond reading datasets, as pyproject.toml lists it.

A package that is missing is told with the extra that brings it, `pip install 'lens_hpc[train]'`. A
verb's file names its extra (`lens_hpc.verbs`); the lists are those of the installed lens_hpc.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from lens_hpc.errors import UserError

NAMES = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "mlflow": "mlflow-skinny",
    "sklearn": "scikit-learn",
}
"""Packages that pip knows by another name than `import` does."""

OF_DEVELOPERS = ("dev", "docs")
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[(?P<extras>.+?)\])?.*?(extra == .(?P<extra>\w+).)?")


@contextmanager
def missing_packages_told(extra: str = "") -> Iterator[None]:
    """Say which extra brings a package that is not installed, and is one of ours.

    `extra` is that of the work that is done here. Raises UserError.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = error.name or ""
        bringing = extra_with(package, extra)
        if not bringing:
            raise
        raise UserError(
            f"{package} is not installed: pip install 'lens_hpc[{bringing}]'"
        ) from error


def extra_with(package: str, preferred: str = "") -> str:
    """Return the extra that brings a package, by the name of its import; empty if none does."""
    wanted = NAMES.get(package, package)
    lists = _lists()
    if wanted in packages_of(preferred, lists):
        return preferred
    for extra in sorted(lists.keys() - set(OF_DEVELOPERS)):
        if wanted in lists[extra]:
            return extra
    return ""


def packages_of(extra: str, lists: dict[str, set[str]]) -> set[str]:
    """Return all that an extra brings: its own packages, and those of the extras that it names."""
    packages = set()
    for name in lists.get(extra, ()):
        is_extra = name.startswith("[")
        packages |= packages_of(name.strip("[]"), lists) if is_extra else {name}
    return packages


def _lists() -> dict[str, set[str]]:
    """Return what each extra of the installed lens_hpc names."""
    from importlib.metadata import PackageNotFoundError, requires  # not before something is missing

    try:
        return lists_of(requires("lens_hpc") or [])
    except PackageNotFoundError:
        return {}


def lists_of(requirements: list[str]) -> dict[str, set[str]]:
    """Sort requirements such as `torch>=2; extra == "train"` by their extra.

    Another extra of lens_hpc stands in brackets, as an extra may have the name of a package.
    """
    lists: dict[str, set[str]] = {}
    for text in requirements:
        requirement = REQUIREMENT.fullmatch(text)
        if requirement and requirement["extra"]:
            names = [requirement["name"].lower()]
            if names == ["lens_hpc"]:
                names = [f"[{name}]" for name in requirement["extras"].split(",")]
            lists.setdefault(requirement["extra"], set()).update(names)
    return lists
