"""Some lines of Python in two real processes that have met."""

import socket
import tempfile
from pathlib import Path

from tests.integration.forked import forks

# Ranks are forked when everything is imported, and so meet well within the time-out.
TWO_RANKS = """
import logging, os, signal, sys, time, traceback
from pathlib import Path

from lens_hpc import config, progress
from lens_hpc.dataset import staging
from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.errors import UserError
from lens_hpc.training import long_wait, training_data
from lens_hpc.training.accelerator import accelerator_session
from lens_hpc.training.long_wait import waited_for

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
progress.SECONDS_BETWEEN_LINES = 1.0
TIMEOUT_SECONDS = 3.0
train = {"timeout_minutes": TIMEOUT_SECONDS / 60, "trackers": ()}
settings = config.Train.model_validate({"run": "r", "data": {"dataset": "d"}, "train": train})

def work(rank, accelerator):
WORK

for rank in (0, 1):
    if os.fork() == 0:
        os.environ.update(RANK=str(rank), LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
        status = 0
        try:
            with accelerator_session(settings) as accelerator:
                work(rank, accelerator)
        except BaseException:
            traceback.print_exc(file=sys.stdout)
            status = 1
        sys.stdout.flush()
        os._exit(status)
for _ in (0, 1):
    print("status", os.waitstatus_to_exitcode(os.wait()[1]))
"""


def two_ranks(work: str, *arguments: object) -> str:
    """Run some lines in two ranks, and return what they printed and ended with."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    own = {"ACCELERATE_USE_CPU": "true"}
    with tempfile.TemporaryDirectory() as folder:
        script, output, errors = (Path(folder, name) for name in ("ranks.py", "output", "errors"))
        script.write_text(TWO_RANKS.replace("WORK", work))
        ranks = forks().start(
            *map(str, arguments),
            program=(str(script),),
            output=output,
            errors=errors,
            environment=world | own,
        )
        assert ranks.wait(120) == 0, output.read_text() + errors.read_text()
        return output.read_text()
