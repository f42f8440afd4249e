"""The rows of an injected dataset: its hosts, painted or not, in their own order."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lens_hpc.dataset.columns import ColumnReader
from lens_hpc.dataset.shards import BLOCK_ROWS, RowBlock, encode_texts
from lens_hpc.errors import UserError
from lens_hpc.layout import KEPT_COLUMNS
from lens_hpc.packing.hosts import HostDataset, HostSplit
from lens_hpc.packing.injection_recipe import InjectionRecipe
from lens_hpc.packing.painted_parts import HOST_ID, ID

INJECTION = "injection"
REAL, PAINTED = "real", "painted"
"""Kept column that tells painted rows from real ones, and its values."""
ARC = "+arc"
"""What the id of a painted row ends with, where its host is a row, too."""


class InjectedRows(NamedTuple):
    """The rows of a split to be written, M of them."""

    reader: ColumnReader
    rows: np.ndarray
    """(M,) the row of the host."""
    is_painted: np.ndarray
    """(M,) bool."""
    is_nonlens: np.ndarray
    """(M,) bool: hosts without an arc that become non-lenses."""
    ids: np.ndarray
    """(M,) strings."""


def check_names(hosts: HostDataset, recipe: InjectionRecipe) -> None:
    """Raise UserError where the names that painted rows would get are taken."""
    record = hosts.manifest.files.get(KEPT_COLUMNS)
    kept = pq.read_schema(hosts.dataset / KEPT_COLUMNS).names if record else []
    if INJECTION in kept or INJECTION in hosts.manifest.features:
        raise UserError(
            f"{hosts.dataset}: has a column {INJECTION!r} already, as an injected dataset has; "
            "take the dataset that it was made of, or pack it with another name of that column"
        )
    if recipe.others == "keep":
        for split in hosts.splits.values():
            taken = split.ids[np.char.endswith(split.ids, ARC)]
            if len(taken):
                raise UserError(
                    f"others=keep: the id {taken[0]} ends with {ARC}, as those of painted rows do; "
                    "choose others=nonlens, or pack the hosts with another id"
                )


def arrange(split: HostSplit, lens_ids: list[str], recipe: InjectionRecipe) -> InjectedRows:
    """Return the rows of a split; hosts of these ids can be lenses, and are if they were drawn.

    With others=keep, a painted row follows its host.
    """
    can_lens = np.isin(split.ids, lens_ids)
    is_painted = split.is_drawn & can_lens
    if recipe.others == "keep" or not split.is_painted:
        is_kept = np.ones(len(split.ids), dtype=bool)
    elif recipe.others == "nonlens":
        is_kept = split.is_host & ~split.is_drawn & can_lens
    else:
        is_kept = np.zeros(len(split.ids), dtype=bool)

    # Of a row that is there twice, the painted one comes second.
    times = is_kept.astype(int) + is_painted
    rows = np.repeat(np.arange(len(split.ids)), times)
    is_second = np.append(False, rows[1:] == rows[:-1])
    is_arc = is_painted[rows] & (is_second | ~is_kept[rows])

    ids = split.ids[rows]
    if recipe.others == "keep":
        ids = np.where(is_arc, np.char.add(ids, ARC), ids)
    is_nonlens = split.is_host[rows] & ~is_arc & (recipe.others == "nonlens")
    return InjectedRows(split.reader, rows, is_arc, is_nonlens, ids)


def blocks_of(injected: InjectedRows, pixels: Iterator[bytes]) -> Iterator[RowBlock]:
    """Yield the rows of a split, BLOCK_ROWS at a time; `pixels` are those of the arcs, in order."""
    ids = encode_texts(injected.ids)
    for start in range(0, len(ids), BLOCK_ROWS):
        chunk = slice(start, start + BLOCK_ROWS)
        yield _block(injected, chunk, ids[chunk], pixels)


def _block(
    injected: InjectedRows, chunk: slice, ids: np.ndarray, pixels: Iterator[bytes]
) -> RowBlock:
    reader = injected.reader
    rows = injected.rows[chunk]
    is_painted = injected.is_painted[chunk]
    reader.check_blocks(rows)

    images = reader.take("images", rows)
    for number in np.flatnonzero(is_painted):
        painted = np.frombuffer(next(pixels), images.dtype)
        images[number] = painted.reshape(images[number].shape)

    before = reader.take("labels", rows)
    labels = before.copy()
    labels[is_painted] = 1
    labels[injected.is_nonlens[chunk]] = 0

    # A soft label was given to another label.
    targets = reader.take("targets", rows)
    targets[labels != before] = np.nan
    return RowBlock(
        images=images,
        features=reader.take("features", rows),
        labels=labels,
        ids=ids,
        groups=reader.take("groups", rows),
        sources=reader.take("sources", rows),
        targets=targets,
        weights=reader.take("weights", rows),
    )


# ---- tables beside the shards ----


def kept_table(hosts: HostDataset, splits: dict[str, InjectedRows]) -> pa.Table:
    """Return the kept columns of all rows, and where each row comes from."""
    ids = np.concatenate([split.ids for split in splits.values()])
    is_painted = np.concatenate([split.is_painted for split in splits.values()])
    of_hosts = [hosts.splits[name].ids[split.rows] for name, split in splits.items()]

    values = pa.array(np.where(is_painted, PAINTED, REAL).tolist(), pa.string())
    table = pa.table({ID: pa.array(ids.tolist(), pa.string()), INJECTION: values})
    if KEPT_COLUMNS not in hosts.manifest.files:
        return table

    kept = pq.read_table(hosts.dataset / KEPT_COLUMNS).replace_schema_metadata()
    places = {name: row for row, name in enumerate(kept[ID].to_pylist())}
    carried = kept.take([places[name] for name in np.concatenate(of_hosts).tolist()])
    for name in carried.column_names:
        if name != ID:
            table = table.append_column(name, carried[name])
    return table


def truth_table(arcs: pa.Table, recipe: InjectionRecipe) -> pa.Table:
    """Return the truth of painted rows by their ids; `arcs` have those of the hosts."""
    host_ids = arcs[HOST_ID].to_pylist()
    ending = ARC if recipe.others == "keep" else ""
    return arcs.add_column(0, ID, pa.array([name + ending for name in host_ids], pa.string()))
