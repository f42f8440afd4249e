"""A grading from its settings to its end: served until somebody stops it, or written as a page."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from lens_hpc import files
from lens_hpc.grading.embed import write_page
from lens_hpc.grading.grade_book import GradeBook
from lens_hpc.grading.grade_settings import GradeSettings
from lens_hpc.grading.grading_folder import begin_grading
from lens_hpc.grading.server import GradingServer
from lens_hpc.grading.shown_items import ShownItems
from lens_hpc.holding import held
from lens_hpc.logs import logger

SECONDS_BETWEEN_LOOKS = 0.1
STOPPING = (signal.SIGINT, signal.SIGTERM)


class Graded(NamedTuple):
    """A grading, and how far it is."""

    folder: Path
    items: int
    grades: dict[str, int]
    """Lines of each grader, those that were changed later, too."""
    page: Path | None
    """The page of its own that was written."""


def grade_candidates(settings: GradeSettings) -> Graded:
    """Serve the page of a grading until this process is asked to end, or write it as a file.

    Raises UserError where another process has the folder, or the port.
    """
    with held(settings.output):
        grading = begin_grading(settings)
        items = ShownItems(grading)
        book = GradeBook(settings.output, grading.record.fingerprint)
        if settings.page is None:
            _serve(GradingServer(items, book, settings.port))
        else:
            files.make_folder(settings.page.parent)
            files.remove_partials(settings.page.parent, settings.page.name)
            write_page(settings.page, items)
    return Graded(settings.output, len(items), book.counts, settings.page)


def _serve(server: GradingServer) -> None:
    """Answer requests until SIGINT or SIGTERM comes."""
    listening = threading.Thread(target=server.http.serve_forever, name="http", daemon=True)
    with _stop_noted() as stopped:
        listening.start()
        logger.info("open %s", server.address)
        logger.info(
            "from elsewhere: ssh -L %s:127.0.0.1:%s THIS-MACHINE first", *[server.http.port] * 2
        )
        try:
            while not stopped:
                time.sleep(SECONDS_BETWEEN_LOOKS)
        finally:
            server.http.shutdown()
            listening.join()
            server.book.close()


@contextmanager
def _stop_noted() -> Iterator[list[int]]:
    """Yield a list that gets the numbers of the signals that ask this process to end.

    Outside the main thread, where Python sets no handlers, it stays empty.
    """
    stopped: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    before = {number: signal.getsignal(number) for number in STOPPING}
    for number in STOPPING:
        signal.signal(number, lambda given, _: stopped.append(given))
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
