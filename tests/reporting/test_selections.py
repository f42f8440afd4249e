"""What the report takes from RUN/completeness."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import Environment, PackageLoader, StrictUndefined

from lens_hpc import layout
from lens_hpc.dataset.shards import file_crc32
from lens_hpc.reporting.selections import read_selections

SHARE = {"trials": 40, "found": 30, "fraction": 0.75, "ci95_low": 0.6, "ci95_high": 0.875}
NONE = {"trials": 0, "found": 0, "fraction": None, "ci95_low": 0.0, "ci95_high": 1.0}
ARCS = {
    "found": SHARE,
    "lost_without_arc": SHARE,
    "lost_arc_hidden": NONE,
    "lost_control_hidden": NONE,
    "attention": {"arc": None, "control": None},
}


def write(run: Path, name: str, **record: Any) -> Path:
    folder = layout.completeness_folder(run, name)
    (folder / layout.FIGURES).mkdir(parents=True)
    (folder / layout.FIGURES / "map.svg").write_text("<svg/>")
    whole = {
        "models": [{"crc32": file_crc32(run / "best" / layout.WEIGHTS)}],
        "captions": {"map": "What is <found>."},
        "host_count": 100,
        "hosts_trained_on": 7,
        "threshold": 1.25,
        "threshold_told": "as given",
        "arc_test": ARCS,
        "selected_without_arc": True,
        "few_cells": 2,
        "fewest_trials": 20,
        "cells": [SHARE] * 6,
    }
    (folder / layout.COMPLETENESS).write_text(json.dumps(whole | record))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / layout.WEIGHTS).write_bytes(b"weights")
    return tmp_path


def read(run: Path) -> list[dict[str, Any]]:
    members: Any = [SimpleNamespace(folder=run / "best")]
    return read_selections(run, members, lambda svg: f"uri of {svg}")


def test_those_of_these_weights_are_read_with_their_figures(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert read(run) == []
    write(run, "b")
    write(run, "a")
    write(run, ".b.parts")
    write(run, "other", models=[{"crc32": "00000000"}])
    found = read(run)
    assert [one["folder"].name for one in found] == ["a", "b"]
    assert found[0]["pictures"] == {"map": "uri of <svg/>"}
    assert "other: is of other weights, and not in the report" in caplog.text


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"models": 3}', "[" * 100_000])
def test_a_damaged_one_is_left_out_with_a_warning(
    run: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    (write(run, "a") / layout.COMPLETENESS).write_text(content)
    assert read(run) == []
    assert "is damaged" in caplog.text


def test_the_section_says_what_was_found_and_warns(run: Path) -> None:
    write(run, "hosts")
    environment = Environment(
        loader=PackageLoader("lens_hpc.reporting", "."), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("selection.html.j2").render(selections=read(run))
    assert "75%, 60 \N{EN DASH} 87.5%" in page
    assert "7 of these galaxies were trained on" in page
    assert "are found without their arc, too" in page
    assert "none tried" in page
    assert "What is &lt;found&gt;." in page
    assert "2 of 6 cells have fewer than 20 trials." in page
