"""Parts of files: in which HDU of a file, or under which name in it, lies which band of a row.

A recipe says it in `hdu` and `key` by a value for all bands, a mapping from band to value, or a
template of either kind, with {band} and with {column} for the value of a row.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from lens_hpc.packing.cells import CatalogueTable
from lens_hpc.packing.templates import BAND, expand_template, template_fields

PartName = int | str | None
"""Number or name of an HDU, name of an array or column; None for the only one."""

PartNames = PartName | Mapping[str, PartName]
"""A part for all bands, or one for each."""


def part_fields(names: PartNames) -> list[str]:
    """Return the columns that parts are named by, each once."""
    values = names.values() if isinstance(names, Mapping) else [names]
    fields = [field for value in values if isinstance(value, str) for field in _fields(value)]
    return list(dict.fromkeys(fields))


def differs_by_band(names: PartNames) -> bool:
    """Say whether each band lies in a part of its own."""
    if isinstance(names, Mapping):
        return True
    return isinstance(names, str) and "{" + BAND in names


def band_parts(names: PartNames, bands: Sequence[str]) -> list[PartName]:
    """Return the part of each band, where no column decides it."""
    parts = []
    for band in bands:
        value = names[band] if isinstance(names, Mapping) else names
        if isinstance(value, str):
            value = value.replace("{" + BAND + "}", band)
        parts.append(value)
    return parts


def expand_parts(
    names: PartNames, table: CatalogueTable, bands: Sequence[str]
) -> np.ndarray | None:
    """Return the parts of each row and band, (N, bands) texts; None where no column decides."""
    if not part_fields(names):
        return None

    columns = []
    for band in bands:
        value = names[band] if isinstance(names, Mapping) else names
        columns.append(expand_template(str(value), table, band).to_numpy(dtype=object))
    return np.array(columns, dtype=object).T


def _fields(value: str) -> list[str]:
    # Names of HDUs and arrays may hold anything but braces.
    return template_fields(value) if "{" in value else []
