"""The settings of completeness: what is refused before anything is read."""

from pathlib import Path
from typing import Any

import pytest

from lens_hpc import verbs
from lens_hpc.errors import UserError
from lens_hpc.selection.threshold import Cut
from lens_hpc.verbs.completeness import _cut

TARGETS = [Path("runs/a"), Path("hosts")]


def read(*words: str, targets: list[Path] | None = None) -> Any:
    return verbs.read_settings(
        "completeness", TARGETS if targets is None else targets, ["recipe=arcs.yaml", *words]
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["einstein_radius=[1,0.5]"], "edges must ascend: got 1, 0.5"),
        (["einstein_radius=[0,1]"], "greater than 0"),
        (["source_magnitude=[22]"], "at least 2 values"),
        (["source_magnitude=[22,22]"], "edges must ascend"),
        (["threshold=1", "fpr=0.1"], "threshold and fpr cannot both decide what is found"),
        (["inspect=100", "survey_size=100"], "inspect must be less than survey_size"),
        (["fpr=1"], "less than 1"),
        (["name=../elsewhere"], "name"),
        (["name=.hidden"], "name"),
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        read(*words)
    assert message in str(caught.value)


def test_a_run_and_hosts_are_needed() -> None:
    with pytest.raises(UserError, match="a run and hosts are needed"):
        read(targets=[Path("runs/a")])


def test_a_lens_is_found_at_a_score_a_rate_or_a_number_to_inspect() -> None:
    assert _cut(read()) == Cut(rate=0.01, survey_size=1_000_000)
    assert _cut(read("fpr=0.2")).wanted_rate == 0.2
    assert _cut(read("threshold=0")).wanted_rate is None
    inspected = _cut(read("inspect=500", "survey_size=100000"))
    assert inspected.wanted_rate == 0.005
    assert "500 of 100,000 objects" in str(inspected)
