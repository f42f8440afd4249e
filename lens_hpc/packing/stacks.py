"""Stacks: the cutouts of all rows in one array, or in some arrays that follow each other.

A recipe names one stack with all bands, or one for each band. Each of them is a file, or several
files in a row. Nothing is read before it is asked for.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lens_hpc.dataset.verdict import first_few
from lens_hpc.errors import UserError
from lens_hpc.packing.fits_images import check_pixel_count
from lens_hpc.packing.guarded import read_in_worker
from lens_hpc.packing.image_formats import (
    Axes,
    BadCutoutError,
    as_image_planes,
    native_byte_order,
)
from lens_hpc.packing.recipe import Recipe
from lens_hpc.packing.stack_files import STACK_ENDINGS, StackArray, open_array, unit_of_array

BAND_FIELD = "{band}"
NAMES_OF_AXES = {"N": "number", "B": "band", "H": "height", "W": "width"}


class Stack:
    """The cutouts of the rows that are chosen, from one stack or from one a band."""

    def __init__(self, chains: "Sequence[_Chain]", rows: np.ndarray) -> None:
        self._chains = chains
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, row: int) -> list[np.ndarray]:
        """Return the cutout of a row: (planes, height, width) from each stack.

        Raises BadCutoutError when it cannot be read.
        """
        stack_row = int(self._rows[row])
        return [chain.read(stack_row) for chain in self._chains]

    def name(self, row: int, band: int = 0) -> str:
        """Return what to call a row's cutout in a message: its file and its place in it."""
        chain = self._chains[min(band, len(self._chains) - 1)]
        return chain.name(int(self._rows[row]))

    def unit(self, row: int, band: int) -> str:
        """Return the unit that a FITS file gives for the pixels of a band; empty without one."""
        chain = self._chains[min(band, len(self._chains) - 1)]
        return chain.unit(int(self._rows[row]))


class _Chain:
    """Arrays that follow each other, with their cutouts on the first axis."""

    def __init__(
        self, files: Sequence[Path], arrays: Sequence[StackArray], axes: str, units: Sequence[str]
    ) -> None:
        self.files = files
        self.arrays = arrays
        self.axes = axes
        self.units = units
        self.ends = np.cumsum([len(array) for array in arrays])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def read(self, row: int) -> np.ndarray:
        number, row_within = self._place(row)
        axes: Axes = "HWB" if self.axes == "NHWB" else "BHW"
        try:
            # A cell of Parquet may hold another kind of image than the first, or none.
            return as_image_planes(np.asarray(self.arrays[number][row_within]), axes)
        except Exception as error:  # a library raises whatever it likes on a damaged file
            raise BadCutoutError(f"{self.name(row)}: cannot be read: {error}") from error

    def unit(self, row: int) -> str:
        return self.units[self._place(row)[0]]

    def name(self, row: int) -> str:
        number, row_within = self._place(row)
        return f"{self.files[number]}[{row_within}]"

    def _place(self, row: int) -> tuple[int, int]:
        """Return the number of the array that holds a row, and its number in that array."""
        number = int(np.searchsorted(self.ends, row, side="right"))
        start = int(self.ends[number - 1]) if number else 0
        return number, row - start


# ---- opening ----


def open_stack(recipe: Recipe, source: Path, rows: np.ndarray, expected_length: int) -> Stack:
    """Open the stacks of a recipe, for the given rows of them.

    Raises UserError when a file cannot be read, when its axes are others than the recipe says, or
    when the stacks do not have one cutout for each of the `expected_length` rows.
    """
    chains = []
    for band, files in files_of_stacks(recipe, source).items():
        _refuse_doubtful_order(recipe, source, band)
        arrays = [_open_one(recipe, source, file, band) for file in files]
        hdu = _for_band(recipe.hdu, band)
        units = [unit_of_array(source / file, hdu) for file in files]  # type: ignore[arg-type]
        chain = _Chain(files, arrays, recipe.stack_axes, units)
        if len(chain) != expected_length:
            listed = first_few([str(file) for file in files])
            raise UserError(
                f"{listed}: the stack has {len(chain):,} cutouts, and {_counted_in(recipe)} "
                f"{expected_length:,} rows; they must be the same objects in the same order"
            )
        chains.append(chain)
    return Stack(chains, rows)


