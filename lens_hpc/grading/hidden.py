"""Galaxies of known truth, hidden among the candidates: what graders make of them measures them."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.dataset.manifest import Manifest
from lens_hpc.errors import UserError
from lens_hpc.grading.alike import cutout_differences
from lens_hpc.logs import logger

TRUTHS = {"known": 1, "injected": 1, "ordinary": 0}
"""Each kind of hidden galaxy, and the label that its rows have."""


def check_cutouts_alike(kind: str, hidden: Dataset, candidates: Manifest) -> None:
    """Raise UserError for a dataset whose cutouts a grader could tell from the candidates'."""
    differing = cutout_differences(hidden.manifest.kind, candidates.kind)
    # Pictures of 8 bits are shown as they are, all others are stretched.
    here, there = hidden.manifest.dtype, candidates.dtype
    if (here == "uint8") != (there == "uint8"):
        differing.append(f"pixels in {here}, not {there}")
    if differing:
        raise UserError(
            f"{kind} = {hidden.path}: its cutouts would be told from the candidates: "
            f"{'; '.join(differing)}. Pack them as the candidates' survey is"
        )


def draw_hidden(
    datasets: Mapping[str, Dataset], candidates: int, share: float, rng: np.random.Generator
) -> pd.DataFrame:
    """Draw hidden galaxies, so that they are a `share` of all that is shown.

    `datasets` are those of TRUTHS, from which about as many are drawn each. The columns of the
    result are kind, dataset, split, row and truth. Raises UserError for a dataset without any that
    has its label.
    """
    total = round(share / (1 - share) * candidates)
    each, left_over = divmod(total, len(datasets))

    tables = []
    for number, (kind, dataset) in enumerate(datasets.items()):
        # The first take what cannot be divided.
        wanted = max(each + (number < left_over), 1)
        rows = _labelled_rows(kind, dataset)
        if len(rows) < wanted:
            logger.warning(
                "%s = %s: has %d rows of label %d, where hidden_share asks for %d; all are hidden",
                kind,
                dataset.path,
                len(rows),
                TRUTHS[kind],
                wanted,
            )
        drawn = rng.permutation(len(rows))[:wanted]
        tables.append(rows.iloc[drawn])
    return pd.concat(tables, ignore_index=True)


def _labelled_rows(kind: str, dataset: Dataset) -> pd.DataFrame:
    """Return all rows of a dataset that have the label of this kind."""
    truth = TRUTHS[kind]
    tables = []
    for name, split in dataset.items():
        labels = split.take("labels", np.arange(len(split)))
        numbers = np.flatnonzero(labels == truth)
        tables.append(pd.DataFrame({"split": name, "row": numbers}))

    rows = pd.concat(tables, ignore_index=True)
    if rows.empty:
        raise UserError(
            f"{kind} = {dataset.path}: has no row of label {truth}; name a dataset that has"
        )
    return rows.assign(kind=kind, dataset=str(dataset.path.resolve()), truth=truth)
