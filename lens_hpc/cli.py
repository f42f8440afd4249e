"""The command line: `lens-hpc VERB FILE-OR-FOLDER key=value ...`.

The verbs are found in lens_hpc/verbs. Their files are read for --help, and imported when called.
"""

import difflib
import errno
import os
import signal
import sys
import textwrap
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lens_hpc import logs, process, verbs
from lens_hpc._version import __version__
from lens_hpc.errors import UserError
from lens_hpc.refusals import remedy_for
from lens_hpc.texts import printable

# Verbs in the order in which a user first needs them. All others follow.
FIRST_DAY = (
    "simulate",
    "pack",
    "verify",
    "info",
    "audit",
    "inject",
    "train",
    "weights",
    "check",
    "bench",
    "evaluate",
    "predict",
)
# Nobody reads on, or the terminal is gone.
NOBODY_READS = {errno.EPIPE, errno.EIO, errno.EBADF}

USER_ERROR_STATUS = 2
INTERRUPTED_STATUS = 130
SECONDS_FOR_RANK_0 = 3

EXIT_STATUS = (
    "Exit status: 0 done; 1 our fault; 2 your input is at fault, and the message says where; "
    "3 audit found a leak;\n"
    "85 train was asked to stop, has saved, and goes on when the same line is run again."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for a user's mistake, or the verb's own."""
    if arguments is not None:
        return _call(list(arguments))

    process.ends_with_command = True
    logs.make_streams_last()
    return _call(sys.argv[1:])


def _call(words: list[str]) -> int:
    verb, rest = (words[0], words[1:]) if words else ("--help", [])

    if verb in {"-h", "--help"}:
        return _show(overview())
    if verb == "--version":
        return _show(f"lens-hpc {__version__}")
    if verb not in verbs.names():
        return _refuse(_unknown(verb))
    if {"-h", "--help"} & set(rest):
        return _show(verb_help(verb))

    targets, overrides = split_arguments(rest)
    if not targets:
        told = verbs.header(verb)
        return _refuse(f"{verb} needs its {told.target.split()[0]} first, as in\n  {told.example}")
    return _run(verb, targets, overrides)


def split_arguments(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Separate what stands before the settings from the settings, `key=value` each.

    A file whose name has an equals sign is no setting, where it stands first.
    """
    targets = []
    overrides = []
    for position, word in enumerate(words):
        # A Path would raise for a word that is too long for a name.
        is_target = "=" not in word or (position == 0 and os.path.exists(word))  # noqa: PTH110
        if is_target:
            targets.append(Path(word))
        else:
            overrides.append(word)
    return targets, overrides


def _run(verb: str, targets: list[Path], overrides: list[str]) -> int:
    process.let_threads_sleep()  # before a verb imports torch
    logs.setup(logs.launched_rank())
    try:
        settings = verbs.read_settings(verb, targets, overrides)
        module = verbs.module(verb)
        result = module.run(settings)
    except UserError as error:
        return _refuse(f"{verb}: {error}")
    except OSError as error:
        words = remedy_for(error.errno)
        if not words:
            raise
        file = error.filename or "a file that the system does not name"
        return _refuse(f"{verb}: {file}: {error.strerror}; {words}")
    except KeyboardInterrupt:
        return INTERRUPTED_STATUS

    status = 0
    if result is not None:
        text = module.text(result)
        if text and _show(text) != 0:
            return USER_ERROR_STATUS
        if hasattr(module, "status"):
            status = module.status(result)
    _write_status(status)
    return status


def _show(text: str) -> int:
    """Print a text, and return 0, or 2 where the file that shall hold it has not got it.

    `lens-hpc --help | head` ends in silence, and what a verb has done counts, read or not.
    """
    print(printable(text), flush=True)
    failure = sys.stdout.failure if isinstance(sys.stdout, logs.Output) else None
    if failure is None or failure.errno in NOBODY_READS:
        return 0
    return _refuse(f"standard output: {failure.strerror}")


def _unknown(verb: str) -> str:
    near = difflib.get_close_matches(verb, verbs.names(), n=1)
    if near:
        return f"unknown verb {verb!r}; did you mean {near[0]}?"
    return f"unknown verb {verb!r}; verbs: {', '.join(verbs_in_order())}"


def _refuse(message: str) -> int:
    """Print what is wrong, once, and return exit status 2."""
    rank = logs.launched_rank()
    if rank:
        # When all ranks fail alike, the first speaks, and the launcher ends the others before they
        # do.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(SECONDS_FOR_RANK_0)
        message = f"[rank {rank}] lens-hpc: {message}"
    else:
        message = f"lens-hpc: {message}"
    print(printable(message), file=sys.stderr, flush=True)

    _write_status(USER_ERROR_STATUS)
    if "RANK" in os.environ:
        # Python's own way out would wait for threads that wait for the other ranks.
        os._exit(USER_ERROR_STATUS)
    return USER_ERROR_STATUS


def _write_status(status: int) -> None:
    """Tell a batch script how this command ended, as launchers turn every status into 1.

    slurm/job.sh names the file. That all went well is for the first rank to say.
    """
    file = os.environ.get("LENS_HPC_STATUS")
    speaks = status != 0 or not logs.launched_rank()
    if file and speaks:
        # On a full disk, the script takes the status for 1.
        with suppress(OSError):
            Path(file).write_text(f"{status}\n", encoding="utf-8")


# ---- help ----


def verbs_in_order() -> list[str]:
    """Return the names of all verbs, those that are used first at the beginning."""
    found = verbs.names()
    first = [name for name in FIRST_DAY if name in found]
    return first + [name for name in found if name not in FIRST_DAY]


def overview() -> str:
    """Return the text of `lens-hpc --help`."""
    lines = [
        "lens-hpc VERB FILE-OR-FOLDER key=value ...",
        "",
        "Train and evaluate strong-lens finders, and score surveys, from a laptop to a cluster.",
        "",
    ]
    headers = {name: verbs.header(name) for name in verbs_in_order()}
    for name, header in headers.items():
        name_column = f"  {name:<13}"
        indent = " " * len(name_column)
        lines += textwrap.wrap(
            header.summary, 100, initial_indent=name_column, subsequent_indent=indent
        )

    lines += ["", "Examples, in the order in which you would first use them:"]
    lines += [f"  {header.example}" for header in headers.values()]
    lines += ["", "lens-hpc VERB --help lists the settings of a verb.", EXIT_STATUS]
    return "\n".join(lines)


def verb_help(name: str) -> str:
    """Return the text of `lens-hpc VERB --help`: every setting with its default and meaning."""
    from lens_hpc.settings import describe  # pydantic: not for `lens-hpc --help`

    header = verbs.header(name)
    described = [
        setting
        for setting in describe(verbs.module(name).Settings)
        if setting.key != header.target_setting
    ]
    lines = [f"lens-hpc {name} {header.target} key=value ...", ""]
    lines += textwrap.wrap(header.summary, 100)
    lines += ["", "Example:", f"  {header.example}", ""]
    lines.append("Settings, their defaults and meaning:" if described else "No settings.")

    indent = " " * 6
    for setting in described:
        lines.append(f"  {setting.key} = {setting.default}")
        lines += textwrap.wrap(setting.meaning, 94, initial_indent=indent, subsequent_indent=indent)
    return "\n".join(lines)
