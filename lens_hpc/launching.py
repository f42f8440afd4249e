"""`lens-hpc VERB ... processes=N`: Accelerate's launcher starts N processes on this machine.

The settings are read before, so that a mistake is told at once, and once. The launcher works in a
thread of its own and hears no signal: the main thread passes signals on, and what becomes of them
the processes decide. The command ends when they do, with their exit status and their words alone.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lens_hpc import process, verbs, workers
from lens_hpc.children import PARENT, signals_noted
from lens_hpc.errors import UserError
from lens_hpc.resources import usable_cpus

PROGRAM = "lens_hpc"
SECONDS_BETWEEN_LOOKS = 0.1
MOST_A_CORE = 4
"""Processes without GPUs: more only wait for each other, and hundreds would stop the machine."""


# ---- the word ----


def split_processes(verb: str, overrides: Sequence[str]) -> tuple[int, list[str]]:
    """Return how many processes a verb shall have, 1 unless said otherwise, and its settings.

    `processes=N` is none of them where it starts processes that do the verb's work together: the
    result is the same for any number. Raises UserError for what is no number of processes, and
    where a launcher has started this one already.
    """
    given = [word for word in overrides if word.startswith("processes=")]
    if not given or not verbs.header(verb).processes:
        return 1, list(overrides)

    number = given[-1].partition("=")[2]
    if not number.isdecimal() or int(number) == 0:
        raise UserError(f"processes = {number}: must be a whole number of at least 1")
    if int(number) > 1 and "RANK" in os.environ:
        raise UserError(f"processes = {number}: a launcher has started this one; leave it out")
    return int(number), [word for word in overrides if word not in given]


def refuse_processes(verb: str, settings: Collection[str]) -> None:
    """Raise UserError where Python asks for several processes: it has started one already."""
    if "processes" in settings and verbs.header(verb).processes:
        raise UserError(
            f"lens_hpc.{verb}: processes is for the command line, as in `lens-hpc {verb} ... "
            "processes=2`. In Python, let a launcher start a script that calls "
            f"lens_hpc.{verb}: accelerate launch --multi_gpu --num_processes 2 SCRIPT"
        )


# ---- the launch ----


def launch(words: Sequence[str], processes: int) -> int:
    """Run `lens-hpc WORDS` in several processes on this machine, and return their exit status.

    They have a GPU each, or share the cores where there is none. Raises UserError where there are
    fewer GPUs than processes, or far fewer cores.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser

    with process.environment_unchanged(), _quiet_logging():
        _choose_devices(processes)
        os.environ[PARENT] = str(os.getpid())
        # A folder here that is named like a package is none of ours, as for the command itself.
        if str(Path.cwd()) not in sys.path:
            os.environ["PYTHONSAFEPATH"] = "1"
        arguments = launch_command_parser().parse_args(_launcher_words(words, processes))
        return _wait_for(launch_command, arguments)


def _launcher_words(words: Sequence[str], processes: int) -> list[str]:
    """Return what would stand after `accelerate launch`."""
    threads = os.environ.get("OMP_NUM_THREADS") or max(1, usable_cpus() // processes)
    options = {
        "num_machines": 1,
        "num_processes": processes,
        "main_process_port": 0,  # a free one
        "num_cpu_threads_per_process": threads,
        # Said here, as the user may have a default config file of Accelerate.
        "gpu_ids": "all",
        "mixed_precision": "no",
        "dynamo_backend": "no",
    }
    told = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return ["--multi_gpu", *told, "-m", PROGRAM, *words]


def _choose_devices(processes: int) -> None:
    """Let the processes use the GPUs, or the CPU where the machine has none.

    Whether a GPU can be used that the driver shows, each process finds out by itself.
    """
    import torch

    from lens_hpc.training import devices

    gpus = torch.accelerator.device_count() if devices.has_gpu() else 0
    if 0 < gpus < processes:
        raise UserError(
            f"processes = {processes}: each needs a GPU of its own, and PyTorch sees {gpus} here; "
            f"give processes={gpus}, or set ACCELERATE_USE_CPU=true to work on the CPU"
        )
    most = MOST_A_CORE * usable_cpus()
    if gpus == 0 and processes > most:
        raise UserError(
            f"processes = {processes}: too many for the cores here, of which {usable_cpus()} can "
            f"be used; give at most processes={most}"
        )
    if gpus == 0 and not devices.has_device_files():
        os.environ["ACCELERATE_USE_CPU"] = "true"


@contextmanager
def _quiet_logging() -> Iterator[None]:
    """Hide what the launcher logs of processes that failed: they have said it themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _wait_for(launcher: Callable[[Any], None], arguments: Any) -> int:
    """Call Accelerate's launcher, pass signals on meanwhile, and return the processes' status."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    with ThreadPoolExecutor(1) as thread, signals_noted() as signals:
        launched = thread.submit(launcher, arguments)
        passed: set[int] = set()
        while not launched.done():
            wait([launched], SECONDS_BETWEEN_LOOKS)
            passed |= _pass_on(signals)

    try:
        launched.result()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        return _status(rank, failure.exitcode, passed)
    return 0


def _pass_on(signals: list[int]) -> set[int]:
    """Send noted signals to the processes, once there are any, and return what was sent."""
    import psutil

    ranks = psutil.Process().children() if signals else []
    sent: set[int] = set()
    while ranks and signals:
        number = signals.pop(0)
        sent.add(number)
        for rank in ranks:
            with suppress(psutil.NoSuchProcess):
                rank.send_signal(number)
    return sent


def _status(rank: int, status: int, passed: set[int]) -> int:
    """Return the status of the process that ended first; say so where it could not do it itself."""
    if status >= 0:
        return status

    number = -status
    if number not in passed:
        name = signal.Signals(number).name
        reason = ", as the system does where memory runs out" if name == "SIGKILL" else ""
        print(f"lens-hpc: rank {rank} was ended by {name}{reason}", file=sys.stderr, flush=True)
    return 128 + number


# ---- in a process that was started ----


def end_with_launcher() -> None:
    """Let this process end when the one that started it here is killed."""
    launcher = os.environ.pop(PARENT, "")
    if launcher:
        workers.end_with(int(launcher))
