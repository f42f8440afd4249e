"""The Python door: every verb as a function, `lens_hpc.VERB(target, setting=value, ...)`."""

import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lens_hpc import launching, logs, verbs
from lens_hpc.errors import UserError
from lens_hpc.extras import missing_packages_told
from lens_hpc.process import let_threads_sleep, unchanged


def as_function(name: str) -> Callable[..., Any]:
    """Return a verb as a function. It leaves the process as it was.

    That is: environment, signals, logging, random states, threads and flags. They belong to the
    whole process, so two verbs should not run in two of its threads at once.
    """
    header = verbs.header(name)

    def verb(*targets: str | Path | Sequence[str | Path], **settings: Any) -> Any:
        _check_not_in_a_worker(name)
        launching.refuse_processes(name, settings)
        values = dict(settings)
        given: Any = targets
        if not targets and header.target_setting in values:
            given = values.pop(header.target_setting)
        if header.target_setting and not given:
            raise UserError(f"lens_hpc.{name} needs its {header.target.split()[0]} first")

        told = missing_packages_told(header.extra)
        with told, unchanged(), logs.shown(logs.launched_rank()):
            let_threads_sleep()
            paths = _paths(name, given)
            source = f"lens_hpc.{name}(...)"
            read = verbs.read_settings(name, paths, values=values, source=source)
            return verbs.module(name).run(read)

    verb.__name__ = verb.__qualname__ = name
    verb.__module__ = "lens_hpc"
    verb.__doc__ = (
        f"{header.summary}\n\nThe settings are those of `lens-hpc {name} --help`, groups as "
        "dictionaries. Raises UserError for what is wrong with them or with the data."
    )
    return verb


def _paths(name: str, given: Any) -> list[Path]:
    """Return the targets of a call as paths; several may come as a list."""
    targets = list(given) if isinstance(given, tuple | list) else [given]
    if len(targets) == 1 and isinstance(targets[0], tuple | list):
        targets = list(targets[0])

    for target in targets:
        if not isinstance(target, str | Path):
            kind = type(target).__name__
            raise UserError(
                f"lens_hpc.{name}: files and folders are texts or paths, not {kind}; settings are "
                "keywords, as in setting=value"
            )
    return [Path(target) for target in targets]


def _check_not_in_a_worker(name: str) -> None:
    """Raise UserError in a worker process that is importing the script that started it."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UserError(
            f"lens_hpc.{name} was called by a script while a worker process imported it; put the "
            'calls below `if __name__ == "__main__":`'
        )