def files_of_stacks(recipe: Recipe, source: Path) -> dict[str | None, tuple[Path, ...]]:
    """Return the files of the stack of each band; of None where one stack has all bands.

    Bands may also have their own arrays in the same file. A folder stands for the files in it.
    """
    if isinstance(recipe.stack, dict):
        return {band: _files_of_band(recipe, source, band) for band in recipe.bands}

    files = _files_of_band(recipe, source, None)
    if _is_for_each_band(recipe.key) or _is_for_each_band(recipe.hdu):
        return dict.fromkeys(recipe.bands, files)
    return {None: files}


def _is_for_each_band(setting: object) -> bool:
    return isinstance(setting, dict) or (isinstance(setting, str) and BAND_FIELD in setting)


def _files_of_band(recipe: Recipe, source: Path, band: str | None) -> tuple[Path, ...]:
    entries = _entries_of_band(recipe, band)
    return tuple(file for entry in entries for file in _files_of_entry(entry, source))


def _entries_of_band(recipe: Recipe, band: str | None) -> tuple[Path, ...]:
    """Return the files and folders that the recipe names for a band."""
    stack = recipe.stack
    assert stack is not None
    if isinstance(stack, dict):
        assert band is not None
        stack = stack[band]
    return (stack,) if isinstance(stack, Path) else stack


def _files_of_entry(entry: Path, source: Path) -> list[Path]:
    """Return a file, or the files of a folder in the order of their paths."""
    if not (source / entry).is_dir():
        return [entry]

    found = sorted(path for path in (source / entry).rglob("*") if path.is_file())
    inside = [path.relative_to(source) for path in found if _is_part(path)]
    if not inside:
        raise UserError(f"{source / entry}: the folder holds no file of a stack")
    return inside


def _refuse_doubtful_order(recipe: Recipe, source: Path, band: str | None) -> None:
    """Raise UserError where a folder has batch_10 before batch_2, and a file tells their rows.

    A catalogue that is a folder has its files in the same order as the stack.
    """
    rows_file = recipe.stack_labels if recipe.catalogue is None else recipe.catalogue
    if not isinstance(rows_file, Path) or (source / rows_file).is_dir():
        return

    for entry in _entries_of_band(recipe, band):
        files = _files_of_entry(entry, source)
        for file, counted in zip(files, sorted(files, key=_numbers_and_texts), strict=True):
            if file != counted:
                raise UserError(
                    f"{source / entry}: {file} comes before {counted}, since the files of a folder "
                    "are read in the order of their names as texts; list them in stack in the "
                    f"order of the rows of {rows_file}, or pad their numbers with zeros"
                )


def _numbers_and_texts(path: Path) -> list[list[int | str]]:
    """Return a key by which 2 comes before 10 in a path."""
    parts = [re.split(r"(\d+)", part) for part in path.parts]
    return [[int(text) if text.isdecimal() else text for text in part] for part in parts]


def _is_part(path: Path) -> bool:
    is_hidden = path.name.startswith(("_", "."))
    return not is_hidden and path.name.lower().removesuffix(".gz").endswith(STACK_ENDINGS)


def _counted_in(recipe: Recipe) -> str:
    if recipe.catalogue is not None:
        return f"the catalogue {recipe.catalogue} has"
    if isinstance(recipe.stack_labels, Path):
        return f"{recipe.stack_labels} has"
    return "the first band has"


def _open_one(recipe: Recipe, source: Path, file: Path, band: str | None) -> StackArray:
    key = _for_band(recipe.key, band)
    hdu = _for_band(recipe.hdu, band)
    array = _open_checked(source / file, "stack", key, hdu, recipe.stack_axes)

    # A stack of one band needs no axis for it.
    axes = recipe.stack_axes
    expected = {len(axes)} if band is None else {3, len(axes)}
    if len(array.shape) not in expected or array.dtype.kind not in "fiu":
        meaning = ", ".join(NAMES_OF_AXES[axis] for axis in axes)
        raise UserError(
            f"{source / file}: cannot be read as a stack: it has {len(array.shape)} axes "
            f"{array.shape} of {array.dtype}, and stack_axes = {axes} ({meaning})"
        )
    try:
        check_pixel_count(array.shape[1:])
    except ValueError as error:
        raise _unreadable_error(source / file, "a stack", error) from error
    return array


def _for_band(setting: object, band: str | None) -> object:
    """Return the value of a setting that may be a mapping, or have {band} in it."""
    if band is None:
        return setting
    value = setting[band] if isinstance(setting, dict) else setting
    return value.replace(BAND_FIELD, band) if isinstance(value, str) else value


