"""Whoever gives us a recipe or a survey cannot make us read elsewhere, fill the memory, or wait."""

import re
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from lens_hpc import settings
from lens_hpc.errors import UserError
from lens_hpc.packing import guarded, parquet_images, stack_files, tables
from lens_hpc.packing.plan import make_plan
from lens_hpc.packing.recipe import PackSettings
from tests.packing.hostile_surveys import FILES, MIB, RECIPES, Make, write_recipe

MOST_CPU_SECONDS = 12.0
"""Of six files that take up to 2 each."""
MOST_BYTES = 450 * MIB

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is bounded by the machine's memory, and by long times, is bounded lower here."""
    monkeypatch.setattr(guarded, "LEAST_BYTES", 256 * MIB)
    monkeypatch.setattr(stack_files, "half_of_memory", lambda: 256 * MIB)
    monkeypatch.setattr(parquet_images, "MOST_GROUP_BYTES", 64 * MIB)
    monkeypatch.setattr(tables, "LEAST_SECONDS", 2)
    monkeypatch.setattr(settings, "SECONDS_OF_PIPE", 0.1)


def usage() -> tuple[float, int]:
    """Return the processor's time of this process and its children, s, and their size, bytes."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(kind) for kind in kinds]
    return sum(u.ru_utime + u.ru_stime for u in used), max(u.ru_maxrss for u in used) * 1024


def refusal(recipe: Path, *overrides: str) -> tuple[str, float, int]:
    """Return why a survey is refused, empty where it is not, and what that took."""
    seconds, size = usage()
    places = [f"source={recipe.parent}", f"output={recipe.parent.parent / 'packed'}"]
    message = ""
    try:
        make_plan(settings.load(PackSettings, recipe, [*places, *overrides]))
    except UserError as error:
        message = str(error)
    seconds_after, size_after = usage()
    return message, seconds_after - seconds, size_after - size


def in_process(call: Callable[..., object], *arguments: object) -> object:
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        return pool.submit(call, *arguments).result(timeout=300)


def check(folder: Path, make: Make, expected: str) -> None:
    source = folder / "survey"
    source.mkdir()
    recipe = write_recipe(source, make(source))

    message, seconds, size = in_process(refusal, recipe)  # type: ignore[misc]

    assert len(message) < 8000, message[:1000]
    if expected:
        assert re.search(expected, message, re.DOTALL), message
    assert seconds < MOST_CPU_SECONDS
    assert size < MOST_BYTES


@pytest.mark.parametrize("name", RECIPES)
def test_a_hostile_recipe_is_refused(tmp_path: Path, name: str) -> None:
    check(tmp_path, *RECIPES[name])


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_refused(tmp_path: Path, name: str) -> None:
    check(tmp_path, *FILES[name])
