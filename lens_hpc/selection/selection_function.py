"""Measure which lenses a run would have found: painted on real galaxies, and scored.

1. The models are loaded, and the hosts are compared with the cutouts of their training.
2. Each host is scored as it is, without an arc; these scores tell the threshold of a rate.
3. Lenses are painted over a grid, in worker processes, and scored, part by part. A part that is
   there is kept, so that a killed command goes on; so are all trials where only the threshold or
   the third axis is another one.
4. RUN/completeness/NAME appears, whole.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lens_hpc import files, layout
from lens_hpc._version import __version__
from lens_hpc.dataset.dataset import Dataset
from lens_hpc.dataset.mapping import cut_shards_named
from lens_hpc.dataset.verdict import manifest_crc32
from lens_hpc.errors import UserError
from lens_hpc.holding import held
from lens_hpc.logs import logger
from lens_hpc.packing.injection_recipe import InjectionRecipe, load_recipe
from lens_hpc.packing.painting import Painter
from lens_hpc.packing.psf_stamps import stamp_checksums
from lens_hpc.packing.source_galaxies import check_galaxies, galaxies_crc32
from lens_hpc.predicting.models import Models, check_suits, load_models
from lens_hpc.predicting.score_files import fingerprint_of
from lens_hpc.process import torch_unchanged
from lens_hpc.scoring.finder import default_device
from lens_hpc.scoring.out_of_memory import out_of_memory_named, smaller_batch_size
from lens_hpc.scoring.provenance import find_rows_seen
from lens_hpc.selection.grid import TrialGrid, Trials, draw_trials
from lens_hpc.selection.hosts import HostReader, Hosts, find_hosts
from lens_hpc.selection.painted import Painting
from lens_hpc.selection.part_files import PartFiles, read_scores
from lens_hpc.selection.scored import TrialScorer, batches
from lens_hpc.selection.threshold import Cut
from lens_hpc.selection.written import Completeness, ScoredTrials, write_selection

TRUTH = ("z_lens", "z_source", "sigma_v", "q", "magnification", "source_radius")
OF_BANDS = ("seeing", "arc_snr", "arc_to_host", "arc_mag")
"""What a third axis may be besides the columns of the hosts: of the arc, and of it in a band."""


@dataclass(frozen=True)
class Asked:
    """What is to be measured."""

    runs: tuple[Path, ...]
    """Several are one ensemble; the first keeps the result."""
    hosts: Path
    """A packed dataset."""
    recipe: Path
    grid: TrialGrid
    trials: int
    """Of each cell."""
    cut: Cut
    by: str | None
    """Third axis: a column of the truth or of the hosts."""
    splits: tuple[str, ...] | None
    name: str | None
    weights: str
    seed: int
    occlusions: int
    """Trials whose arc is hidden, about so many."""
    allow: tuple[str, ...]
    batch_size: int
    processes: int
    code: tuple[str, ...]


@dataclass(frozen=True)
class _Task:
    """A measurement that can begin."""

    asked: Asked
    folder: Path
    models: Models
    recipe: InjectionRecipe
    hosts: Hosts
    trials: Trials
    record: dict[str, Any]
    """Of what every score is a function."""

    @property
    def fingerprint(self) -> str:
        text = json.dumps(self.record, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def parts_folder(self) -> Path:
        return self.folder.with_name(f".{self.folder.name}.parts")


# ---- the way through ----


def measure_completeness(asked: Asked) -> Completeness:
    """Measure a selection function, or go on with it, and write it.

    Raises UserError for runs, hosts and recipes that are not there or do not suit each other.
    """
    with torch_unchanged(), cut_shards_named():
        task = _prepare(asked)
        with held(task.folder), out_of_memory_named(smaller_batch_size(asked.batch_size)):
            found = _read_finished(task)
            hosts, trials = found if found is not None else _score_all(task)
            trials = _with_derived(task.hosts.bands, trials)
            measured = ScoredTrials(
                folder=task.folder,
                grid=asked.grid,
                cut=asked.cut,
                hosts=hosts,
                trials=trials,
                axis=_third_axis(task, trials),
                fingerprint=task.fingerprint,
                record=_describe(task),
            )
            completeness = write_selection(measured)
            shutil.rmtree(task.parts_folder, ignore_errors=True)
    return completeness


def _prepare(asked: Asked) -> _Task:
    """Look at all that the user can have wrong."""
    models = load_models(asked.runs, asked.weights, asked.code, None)
    changes = {} if asked.splits is None else {"splits": asked.splits}
    recipe = load_recipe(asked.recipe, changes)
    dataset = Dataset(asked.hosts)
    check_suits(models, dataset.manifest.kind, asked.allow)
    Painter(recipe, dataset.manifest)  # for its errors
    check_galaxies(recipe, dataset.manifest)

    hosts = find_hosts(asked.hosts, recipe)
    asked.cut.check(asked.hosts, len(hosts))
    trials = draw_trials(asked.grid, len(hosts), asked.trials, asked.seed)
    record = {
        "models": [model["crc32"] for model in models.describe()],
        "hosts_crc32": manifest_crc32(asked.hosts),
        "recipe": recipe.model_dump(mode="json"),
        "stamps": stamp_checksums(recipe.psf, dataset.manifest.bands, hosts.painted_by),
        "galaxies_crc32": galaxies_crc32(recipe.sources),
        "einstein_radius": asked.grid.einstein_radius,
        "source_magnitude": asked.grid.source_magnitude,
        "trials": asked.trials,
        "seed": asked.seed,
        "occlusions": asked.occlusions,
        "batch_size": asked.batch_size,
        "version": __version__,
    }
    task = _Task(asked, _folder(asked), models, recipe, hosts, trials, record)
    _check_by(task)
    return task


def _folder(asked: Asked) -> Path:
    name = asked.name or asked.hosts.resolve().name
    if asked.name is None and asked.weights != layout.BEST:
        name += f"-{Path(asked.weights).name}"
    return files.final_name(layout.completeness_folder(asked.runs[0], name))


# ---- scores ----


def _read_finished(task: _Task) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Return the scores of hosts and trials where they are there already; None where not."""
    paths = [task.folder / name for name in (layout.HOST_SCORES, layout.TRIALS)]
    if any(fingerprint_of(path) != task.fingerprint for path in paths):
        return None
    logger.info("%s: all trials are there already", task.folder)
    hosts, trials = map(read_scores, paths)
    return hosts, trials


