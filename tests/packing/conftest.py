from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let catalogues be read in this process, which a test of many small ones would fork for.

    Only a damaged file needs a process of its own.
    """

    def read_here(_: Path, read: Callable[..., Any], *arguments: object, **__: object) -> Any:
        return read(*arguments)

    monkeypatch.setattr("lens_hpc.packing.tables.read_in_worker", read_here)
