"""No damage to a file or a recipe ends in a traceback or a dead program.

Each attempt damages one file of a small survey and packs it: it packs, or a UserError says which
file, row or key is at fault. LENS_HPC_LONG=1 makes a thousand attempts of each kind. The numbers
are others each time: LENS_HPC_SEED, which a failure tells, makes the same ones again.
"""

import multiprocessing
import os
import re
import resource
import shutil
import signal
import time
import traceback
import warnings
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from lens_hpc.errors import UserError
from lens_hpc.packing import guarded, watching
from lens_hpc.workers import make_pool
from tests.conftest import pack_survey
from tests.packing.damaged_surveys import KINDS, write_damaged_survey, write_survey_of

ATTEMPTS = 1000 if "LENS_HPC_LONG" in os.environ else 8
SEED = int(os.environ.get("LENS_HPC_SEED", time.time_ns() % 10**9))
MOST_SECONDS = 120
LONGEST_READ_SECONDS = 5
MOST_MEMORY = 8 << 30
MOST_SHOWN = 5

NAMES_A_PLACE = re.compile(
    r"\brow \d|\bobj\d|catalogue\b|stack\.\w|train\.tar|labels\.h5|recipe\.yaml|more\.csv|"
    r"\bcolumns\.\w|(?m:^\s*[a-z_.]+(:| = | must))"
)
"""A file of the survey, a row, or a key of the recipe."""


@pytest.mark.slow
def test_a_survey_that_is_sound_is_packed(tmp_path: Path) -> None:
    for kind in KINDS:
        write_survey_of(kind, tmp_path / kind)
        pack_survey(tmp_path / kind, tmp_path / f"{kind} packed", "processes=1")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, kind: str) -> None:
    print(f"{kind}: LENS_HPC_SEED={SEED}")

    # In a process of its own: whatever dies there is found, and tells the seed that it was at.
    at = multiprocessing.get_context("fork").Value("q", SEED)
    with make_pool(1, "fork", _start, at) as pool:
        try:
            wrong = pool.submit(_find_wrong, kind, tmp_path).result()
        except BrokenProcessPool:
            pytest.fail(f"LENS_HPC_SEED={at.value}: {kind}: the program died, or took too long")
    assert not wrong, "\n\n".join(wrong[:MOST_SHOWN]) + f"\n\n{len(wrong)} of {ATTEMPTS}"


# ---- within that process ----

_at: Any = None


def _start(at: Any) -> None:
    global _at
    _at = at
    guarded.LEAST_SECONDS = watching.LONGEST_READ_SECONDS = LONGEST_READ_SECONDS
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MOST_MEMORY, resource.RLIM_INFINITY))


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _find_wrong(kind: str, folder: Path) -> list[str]:
    """Make all attempts of a kind; return what must not have happened."""
    warnings.simplefilter("ignore")
    wrong = []
    for seed in range(SEED, SEED + ATTEMPTS):
        _at.value = seed
        signal.alarm(MOST_SECONDS)
        complaint = _complaint_of(kind, folder / str(seed), seed)
        signal.alarm(0)
        if complaint:
            wrong.append(f"LENS_HPC_SEED={seed}: {kind}: {complaint}")
        shutil.rmtree(folder / str(seed))
    return wrong


def _complaint_of(kind: str, folder: Path, seed: int) -> str | None:
    """Return what is wrong with how a damaged survey is packed, if anything is."""
    write_damaged_survey(kind, folder / "survey", seed)
    dataset = folder / "dataset"
    try:
        pack_survey(folder / "survey", dataset, "processes=1")
    except UserError as error:
        message = str(error).replace(str(folder / "survey") + "/", "")
        if not NAMES_A_PLACE.search(message):
            return f"names no file, row or key: {error}"
        return "the dataset is there after an error" if dataset.exists() else None
    except BaseException:
        return traceback.format_exc()
    return None
