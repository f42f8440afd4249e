"""The objects of a part as a table: ours first, then the columns that are carried through."""

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa

from lens_hpc.predicting.score_files import OF_THE_SCORE, OF_THE_SURVEY


def object_table(
    ids: Sequence[str] | np.ndarray | pa.Array,
    positions: np.ndarray,
    tile: str | None,
    kept: pa.Table,
    held: Collection[str] = (),
) -> pa.Table:
    """Return the table of N objects: id, ra, dec, tile, and the columns of `kept`.

    `positions` is (N, 2), NaN where unknown. *Unit: degrees*. Those of `held` are no longer needed
    under their own name where ours is the same: they hold the same. Any other of the name of one
    of ours is called column_NAME.
    """
    ra, dec = positions.T
    columns = {
        "id": pa.array(ids, pa.string()),
        "ra": pa.array(ra, pa.float64(), from_pandas=True),
        "dec": pa.array(dec, pa.float64(), from_pandas=True),
        "tile": pa.array([tile] * len(positions), pa.string()),
    }
    taken = {*OF_THE_SURVEY, *OF_THE_SCORE, *kept.column_names}
    for name in kept.column_names:
        is_ours = name in (*OF_THE_SURVEY, *OF_THE_SCORE)
        if not (name in OF_THE_SURVEY and name in held):
            columns[free_name(name, taken) if is_ours else name] = kept[name]
    return pa.table(columns)


def free_name(name: str, taken: set[str]) -> str:
    """Return the name of a kept column that would have one of ours, and add it to those taken."""
    while name in taken:
        name = f"column_{name}"
    taken.add(name)
    return name