def _score_all(task: _Task) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score hosts and trials, part by part; a part that is there is kept."""
    asked = task.asked
    count = len(task.trials.host)
    scorer = TrialScorer(
        members=task.models.members,
        score=task.models.scorer(default_device(), "none"),
        reader=HostReader(task.hosts),
        trials=task.trials,
        seed=asked.seed,
        occlude_every=-(-count // asked.occlusions) if asked.occlusions else 0,
    )

    def score_hosts(parts: Sequence[np.ndarray]) -> Iterator[pd.DataFrame]:
        return map(scorer.hosts, parts)

    def score_trials(parts: Sequence[np.ndarray]) -> Iterator[pd.DataFrame]:
        painting = Painting(task.recipe, task.hosts, task.trials)
        painted = painting.parts(parts, asked.processes) if parts else iter(())
        return map(scorer.painted, parts, painted)

    parts = PartFiles(task.parts_folder, task.fingerprint)
    hosts = parts.complete("hosts", batches(len(task.hosts), asked.batch_size), score_hosts)
    trials = parts.complete("trials", batches(count, asked.batch_size), score_trials)
    return hosts, trials


def _with_derived(bands: Sequence[str], trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials with what follows of their truth."""
    seeing = trials[[f"seeing_{band}" for band in bands]].min(axis=1)
    derived = {
        "arc_snr": trials[[f"arc_snr_{band}" for band in bands]].max(axis=1),
        "radius_over_seeing": trials["einstein_radius"] / seeing,
    }
    return trials.assign(**derived)


def _third_axis(task: _Task, trials: pd.DataFrame) -> pd.Series | None:
    """Return the values of the third axis: of the truth, or else of the hosts."""
    by = task.asked.by
    if by is None:
        return None
    if by in _truth_columns(task.hosts):
        return trials[by]
    # Whatever else the trials have under this name, such as a score, is not what is meant.
    return task.hosts.columns()[by].iloc[trials["host"]].reset_index(drop=True)


def _truth_columns(hosts: Hosts) -> list[str]:
    return [*TRUTH, *(f"{name}_{band}" for name in OF_BANDS for band in hosts.bands)]


# ---- what is told ----


def _check_by(task: _Task) -> None:
    """Raise UserError where the third axis is no column."""
    by = task.asked.by
    truth = _truth_columns(task.hosts)
    if by is None or by in truth:
        return
    own = [str(name) for name in task.hosts.columns()]
    if by not in own:
        raise UserError(
            f"by = {by}: is no column of the hosts ({', '.join(own) or 'none'}) nor of what is "
            f"painted: {', '.join(truth)}"
        )


def _describe(task: _Task) -> dict[str, Any]:
    """Return what completeness.json says of models, hosts and recipe."""
    asked = task.asked
    return task.record | {
        "models": task.models.describe(),
        "hosts": str(asked.hosts),
        "host_count": len(task.hosts),
        "hosts_trained_on": _count_trained_on(task),
    }


def _count_trained_on(task: _Task) -> int:
    """Return how many hosts the models were trained on, with a warning where there are some."""
    hosts = task.hosts
    dataset = Dataset(hosts.dataset)
    count = 0
    for name in np.unique(hosts.splits):
        seen = find_rows_seen(dataset[name], [member.folder for member in task.models.members])
        if seen is not None:
            count += int(seen.rows[hosts.rows[hosts.splits == name]].sum())
    if count:
        logger.warning(
            "%d of %d hosts are among those that the run was trained on: it knows them as no "
            "lenses, and may find fewer lenses there than elsewhere; splits=[test] leaves them out",
            count,
            len(hosts),
        )
    return count
