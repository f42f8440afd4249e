"""The command line: `lens-hpc VERB FILE-OR-FOLDER key=value ...`.

A verb is a module of that name with `run(target, overrides)`, imported only when called, so that help answers at once.
"""

import difflib
import errno
import importlib
import os
import signal
import sys
import textwrap
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from lens_hpc import UserError, __version__, logs


class Verb(NamedTuple):
    """What --help says of a verb."""

    target: str
    summary: str
    example: str


# The file system says no: a matter of the user's folders, not of our code.
THE_USERS_ERRNOS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EISDIR}
LAUNCH = "accelerate launch --config_file configs/accelerate/cpu.yaml -m lens_hpc"
VERBS = {
    "simulate": Verb(
        "OUT",
        "Make a labelled mock survey: FITS cutouts, catalogue.csv and recipe.yaml in the new folder OUT.",
        "lens-hpc simulate data/demo/survey objects=4000 seed=0",
    ),
    "pack": Verb(
        "RECIPE",
        "Pack a catalogue and its images into HDF5 shards and a manifest, as the recipe file describes them.",
        "lens-hpc pack data/demo/survey/recipe.yaml source=data/demo/survey output=data/demo/shards",
    ),
    "verify": Verb(
        "DATASET",
        "Read every byte of a packed dataset, and name the shards and rows that are damaged.",
        "lens-hpc verify data/demo/shards",
    ),
    "info": Verb(
        "DATASET",
        "Say what is in a packed dataset: splits, classes, features, bands, where it came from; draw some cutouts.",
        "lens-hpc info data/demo/shards figure=cutouts.png",
    ),
    "audit": Verb(
        "DATASET",
        "Find what gives the label away before anyone trains: features, shortcuts, duplicates, split groups. "
        "The verdicts are kept in DATASET/audit.json; exit status 3 when one is leak.",
        "lens-hpc audit data/demo/shards",
    ),
    "train": Verb(
        "CONFIG",
        "Train the fusion model on a packed dataset, on as many processes as the launcher starts.",
        f"{LAUNCH} train configs/train/demo.yaml train.epochs=5",
    ),
    "weights": Verb(
        "CONFIG",
        "Fetch timm's pretrained weights of a config's backbone into a folder, for compute nodes without internet.",
        "lens-hpc weights configs/train/resnet50.yaml",
    ),
    "check": Verb(
        "CONFIG",
        "Find in seconds, before the queue, what could fail later: config, data, weights, batches, disk, memory.",
        "lens-hpc check configs/train/demo.yaml world_size=4",
    ),
    "bench": Verb(
        "CONFIG",
        "Measure for a minute where the time of a training would go on this machine, and which setting to turn.",
        "lens-hpc bench configs/train/demo.yaml",
    ),
    "evaluate": Verb(
        "RUN [RUN ...]",
        "Score a split with a trained run, or with several as one ensemble: report.html, metrics.json, "
        "predictions.parquet and figures in RUN/evaluation/SPLIT.",
        f"{LAUNCH} evaluate runs/demo split=test",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 2 the user's input is at fault, else what the verb says."""
    verb, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if verb in {"-h", "--help"}:
        _show(overview())
    elif verb == "--version":
        print(f"lens-hpc {__version__}")
    elif verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        return _refuse(
            f"unknown verb {verb!r}; " + (f"did you mean {near[0]}?" if near else f"verbs: {', '.join(VERBS)}")
        )
    elif {"-h", "--help"} & set(rest):
        _show(verb_help(verb))
    elif not rest or ("=" in rest[0] and not Path(rest[0]).exists()):
        return _refuse(f"{verb} needs its {VERBS[verb].target.split()[0]} first, as in\n  {VERBS[verb].example}")
    else:
        return _run(verb, Path(rest[0]), rest[1:])
    return 0


def _run(verb: str, target: Path, overrides: list[str]) -> int:
    logs.setup(logs.launched_rank())
    try:
        status: int | None = importlib.import_module(f"lens_hpc.{verb}").run(target, overrides)
    except UserError as error:
        return _refuse(f"{verb}: {error}")
    except OSError as error:
        if error.errno not in THE_USERS_ERRNOS:
            raise
        return _refuse(f"{verb}: {error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        return 130
    _leave_word(status or 0)
    return status or 0


def _show(text: str) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `lens-hpc --help | head` ends in silence
    print(text)


def _refuse(message: str) -> int:
    """Say what is wrong, once: when all ranks fail alike, the launcher ends the others before they speak."""
    rank = logs.launched_rank()
    if rank:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a training only takes note of it
        time.sleep(3)
    print(f"[rank {rank}] " * (rank > 0) + f"lens-hpc: {message}", file=sys.stderr, flush=True)
    _leave_word(2)
    if "RANK" in os.environ:
        os._exit(2)  # Python's own way out would wait for threads that wait for the other ranks
    return 2


def _leave_word(status: int) -> None:
    """Tell a batch script how we ended (slurm/job.sh): launchers turn every status into 1. Success is the first's."""
    if (status or not logs.launched_rank()) and (file := os.environ.get("LENS_HPC_STATUS")):
        with suppress(OSError):  # a full disk: the status is 1 then
            Path(file).write_text(f"{status}\n", encoding="utf-8")


def overview() -> str:
    """Text of `lens-hpc --help`."""
    lines = [
        "lens-hpc VERB FILE-OR-FOLDER key=value ...",
        "",
        "Train and evaluate strong-lens finders, from a laptop to a cluster.",
        "",
    ]
    for name, verb in VERBS.items():
        lines += textwrap.wrap(verb.summary, 100, initial_indent=f"  {name:<10}", subsequent_indent=" " * 12)
    lines += ["", "Examples, in the order of a first day:"]
    lines += [f"  {verb.example}" for verb in VERBS.values()]
    lines += ["", "lens-hpc VERB --help lists the settings of a verb."]
    lines += [
        "Exit status: 0 done; 1 our fault; 2 your input is at fault, and the message says where; 3 audit found a leak;",
        "85 train was asked to stop, has saved, and goes on when the same line is run again.",
    ]
    return "\n".join(lines)


def verb_help(name: str) -> str:
    """Text of `lens-hpc VERB --help`: every setting with its default and meaning."""
    from lens_hpc import config

    verb, settings = VERBS[name], config.describe(getattr(config, name.capitalize()))
    lines = [f"lens-hpc {name} {verb.target} key=value ...", "", *textwrap.wrap(verb.summary, 100)]
    lines += [
        "",
        "Example:",
        f"  {verb.example}",
        "",
        "Settings, their defaults and meaning:" if settings else "No settings.",
    ]
    for key, default, meaning in settings:
        lines.append(f"  {key} = {default}")
        lines += textwrap.wrap(meaning, 94, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)
