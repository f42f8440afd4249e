"""The way from a run and hosts to RUN/completeness/NAME, and on from wherever it was killed."""

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from lens_hpc import verbs
from lens_hpc.dataset.dataset import Dataset
from lens_hpc.dataset.verdict import manifest_crc32
from lens_hpc.errors import UserError
from lens_hpc.packing.injection_recipe import load_recipe
from lens_hpc.packing.painting import Painter
from lens_hpc.reporting.figures import Draw
from lens_hpc.selection import painted, selection_function, written
from lens_hpc.selection.hosts import HostReader, find_hosts
from lens_hpc.selection.painted import PaintedTrials, Painting, paint_trials
from lens_hpc.selection.written import Completeness
from tests.conftest import pack_survey
from tests.packing.injections import pack_sources, sources_of
from tests.selection.conftest import Case

GRID = ("einstein_radius=[0.6,1,1.6]", "source_magnitude=[22,24,26]", "trials=4", "batch_size=7")
FILES = ("trials.parquet", "hosts.parquet", "cells.parquet", "completeness.json")


def measure(case: Case, *settings: str) -> Completeness:
    words = [f"recipe={case.recipe}", "processes=1", *GRID, *settings]
    targets = [case.run, case.hosts]
    module = verbs.module("completeness")
    result = module.run(verbs.read_settings("completeness", targets, words))
    print(module.text(result))
    return result


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Paint in this process, and draw nothing, to save seconds; return how many were painted."""
    counts: list[int] = []

    def parts(
        self: Painting, numbers: Sequence[np.ndarray], processes: int
    ) -> Iterator[PaintedTrials]:
        reader = HostReader(self.hosts)
        painter = Painter(self.recipe, reader.dataset.manifest)
        for part in numbers:
            counts.append(len(part))
            yield paint_trials(painter, reader, self.trials, part)

    def save_figures(folder: Path, drawings: dict[str, Draw]) -> dict[str, str]:
        folder.mkdir()
        return dict.fromkeys(drawings, "<svg/>")

    monkeypatch.setattr(painted.Painting, "parts", parts)
    monkeypatch.setattr(written, "save_figures", save_figures)
    return counts


def contents(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


def test_each_cell_has_its_trials_with_what_was_painted_and_scored(
    case: Case, here: list[int]
) -> None:
    result = measure(case, "fpr=0.3", "name=first", "occlusions=12")
    trials = result.trials
    assert len(trials) == 16 == sum(here)
    assert trials["trial"].tolist() == list(range(16))
    assert trials.groupby(["radius_cell", "magnitude_cell"]).size().tolist() == [4] * 4
    assert np.isfinite(trials[["logit", "logit_host", "arc_snr", "radius_over_seeing"]]).all(
        axis=None
    )
    # Of every second trial the arc is hidden, where there is one to be seen.
    is_tried = trials["logit_hidden"].notna()
    assert not is_tried[1::2].any()
    assert is_tried[::2].sum() >= 4

    # A painted host has another score than without its arc, and the arc's own radius.
    assert (trials["logit"] != trials["logit_host"]).all()
    is_wide = trials["radius_cell"] == 1
    assert ((trials["einstein_radius"] > 1) == is_wide).all()
    labels = Dataset(case.hosts).to_pandas().set_index("id")["label"]
    assert (labels[trials["host_id"]] == 0).all()


def test_the_threshold_is_that_of_the_rate_among_the_hosts(case: Case, here: list[int]) -> None:
    result = measure(case, "fpr=0.3", "name=rate")
    hosts = pd.read_parquet(result.folder / "hosts.parquet")
    threshold = result.record["threshold"]
    share = (hosts["logit"] >= threshold).mean()
    assert share <= 0.3 < share + 1.01 / len(hosts)
    assert (result.trials["found"] == (result.trials["logit"] >= threshold)).all()

    cells = result.cells
    assert cells["trials"].tolist() == [4] * 4
    assert cells["found"].sum() == result.trials["found"].sum()
    assert cells["few_trials"].all()
    assert "4 of 4 cells have fewer than 20 trials" in result.text


def test_sources_may_be_real_galaxies_with_the_magnitudes_of_the_grid(
    case: Case, here: list[int], tmp_path: Path
) -> None:
    recipe = yaml.safe_load(case.recipe.read_text())
    recipe["sources"] = sources_of(pack_sources(tmp_path)) | {"band": "r"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    result = measure(case._replace(recipe=tmp_path / "recipe.yaml"), "fpr=0.3", "name=galaxies")

    trials = result.trials
    np.testing.assert_allclose(trials["source_mag_r"], trials["source_magnitude"])
    assert trials["source_id"].str.startswith("source").all()
    assert trials["source_id"].nunique() > 2
    assert result.record["galaxies_crc32"] == manifest_crc32(tmp_path / "galaxies")


@pytest.mark.slow
def test_another_threshold_or_third_axis_needs_no_new_trials(case: Case, here: list[int]) -> None:
    first = measure(case, "fpr=0.3", "name=again")
    painted_before = sum(here)
    second = measure(case, "threshold=-1e9", "by=radius", "name=again")
    assert sum(here) == painted_before
    assert second.trials["found"].all()
    pd.testing.assert_series_equal(first.trials["logit"], second.trials["logit"])

    by = second.cells["by"].dropna()
    assert by.str.startswith("radius ").all()
    assert second.cells["trials"][by.index].sum() == 16
    # More trials are others.
    measure(case, "trials=5", "fpr=0.3", "name=again")
    assert sum(here) == painted_before + 20


def test_a_host_that_cannot_be_painted_is_named(
    case: Case, here: list[int], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(case.recipe.read_text().replace("z: {fixed: 2}", "z: {fixed: 0.1}"))
    hosts = find_hosts(case.hosts, load_recipe(recipe)).ids
    with pytest.raises(UserError, match=f"^({'|'.join(hosts)}): none of 1000 draws"):
        measure(case._replace(recipe=recipe), "threshold=0", "name=none")


def test_columns_of_hosts_may_have_names_of_the_trials(
    case: Case, here: list[int], tmp_path: Path
) -> None:
    survey = tmp_path / "survey"
    shutil.copytree(case.hosts.with_name("survey"), survey)
    table = pd.read_csv(survey / "catalogue.csv")
    table = table.assign(seeing_worst=0.01, logit=100 + np.arange(len(table)) // 2 % 2)
    table.to_csv(survey / "catalogue.csv", index=False)
    hosts = pack_survey(survey, tmp_path / "hosts", "columns.keep=[seeing_worst,logit]")

    of_hosts = case._replace(hosts=hosts)
    first, again = (measure(of_hosts, "threshold=0", "by=seeing_worst") for _ in range(2))
    over_seeing = first.trials["einstein_radius"] / 0.5
    for result in (first, again):
        np.testing.assert_allclose(result.trials["radius_over_seeing"], over_seeing)

    # A column of the hosts is meant, and not what the trials have under that name.
    by_logit = measure(of_hosts, "threshold=0", "by=logit")
    assert set(by_logit.cells["by"].dropna()) == {"logit 100", "logit 101"}
    pd.testing.assert_series_equal(by_logit.trials["logit"], first.trials["logit"])


@pytest.mark.slow
def test_it_goes_on_where_it_was_killed(
    case: Case, here: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measure(case, "fpr=0.3", "name=whole")

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(selection_function, "write_selection", interrupt)
        measure(case, "fpr=0.3", "name=killed")
    folder = whole.folder.with_name("killed")
    assert not folder.exists()
    parts = sorted(folder.with_name(".killed.parts").glob("trials-*.parquet"))
    assert len(parts) == 3
    parts[1].unlink()
    parts[2].write_bytes(b"damaged")

    there = len(here)
    measure(case, "fpr=0.3", "name=killed")
    assert here[there:] == [7, 2]
    assert contents(folder) == contents(whole.folder)
    assert not folder.with_name(".killed.parts").exists()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_the_number_of_processes_changes_no_byte(case: Case) -> None:
    one = measure(case, "fpr=0.3", "name=one")
    two = measure(case, "fpr=0.3", "name=two", "processes=2")
    assert contents(one.folder) == contents(two.folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["fpr=0.3", "by=colour_of_the_sky"], "by = colour_of_the_sky: is no column of the hosts"),
        (["fpr=0.3", "by=seeing_y"], "by = seeing_y: is no column of the hosts"),
        (["fpr=0.001"], "needs 10,000; give more hosts, a higher rate"),
        (["inspect=10", "survey_size=1000000"], "needs 1,000,000"),
        (["splits=[tset]"], "has no split 'tset'"),
        (["recipe=nowhere.yaml"], "nowhere.yaml"),
        (["weights=final"], "holds no model.safetensors"),
    ],
)
def test_what_does_not_suit_is_told_before_anything_is_painted(
    case: Case, here: list[int], settings: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        measure(case, *settings)
    assert not here


@pytest.mark.slow
def test_hosts_that_were_trained_on_are_told(
    case: Case, here: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    everywhere = measure(case, "fpr=0.3", "name=seen")
    assert everywhere.record["hosts_trained_on"] == 56
    assert "56 of 80 hosts are among those that the run was trained on" in caplog.text
    elsewhere = measure(case, "threshold=0", "splits=[test]", "name=unseen")
    assert elsewhere.record["hosts_trained_on"] == 0
