"""lens_hpc: a distributed training toolkit for finding strong gravitational lenses.

    import lens_hpc

    dataset = lens_hpc.Dataset("data/shards")
    finder = lens_hpc.Finder.load("runs/first")
    logits = finder.score(images, features)

Every verb of the command line is a function of the same name and settings: `lens_hpc.VERB(target,
setting=value, ...)` returns an object where the terminal prints text. Nothing is imported before it
is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from lens_hpc.errors import UserError

if TYPE_CHECKING:
    from lens_hpc._version import __version__
    from lens_hpc.dataset.dataset import Dataset
    from lens_hpc.scoring.finder import Finder

__all__ = ["Dataset", "Finder", "UserError", "__version__"]

_OBJECTS = {
    "Dataset": "lens_hpc.dataset.dataset",
    "Finder": "lens_hpc.scoring.finder",
    "__version__": "lens_hpc._version",
}
_EXTRA_OF_FINDER = "train"


def __getattr__(name: str) -> Any:
    """Import what is asked for: an object, or a verb as a function.

    Raises UserError where a package that an object needs is not installed.
    """
    if name in _OBJECTS:
        from lens_hpc.extras import missing_packages_told

        with missing_packages_told(_EXTRA_OF_FINDER):
            found = getattr(importlib.import_module(_OBJECTS[name]), name)
    else:
        verbs = importlib.import_module("lens_hpc.verbs")
        if name not in verbs.names():
            raise AttributeError(f"module 'lens_hpc' has no attribute {name!r}")
        found = importlib.import_module("lens_hpc.door").as_function(name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    verbs = importlib.import_module("lens_hpc.verbs")
    return sorted([*__all__, *verbs.names()])
