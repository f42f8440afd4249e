"""What graders look at: candidates, with galaxies of known truth hidden among them.

An item's name says nothing of its kind, and nothing is shown of an item that a hidden one lacks: a
cutout without a score among others that have one would be known for what it is.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.dataset.positions import find_position_columns, positions_of
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.grading.choosing import RANDOM
from lens_hpc.grading.hidden import TRUTHS, draw_hidden

CANDIDATE = "candidate"
KINDS = (CANDIDATE, *TRUTHS)
COLUMNS = (
    "item",
    "kind",
    "dataset",
    "split",
    "row",
    "id",
    "truth",
    "score",
    "probability",
    "ra",
    "dec",
    "drawn",
    "inclusion_probability",
    "columns",
)
FACTS = ("id", "score", "probability", "ra", "dec")
NOT_TOLD_AGAIN = {"rank", "logit", "probability", "drawn", "inclusion_probability"}
"""Kept columns that an item has in another form, or that say why it is there."""


# ---- the table ----


def make_items(
    chosen: pd.DataFrame,
    hidden: Mapping[str, Dataset],
    share: float,
    shown: Sequence[str],
    seed: int,
) -> pd.DataFrame:
    """Return what is looked at, in the order in which it is shown; its columns are COLUMNS.

    `chosen` are the candidates, as `candidate_items` returns them, and `hidden` the datasets of
    what is hidden among them, of which it becomes a `share`. `shown` are the kept columns that the
    page shows. Raises UserError for a column that the candidates do not have, or that
    would tell what is hidden.
    """
    rng = np.random.default_rng(seed)
    items = chosen
    if hidden:
        items = pd.concat([chosen, draw_hidden(hidden, len(chosen), share, rng)], ignore_index=True)

    facts, kept = _read_facts(items)
    is_hidden = items["kind"] != CANDIDATE
    _check_shown(kept, is_hidden.to_numpy(), shown)
    items = pd.concat([items, facts], axis="columns").assign(columns=_as_json(kept[list(shown)]))

    items = items.iloc[_order(items["drawn"], rng)].reset_index(drop=True)
    items["item"] = [f"i{number:06d}" for number in range(len(items))]
    items["truth"] = items["truth"].astype("Int8")
    return items[list(COLUMNS)]


def _order(drawn: pd.Series, rng: np.random.Generator) -> np.ndarray:
    """Return row numbers: candidates keep their order, but for those that were drawn at random.

    These, and what is hidden, lie anywhere among them, so that a place tells nothing.
    """
    places = rng.random(len(drawn))
    keeps_order = (drawn.notna() & (drawn != RANDOM)).to_numpy()
    places[keeps_order] = np.sort(places[keeps_order])
    return np.argsort(places)


# ---- candidates ----


def candidate_items(
    split: Split, rows: np.ndarray, drawn: np.ndarray, inclusion_probability: np.ndarray
) -> pd.DataFrame:
    """Return the candidates of these rows (n,) of a split, in this order.

    Why each is there, and with which chance it came into the list, is as `choose` says.
    """
    return pd.DataFrame(
        {
            "kind": CANDIDATE,
            "dataset": str(split.dataset.resolve()),
            "split": split.name,
            "row": rows,
            "truth": None,
            "drawn": drawn,
            "inclusion_probability": inclusion_probability,
        }
    )


# ---- what is known of each ----


def _read_facts(items: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return FACTS of all items, and the other columns that are kept beside them, row by row."""
    facts, others = [], []
    for (dataset, name), group in items.groupby(["dataset", "split"], sort=False):
        split = Split(str(dataset), str(name))
        rows = group["row"].to_numpy()
        kept = split.kept_columns().iloc[rows].set_axis(group.index)

        positions = positions_of(kept)
        values = [split.ids(rows), _numbers(kept, "logit"), _numbers(kept, "probability")]
        columns = dict(zip(FACTS, [*values, *positions.T], strict=True))
        facts.append(pd.DataFrame(columns, index=group.index))

        told = {*NOT_TOLD_AGAIN, *(find_position_columns(map(str, kept)) or ())}
        others.append(kept[[column for column in kept if column not in told]])
    return pd.concat(facts), pd.concat(others).reindex(items.index)


def _numbers(table: pd.DataFrame, column: str) -> np.ndarray:
    """Return a column as float64, (N,), NaN where there is none."""
    if column not in table:
        return np.full(len(table), np.nan)
    return table[column].to_numpy(np.float64, na_value=np.nan)


# ---- what is shown ----


def is_shown(values: pd.Series, is_hidden: np.ndarray) -> bool:
    """Say whether a column may be shown: it has values, and no hidden item (N,) lacks one."""
    return bool(values.notna().any() and values[is_hidden].notna().all())


def _check_shown(kept: pd.DataFrame, is_hidden: np.ndarray, shown: Sequence[str]) -> None:
    """Raise UserError for kept columns that cannot be shown."""
    of_candidates = kept[~is_hidden].dropna(axis="columns", how="all")
    for name in shown:
        if name not in of_candidates:
            raise UserError(
                f"show: the candidates have no column {name!r}; they have: "
                f"{', '.join(map(str, of_candidates)) or 'none'}"
            )
        if not is_shown(kept[name], is_hidden):
            raise UserError(
                f"show: {name!r} would tell what is hidden, as not all of that has it; leave it out"
            )


def _as_json(table: pd.DataFrame) -> list[str]:
    """Return each row of a table as the text of a JSON object."""
    names = [str(name) for name in table]
    rows = table.itertuples(index=False, name=None)
    return [json.dumps(dict(zip(names, map(_plain, row), strict=True))) for row in rows]


def _plain(value: Any) -> str | int | float | bool | None:
    """Return a value as JSON has it; a date becomes its text, as an infinite number does."""
    if pd.isna(value):
        return None
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, float) and math.isinf(plain):
        return str(plain)
    return plain if isinstance(plain, str | int | float) else str(plain)
