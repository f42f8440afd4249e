"""Code of the user's own: a dotted name in a setting becomes an object, if its package is allowed.

Importing a module runs it, so a name in a dataset or a RUN must never decide what is imported. The
user does, with `code=[mypackage]` on the command line or `code=["mypackage"]` in Python.
"""

import importlib
from collections.abc import Collection, Mapping
from typing import Any

from lens_hpc.errors import UserError


def find_object(setting: str, name: str, known: Mapping[str, Any], code: Collection[str]) -> Any:
    """Return what a setting names: an entry of `known`, or an object of a package in `code`.

    Raises UserError when the name is unknown, or when its package was not allowed.
    """
    if name in known:
        return known[name]
    if isinstance(code, str):
        code = (code,)

    module_name, dot, attribute = name.rpartition(".")
    if not dot:
        raise UserError(
            f"{setting} = {name}: unknown; valid: {', '.join(known)}, or mypackage.module.Name of "
            "your own with code=[mypackage]"
        )
    package = name.partition(".")[0]
    if package not in code:
        raise UserError(
            f"{setting} = {name}: is code of your own, and nothing is imported unless you say so; "
            f"add code=[{package}]"
        )

    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{setting} = {name}: cannot be imported ({error}); is {package} installed, or its "
            "folder on PYTHONPATH?"
        ) from error
