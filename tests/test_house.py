"""The house: no import circles, and code that is measured to be readable."""

import sys
from pathlib import Path

import grimp
import networkx

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from readability import measure  # noqa: E402


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("lens_hpc")
    imports = networkx.DiGraph(
        (importer, imported)
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
    )
    assert imports.number_of_edges() > 100
    circles = [part for part in networkx.strongly_connected_components(imports) if len(part) > 1]
    assert circles == []


def test_the_code_is_as_readable_as_we_want_it() -> None:
    assert measure(ROOT / "lens_hpc").broken_limits() == []


def test_every_room_says_what_lives_there() -> None:
    for room in (ROOT / "lens_hpc").glob("*/__init__.py"):
        text = room.read_text(encoding="utf-8")
        assert text.startswith('"""'), room
