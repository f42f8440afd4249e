"""The command line: `lens-hpc VERB FILE-OR-FOLDER key=value ...`.

The verbs are found in lens_hpc/verbs. Their files are read for --help, and imported when called.
"""

import difflib
import errno
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lens_hpc import help, launching, logs, process, verbs
from lens_hpc.command_words import foreign_words, split_arguments
from lens_hpc.errors import USER_ERROR_STATUS, UserError
from lens_hpc.extras import missing_packages_told
from lens_hpc.refusals import remedy_for
from lens_hpc.texts import printable

# Nobody reads on, or the terminal is gone.
NOBODY_READS = {errno.EPIPE, errno.EIO, errno.EBADF}

INTERRUPTED_STATUS = 130
SECONDS_FOR_RANK_0 = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for a user's mistake, or the verb's own."""
    if arguments is not None:
        return _call(list(arguments))

    process.ends_with_command = True
    logs.make_streams_last()
    launching.end_with_launcher()
    return _call(sys.argv[1:])


def _call(words: list[str]) -> int:
    verb, rest = (words[0], words[1:]) if words else ("help", [])
    try:
        answer = _answer(verb, rest)
    except UserError as error:
        return _refuse(str(error))
    if answer:
        return _show(answer)
    if verb not in verbs.names():
        return _refuse(_unknown(verb))

    mistake = foreign_words(verb, rest)
    if mistake:
        return _refuse(f"{verb}: {mistake}")
    targets, overrides = split_arguments(rest)
    if not targets:
        told = verbs.header(verb)
        return _refuse(f"{verb} needs its {told.target.split()[0]} first, as in\n  {told.example}")
    return _run(verb, targets, overrides)


def _answer(word: str, rest: list[str]) -> str:
    """Return the text that a line asks for which does no work; empty where it asks for work."""
    if word in verbs.names():
        asks = bool({"-h", "--help"} & set(rest))
        return help.verb_help(word, shows_all="all" in rest) if asks else ""
    match word, rest:
        case ("-h" | "--help" | "help", []):
            return help.overview()
        case ("--version" | "version", _):
            from lens_hpc._version import __version__  # looks it up

            return f"lens-hpc {__version__}"
        case ("help" | "config", [verb, *_]) if verb not in verbs.names():
            raise UserError(f"{word}: {_unknown(verb)}")
        case ("help", [verb, *more]):
            return help.verb_help(verb, shows_all="all" in more)
        case ("config" | "completion", _):
            return _written_text(word, rest)
    return ""


def _written_text(word: str, rest: list[str]) -> str:
    """Return the text that a line asks for to be written into a file, or read by a shell."""
    # They import the verbs, and pydantic.
    if word == "config":
        from lens_hpc.settings_file import file_of_verb

        if len(rest) == 1:
            return file_of_verb(rest[0])
        raise UserError("config needs one verb, as in\n  lens-hpc config train > my.yaml")

    from lens_hpc.completion import SCRIPTS, completion_script

    if len(rest) == 1 and rest[0] in SCRIPTS:
        return completion_script(rest[0])
    raise UserError(
        "completion needs a shell, bash or zsh, as in\n  source <(lens-hpc completion bash)"
    )


def _run(verb: str, targets: list[Path], overrides: list[str]) -> int:
    process.let_threads_sleep()  # before a verb imports torch
    logs.setup(logs.launched_rank())
    try:
        with missing_packages_told(verbs.header(verb).extra):
            processes, overrides = launching.split_processes(verb, overrides)
            settings = verbs.read_settings(verb, targets, overrides)
            if processes > 1:
                return launching.launch([verb, *map(str, targets), *overrides], processes)
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
    near = difflib.get_close_matches(verb.lower(), verbs.names(), n=1)
    if near:
        return f"unknown verb {verb!r}; did you mean {near[0]}?"
    return f"unknown verb {verb!r}; verbs: {', '.join(help.verbs_in_order())}"


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
