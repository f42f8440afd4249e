"""The folder of a grading: what is graded, and by which settings, which never change.

items.parquet is written first, then grading.json, once. Grades are appended ever after.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from lens_hpc import files, layout
from lens_hpc._version import __version__
from lens_hpc.dataset.dataset import Dataset
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.grading.choosing import choose
from lens_hpc.grading.grade_files import first_problem
from lens_hpc.grading.grade_settings import GradeSettings
from lens_hpc.grading.hidden import check_cutouts_alike
from lens_hpc.grading.items import CANDIDATE, candidate_items, make_items

DECIDING = ("hidden_share", "choose", "limit", "run", "show", "seed")
"""Settings of which the items are a function, besides the datasets."""
FINGERPRINT_DIGITS = 16


class DatasetRecord(BaseModel):
    """A dataset that items come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: str
    """Of its manifest, which has the checksums of everything else."""


class GradingRecord(BaseModel):
    """What grading.json holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    """Of lens_hpc."""
    name: str
    """Of the candidates."""
    fingerprint: str
    """Of the items; grades belong to one grading alone."""
    bands: tuple[str, ...]
    shape: tuple[int, int]
    """Height and width of a cutout in pixels."""
    pixel_scale_arcsec: float
    datasets: dict[str, DatasetRecord]
    """By kind: candidate, known, injected, ordinary."""
    settings: dict[str, Any]
    counts: dict[str, int]
    """Items of each kind."""


class Grading(NamedTuple):
    """A grading that was begun."""

    folder: Path
    record: GradingRecord
    items: pd.DataFrame
    """As `make_items` returns them."""


# ---- reading ----


def open_grading(folder: Path) -> Grading:
    """Read a grading. Raises UserError where there is none, or where its files are damaged."""
    file = folder / layout.GRADING
    if not file.is_file():
        raise UserError(
            f"{folder}: is no grading: it has no {layout.GRADING}; make one with lens-hpc grade"
        )
    try:
        record = GradingRecord.model_validate_json(file.read_bytes())
        items = pd.read_parquet(folder / layout.ITEMS)
        fingerprint = _fingerprint(folder / layout.ITEMS, record.datasets[CANDIDATE])
    except ValidationError as error:
        raise UserError(f"{file}: is damaged ({first_problem(error)}); copy it again") from error
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: is damaged ({error}); copy it again") from error
    if fingerprint != record.fingerprint:
        raise UserError(
            f"{folder / layout.ITEMS}: is not as it was when the grading began; copy it again"
        )
    return Grading(folder, record, items)


def _fingerprint(items: Path, candidates: DatasetRecord) -> str:
    digest = hashlib.sha256(candidates.sha256.encode())
    digest.update(items.read_bytes())
    return digest.hexdigest()[:FINGERPRINT_DIGITS]


# ---- beginning ----


def begin_grading(settings: GradeSettings) -> Grading:
    """Return the grading in the output's folder, which is begun if it is not there.

    The caller holds the folder. Raises UserError where it holds a grading of other candidates or
    settings, or something else.
    """
    folder = settings.output
    candidates = _open_candidates(settings.candidates)
    hidden = {kind: Dataset(path) for kind, path in settings.hidden.items()}
    datasets = {
        kind: _describe(dataset) for kind, dataset in {CANDIDATE: candidates, **hidden}.items()
    }
    decided = settings.model_dump(mode="json", include=set(DECIDING))

    if (folder / layout.GRADING).is_file():
        grading = open_grading(folder)
        _check_same(grading, datasets, decided)
        return grading

    _check_not_foreign(folder)
    files.remove_partials(folder)
    for kind, dataset in hidden.items():
        check_cutouts_alike(kind, dataset, candidates.manifest)
    items = _make_items(settings, candidates, hidden)
    return _write(folder, candidates, datasets, decided, items)


def _open_candidates(path: Path) -> Dataset:
    """Open a dataset of candidates, or that of a whole prediction."""
    within = path / layout.CANDIDATES
    return Dataset(within if (within / layout.MANIFEST).is_file() else path)


def _make_items(
    settings: GradeSettings, candidates: Dataset, hidden: dict[str, Dataset]
) -> pd.DataFrame:
    split = candidates[layout.CANDIDATES]
    kept = split.kept_columns().reset_index(drop=True)
    count = settings.limit or len(split)
    embeddings = _embed(settings, split)
    choice = choose(kept, count, settings.choose, embeddings, settings.seed)

    chosen = candidate_items(split, *choice)
    return make_items(chosen, hidden, settings.hidden_share, settings.show, settings.seed)


def _embed(settings: GradeSettings, split: Split) -> np.ndarray | None:
    """Return where the run's model sees each candidate, (N, D), if one is needed."""
    if settings.run is None or "diverse" not in settings.rules:
        return None
    from lens_hpc.scoring.embeddings import embed_split  # imports torch

    return embed_split(settings.run, split, settings.code)


def _write(
    folder: Path,
    candidates: Dataset,
    datasets: dict[str, DatasetRecord],
    decided: dict[str, Any],
    items: pd.DataFrame,
) -> Grading:
    """Write the items, and then the record, which says that they are there."""
    files.make_folder(folder / layout.GRADES)
    with files.whole_file(folder / layout.ITEMS) as aside:
        items.to_parquet(aside, index=False)

    manifest = candidates.manifest
    record = GradingRecord(
        version=__version__,
        name=manifest.name,
        fingerprint=_fingerprint(folder / layout.ITEMS, datasets[CANDIDATE]),
        bands=manifest.bands,
        shape=(manifest.height, manifest.width),
        pixel_scale_arcsec=manifest.pixel_scale_arcsec,
        datasets=datasets,
        settings=decided,
        counts=items["kind"].value_counts().to_dict(),
    )
    files.write_text(folder / layout.GRADING, record.model_dump_json(indent=1) + "\n")
    return Grading(folder, record, items)


def _describe(dataset: Dataset) -> DatasetRecord:
    manifest = (dataset.path / layout.MANIFEST).read_bytes()
    return DatasetRecord(
        path=str(dataset.path.resolve()), sha256=hashlib.sha256(manifest).hexdigest()
    )


# ---- refusing ----


def _check_same(
    grading: Grading, datasets: dict[str, DatasetRecord], decided: dict[str, Any]
) -> None:
    """Raise UserError where a grading was begun with other datasets or settings."""
    record = grading.record
    changed = []
    for kind in sorted({*record.datasets, *datasets}):
        there, here = record.datasets.get(kind), datasets.get(kind)
        # A dataset may lie elsewhere now.
        if (there and there.sha256) != (here and here.sha256):
            changed.append(f"{kind}: {there.path if there else 'none'} there")
    for key, here in decided.items():
        there = record.settings.get(key)
        if there != here:
            changed.append(f"{key}: {json.dumps(there)} there, {json.dumps(here)} here")

    if changed:
        raise UserError(
            f"output = {grading.folder}: was begun with others ({'; '.join(changed)}), and what is "
            "graded never changes; name another folder, or give the same again"
        )


def _check_not_foreign(folder: Path) -> None:
    """Raise UserError where a folder without a record holds what no grading leaves there."""
    if not folder.exists():
        return
    begun = {layout.ITEMS, layout.GRADES, layout.GRADING}
    if not folder.is_dir() or files.names_in(folder) - begun:
        raise UserError(
            f"output = {folder}: holds something else than a grading; name another folder"
        )
