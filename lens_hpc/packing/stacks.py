"""Stacks: the cutouts of all rows in one array, or in some arrays that follow each other.

A recipe names one stack with all bands, or one for each band. Each of them is a file, or several
files in a row. Nothing is read before it is asked for.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lens_hpc.dataset.verdict import first_few
from lens_hpc.errors import UserError
from lens_hpc.packing.guarded import read_in_worker
from lens_hpc.packing.image_formats import BadCutoutError, native_byte_order
from lens_hpc.packing.recipe import Recipe
from lens_hpc.packing.stack_files import STACK_ENDINGS, StackArray, open_array

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


class _Chain:
    """Arrays that follow each other, with their cutouts on the first axis."""

    def __init__(self, files: Sequence[Path], arrays: Sequence[StackArray], axes: str) -> None:
        self.files = files
        self.arrays = arrays
        self.axes = axes
        self.ends = np.cumsum([len(array) for array in arrays])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def read(self, row: int) -> np.ndarray:
        number, row_within = self._place(row)
        try:
            image = np.asarray(self.arrays[number][row_within])
        except Exception as error:  # a library raises whatever it likes on a damaged file
            raise BadCutoutError(f"{self.name(row)}: cannot be read: {error}") from error

        if self.axes == "NHWB":
            image = np.moveaxis(image, -1, 0)
        if image.ndim == 2:
            image = image[None]
        return native_byte_order(image)

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
        arrays = [_open_one(recipe, source, file, band) for file in files]
        chain = _Chain(files, arrays, recipe.stack_axes)
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
    stack = recipe.stack
    assert stack is not None
    if isinstance(stack, dict):
        return {band: _files_in(stack[band], source) for band in recipe.bands}

    files = _files_in(stack, source)
    if _is_for_each_band(recipe.key) or _is_for_each_band(recipe.hdu):
        return dict.fromkeys(recipe.bands, files)
    return {None: files}


def _is_for_each_band(setting: object) -> bool:
    return isinstance(setting, dict) or (isinstance(setting, str) and BAND_FIELD in setting)


def _files_in(named: Path | tuple[Path, ...], source: Path) -> tuple[Path, ...]:
    """Return the files that a setting names, those of a folder in the order of their paths."""
    files: list[Path] = []
    for file in (named,) if isinstance(named, Path) else named:
        if not (source / file).is_dir():
            files.append(file)
            continue

        found = sorted(path for path in (source / file).rglob("*") if path.is_file())
        inside = [path.relative_to(source) for path in found if _is_part(path)]
        if not inside:
            raise UserError(f"{source / file}: the folder holds no file of a stack")
        files += inside
    return tuple(files)


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
    array = _open_checked(source / file, "stack", key, hdu)

    # A stack of one band needs no axis for it.
    axes = recipe.stack_axes
    expected = {len(axes)} if band is None else {3, len(axes)}
    if len(array.shape) not in expected or array.dtype.kind not in "fiu":
        meaning = ", ".join(NAMES_OF_AXES[axis] for axis in axes)
        raise UserError(
            f"{source / file}: cannot be read as a stack: it has {len(array.shape)} axes "
            f"{array.shape} of {array.dtype}, and stack_axes = {axes} ({meaning})"
        )
    return array


def _for_band(setting: object, band: str | None) -> object:
    """Return the value of a setting that may be a mapping, or have {band} in it."""
    if band is None:
        return setting
    value = setting[band] if isinstance(setting, dict) else setting
    return value.replace(BAND_FIELD, band) if isinstance(value, str) else value


def _open_checked(path: Path, setting: str, key: object, hdu: object = None) -> StackArray:
    """Open an array, with a UserError that names the file and the setting."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; {setting} names one in the folder source")
    try:
        return open_array(path, key, hdu)  # type: ignore[arg-type]
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
    count = sum(lengths)

    # Each text of a file stands once in memory, however many rows it has.
    names = np.array([file.name.partition(".")[0] for file in files], dtype=object)
    columns = {
        "id": pd.Series(np.arange(count)).astype(str).astype(object),
        "file": pd.Series(np.repeat(names, lengths), dtype=object),
    }
    if recipe.stack_labels is not None:
        columns["is_lens"] = _label_texts(recipe, source, lengths)
    return pd.DataFrame(columns)


def _label_texts(recipe: Recipe, source: Path, lengths: list[int]) -> pd.Series:
    """Return the label of each row as a text, from a file or by the file of the cutout."""
    labels = recipe.stack_labels
    if not isinstance(labels, Path):
        assert labels is not None
        words = np.array([str(label) for label in labels], dtype=object)
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
