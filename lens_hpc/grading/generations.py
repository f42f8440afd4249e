"""The next generation of a dataset: graded candidates join the rows that are trained on.

All splits of a dataset become those of a new one, and the candidates lie among the rows of its
split train. All other splits are frozen: what belongs to them is never trained on. A candidate that
is trained on already keeps the label that it has there.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.dataset.kept_columns import read_kept_columns, read_truth_columns
from lens_hpc.dataset.split import Split
from lens_hpc.dataset.training_rows import RowHashes, find_seen_rows, hash_rows
from lens_hpc.dataset.verdict import manifest_crc32
from lens_hpc.errors import UserError
from lens_hpc.grading.alike import cutout_differences
from lens_hpc.grading.joined_rows import (
    add_rows,
    copied_blocks,
    join_kept_columns,
    joined_blocks,
    table_by_id,
)
from lens_hpc.logs import logger
from lens_hpc.packing.derived import SplitRows, write_dataset
from lens_hpc.packing.describing import DatasetFacts

TRAIN = "train"
GENERATIONS = "generations"
"""What the manifest's recipe calls them, the first one first."""
SAME_OBJECT_ARCSEC = 2.0
SHOWN = 10


def make_generation(
    dataset: Path,
    graded: pd.DataFrame,
    candidates: Split,
    output: Path,
    frozen: Literal["refuse", "leave_out"] = "refuse",
) -> dict[str, Any]:
    """Write the dataset of the next generation to the new folder `output`, and describe it.

    `graded` has a row an object: id, other_ids of candidates that are the same object, label (-1
    without a grade), target and weight. `frozen` says what is done about those of which a candidate
    belongs to another split than train, by id, pixels or position: raise UserError, or leave them
    out. Raises UserError for candidates of another kind than the dataset, and where none is left.
    Images are streamed.
    """
    parent = Dataset(dataset)
    _check_kind(parent, candidates)
    is_graded = graded["label"].to_numpy() >= 0
    labelled = graded[is_graded].assign(row=_rows_of(graded["id"][is_graded], candidates))

    found = _find_objects(parent, candidates, labelled)
    is_frozen = (found != "") & (found != TRAIN)
    if is_frozen.any() and frozen == "refuse":
        _refuse(parent, labelled["id"][is_frozen], found[is_frozen])
    added = labelled[found == ""]
    if added.empty:
        raise UserError(
            f"{parent.path}: none of {len(graded):,} candidates can be added; they have no grade, "
            "or are in it already"
        )

    record = _describe(parent, candidates, added)
    record["left_out"] = {
        "without_a_grade": int((~is_graded).sum()),
        "in_train_already": int((found == TRAIN).sum()),
        "in_a_frozen_split": int(is_frozen.sum()),
    }
    _write(parent, candidates, added, output, record)
    return record


# ---- checks ----


def _check_kind(parent: Dataset, candidates: Split) -> None:
    """Raise UserError unless the candidates are such cutouts as the dataset has."""
    if TRAIN not in parent:
        raise UserError(f"{parent.path}: has no split {TRAIN}, which candidates could join")

    here, there = candidates.manifest, parent.manifest
    differing = cutout_differences(here.kind, there.kind)
    if here.dtype != there.dtype:
        differing.append(f"pixels in {here.dtype}, not {there.dtype}")
    lacking = [name for name in there.features if name not in here.features]
    if lacking:
        differing.append(f"no features {', '.join(lacking)}")
    if differing:
        raise UserError(
            f"{candidates.dataset}: cannot join {parent.path}, for it has {'; '.join(differing)}; "
            "predict by a recipe like that of the dataset"
        )


def _rows_of(ids: pd.Series, candidates: Split) -> np.ndarray:
    """Return the rows of candidates by their ids, (n,)."""
    rows = {name: row for row, name in enumerate(candidates.ids().tolist())}
    strangers = [name for name in ids if name not in rows]
    if strangers:
        raise UserError(
            f"{candidates.dataset}: has no candidate {strangers[0]!r}, which was graded; name the "
            "candidates that the grades are of"
        )
    return np.array([rows[name] for name in ids], dtype=np.int64)