def _open_checked(
    path: Path, setting: str, key: object, hdu: object = None, axes: str = "NBHW"
) -> StackArray:
    """Open an array, with a UserError that names the file and the setting."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; {setting} names one in the folder source")
    try:
        return open_array(path, key, hdu, axes)  # type: ignore[arg-type]
    except UserError:
        raise
    except Exception as error:  # the libraries raise whatever they like on a damaged file
        raise _unreadable_error(path, setting, error) from error


def _unreadable_error(path: Path, setting: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    return UserError(f"{path}: cannot be read as {setting}: {reason}")


# ---- rows without a catalogue ----


def stack_table(recipe: Recipe, source: Path) -> pd.DataFrame:
    """Return the rows of a stack that has no catalogue, as texts.

    Their columns are id, the number of the row; file, the name of its file without its ending;
    and is_lens where the recipe has stack_labels.
    """
    band, files = next(iter(files_of_stacks(recipe, source).items()))
    lengths = [len(_open_one(recipe, source, file, band)) for file in files]
    for file, length in zip(files, lengths, strict=True):
        _refuse_empty_rows(source / file, length)
    count = sum(lengths)
    if len(files) > 1 and not isinstance(recipe.stack_labels, Path):
        _refuse_other_lengths(recipe, source, lengths)

    # Each text of a file stands once in memory, however many rows it has.
    names = np.array([file.name.partition(".")[0] for file in files], dtype=object)
    columns = {
        "id": pd.Series(np.arange(count)).astype(str).astype(object),
        "file": pd.Series(np.repeat(names, lengths), dtype=object),
    }
    if recipe.stack_labels is not None:
        columns["is_lens"] = _label_texts(recipe, source, band, lengths)
    return pd.DataFrame(columns)


def _refuse_empty_rows(path: Path, length: int) -> None:
    """Raise UserError for more cutouts than bytes: without a catalogue, each becomes a row."""
    size = path.stat().st_size
    if length > size:
        raise UserError(
            f"{path}: has {size:,} bytes, and says that it has {length:,} cutouts, most of which "
            "are empty; give a catalogue and where, which choose those that are not"
        )


def _refuse_other_lengths(recipe: Recipe, source: Path, expected: list[int]) -> None:
    """Raise UserError for a band whose files do not have the lengths of those of the first band."""
    for band, files in files_of_stacks(recipe, source).items():
        lengths = [len(_open_one(recipe, source, file, band)) for file in files]
        if lengths == expected:
            continue

        unlike = [f"it has {len(files)} files, not {len(expected)}"]
        if len(files) == len(expected):
            compared = zip(files, lengths, expected, strict=True)
            unlike = [
                f"{file} has {length:,} cutouts, not {wanted:,}"
                for file, length, wanted in compared
                if length != wanted
            ]
        raise UserError(
            f"{source}: the stack of {band} is cut into files otherwise than that of "
            f"{recipe.bands[0]}: {first_few(unlike)}; the file of a row says what it is, so cut "
            "all bands alike, or give a catalogue"
        )


def _label_texts(recipe: Recipe, source: Path, band: str | None, lengths: list[int]) -> pd.Series:
    """Return the label of each row as a text, from a file or by the file of the cutout."""
    labels = recipe.stack_labels
    if not isinstance(labels, Path):
        assert labels is not None
        words = np.array([str(label) for label in labels], dtype=object)

        # A folder has one label, for all of its files.
        entries = _entries_of_band(recipe, band)
        words = np.repeat(words, [len(_files_of_entry(entry, source)) for entry in entries])
        return pd.Series(np.repeat(words, lengths), dtype=object)

    path = source / labels
    array = _open_checked(path, "stack_labels", recipe.stack_labels_key)
    count = sum(lengths)
    if array.shape not in ((count,), (count, 1)):
        raise UserError(
            f"{path}: must hold one label for each of the {count:,} cutouts of the stack, "
            f"and has the shape {array.shape}"
        )

    try:
        values = read_in_worker(path, _read_whole_array, path, recipe.stack_labels_key)
        texts = pd.Series(values.reshape(count)).map(_label_text, na_action="ignore")
    except UserError:
        raise
    except Exception as error:  # the libraries raise whatever they like on a damaged file
        raise _unreadable_error(path, "stack_labels", error) from error
    return texts.fillna("").astype(object)


def _read_whole_array(path: Path, key: str | None) -> np.ndarray:
    return native_byte_order(np.array(open_array(path, key, None)[:]))


def _label_text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8").strip()
    return str(value).strip()