def _find_objects(parent: Dataset, candidates: Split, labelled: pd.DataFrame) -> np.ndarray:
    """Return the split of the dataset that each object belongs to, (n,), or nothing."""
    others = labelled["other_ids"].explode().dropna()
    rows = np.concatenate([labelled["row"].to_numpy(), _rows_of(others, candidates)])
    numbers = np.concatenate([np.arange(len(labelled)), labelled.index.get_indexer(others.index)])

    found = np.full(len(labelled), "", dtype=object)
    for number, name in zip(numbers, _find_in(parent, candidates, rows), strict=True):
        # What is frozen counts before what is trained on.
        if name and found[number] in ("", TRAIN):
            found[number] = name
    return found


def _find_in(parent: Dataset, candidates: Split, rows: np.ndarray) -> np.ndarray:
    """Return the split of the dataset that each of some candidates belongs to, (n,), or nothing.

    They are known by id, by the hash of their pixels, or by a position within 2 arcsec.
    """
    own = RowHashes(*(column[rows] for column in hash_rows(candidates)))
    has_positions = np.isfinite(own.positions).all(axis=1).any()
    found = np.full(len(rows), "", dtype=object)
    for name, split in parent.items():
        of_split = hash_rows(split)
        has_positions &= np.isfinite(of_split.positions).all(axis=1).any()
        seen = find_seen_rows(own, of_split, SAME_OBJECT_ARCSEC)
        is_in = seen.by_id | seen.by_pixels | seen.by_position
        # What is frozen counts before what is trained on.
        found[is_in & ((found == "") | (name != TRAIN))] = name
    if not has_positions:
        logger.warning(
            "%s: without positions of all splits and candidates, objects are known again by their "
            "ids and pixels alone; keep ra and dec (columns.keep)",
            parent.path,
        )
    return found


def _refuse(parent: Dataset, ids: pd.Series, splits: np.ndarray) -> None:
    """Raise UserError for candidates that belong to frozen splits."""
    shown = [f"{name} ({split})" for name, split in zip(ids, splits, strict=True)][:SHOWN]
    more = ", ..." if len(ids) > SHOWN else ""
    raise UserError(
        f"{len(ids):,} graded candidates belong to frozen splits of {parent.path}, by id, pixels "
        f"or position: {', '.join(shown)}{more}. Were they trained on, these splits would prove "
        "nothing any more; go on without them by frozen=leave_out"
    )


# ---- writing ----


def _describe(parent: Dataset, candidates: Split, added: pd.DataFrame) -> dict[str, Any]:
    """Return what the manifest says of a generation, as JSON would read it back."""
    earlier = parent.manifest.recipe.get(GENERATIONS, [])
    prediction = candidates.manifest.recipe.get("candidates", {})
    return {
        "number": len(earlier) + 1,
        "parent": {"name": parent.manifest.name, "manifest_crc32": manifest_crc32(parent.path)},
        "candidates": {
            "name": candidates.manifest.name,
            "manifest_crc32": manifest_crc32(candidates.dataset),
            "models": prediction.get("models", []),
        },
        "lenses": int((added["label"] == 1).sum()),
        "non_lenses": int((added["label"] == 0).sum()),
    }


def _write(
    parent: Dataset, candidates: Split, added: pd.DataFrame, output: Path, record: dict[str, Any]
) -> None:
    manifest = parent.manifest
    earlier = manifest.recipe.get(GENERATIONS, [])
    carried = {field.name: getattr(manifest, field.name) for field in fields(DatasetFacts)}
    carried["recipe"] = manifest.recipe | {GENERATIONS: [*earlier, record]}

    joining = add_rows(candidates, added, manifest.features, manifest.grouped)
    splits = {}
    for name, split in parent.items():
        if name == TRAIN:
            blocks = joined_blocks(split, joining, seed=manifest.seed)
            splits[name] = SplitRows(len(split) + len(added), blocks)
        else:
            splits[name] = SplitRows(len(split), copied_blocks(split))

    kept = read_kept_columns(parent.path, manifest)
    beside = candidates.kept_columns().loc[added["id"]]
    truth = read_truth_columns(parent.path, manifest)
    write_dataset(
        output,
        DatasetFacts(**carried),
        splits,
        kept=join_kept_columns(kept, beside),
        truth=table_by_id(truth) if len(truth.columns) else None,
    )
