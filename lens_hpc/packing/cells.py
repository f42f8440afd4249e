"""The cells of a catalogue: columns with the types of their file, in which missing is not a text.

A column is an Arrow array. A null is a missing value, whatever the file has for it: an empty cell,
NaN, a mask, a null of its own. Texts are made of values, and numbers of texts, where they are asked
for; no value passes through a type that cannot hold it.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lens_hpc.errors import UserError
from lens_hpc.texts import printable

MISSING = ("nan", "null", "none", "na", "n/a", "--")
"""Words, in small letters, that stand for a missing number or label, as an empty cell does."""

MASK = ".mask"
"""What astropy adds to the name of a masked column, to name the column of its mask."""

LOSES_AS_INTEGER = r"^[+-]?0\d"
LOSES_AS_FLOAT = r"^[+-]?(0\d|\d{16,}(\.0*)?$)"
"""Texts that are no longer the same as numbers: 0012, and ids of more digits than a float has."""

HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd, with its bits spread: 2^64 over the golden ratio (Knuth, vol. 3, 6.4)."""
CELLS_TRIED = 1000
CHUNK_ROWS = 1 << 16
NAMES_SHOWN = 300
_ELEMENT = re.compile(r"(.+)\[(\d+)\]")


class CatalogueTable:
    """The columns of a catalogue that a recipe names, and the names of all there are."""

    def __init__(self, columns: Mapping[str, pa.Array], existing: Iterable[str]) -> None:
        self.columns = dict(columns)
        self.existing = tuple(existing)

    def __len__(self) -> int:
        return max((len(column) for column in self.columns.values()), default=0)

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def names_shown(self) -> str:
        """Return the names of all columns, for a message, or the first of very many."""
        dots = ", ..." if len(self.existing) > NAMES_SHOWN else ""
        return ", ".join(self.existing[:NAMES_SHOWN]) + dots

    def take(self, rows: np.ndarray) -> "CatalogueTable":
        """Return the table of some rows, by their numbers."""
        numbers = pa.array(rows)
        columns = {name: column.take(numbers) for name, column in self.columns.items()}
        return CatalogueTable(columns, self.existing)

    def slice(self, start: int, rows: int) -> "CatalogueTable":
        """Return the table of so many rows that follow each other, or of what is left of them."""
        columns = {name: column.slice(start, rows) for name, column in self.columns.items()}
        return CatalogueTable(columns, self.existing)

    def texts(self, name: str) -> pa.Array:
        """Return a column as texts, with nulls where it is missing."""
        return _as_texts(self.columns[name])

    def text(self, name: str, row: int) -> str:
        """Return one cell as a text, for a message."""
        return str(_as_texts(self.columns[name].slice(row, 1))[0].as_py())

    def words(self, name: str, literal: Collection[str] = ()) -> pa.Array:
        """Return a column as texts, with nulls also for a word of `MISSING` not in `literal`."""
        return _without_words(self.texts(name), literal)

    def coded(self, name: str) -> tuple[np.ndarray, list[str]]:
        """Return a column as numbers of its different texts, -1 where missing, and the texts."""
        encoded = self.columns[name].dictionary_encode()
        codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
        return codes, _as_texts(encoded.dictionary).to_pylist()

    def numbers(self, name: str) -> tuple[pa.Array, np.ndarray]:
        """Return a column as numbers, and the rows whose cell is a text but no number.

        The numbers are int64 or float64, null where the cell is missing or no number.
        """
        return _as_numbers(self.columns[name])

    def typed(self, name: str) -> pa.Array:
        """Return a column with its type; one of texts becomes numbers where none loses a digit."""
        column = self.columns[name]
        return with_type(column, common_type([column]))


def common_type(pieces: Sequence[pa.Array]) -> pa.DataType:
    """Return the type of a column in pieces; one of texts has numbers where none loses a digit.

    It does not depend on how the column is cut into pieces.
    """
    if not pa.types.is_large_string(pieces[0].type):
        return pieces[0].type

    types = {_parsed_type(piece) for piece in pieces}
    if None in types:
        # As one piece has words for missing values, they are looked for in all.
        types = {_parsed_type(_without_words(piece)) for piece in pieces}
    is_whole = types == {pa.int64()}
    loses = LOSES_AS_INTEGER if is_whole else LOSES_AS_FLOAT

    has_values = False
    for piece in pieces:
        numbers, wrong = _as_numbers(piece)
        has_loss = pc.any(pc.match_substring_regex(piece, loses)).as_py()
        if len(wrong) or has_loss:
            return pa.large_string()
        has_values |= not all_missing(numbers)
    if not has_values:
        return pa.large_string()
    return pa.int64() if is_whole else pa.float64()


def _parsed_type(texts: pa.Array) -> pa.DataType | None:
    numbers = _parse_all(texts)
    return None if numbers is None else numbers.type


def with_type(column: pa.Array, data_type: pa.DataType) -> pa.Array:
    """Return a column, or one piece of it, with the type that `common_type` names."""
    if column.type == data_type:
        return column
    # As a float, "nan" would take digits from whole numbers beside it.
    numbers, _ = _as_numbers(_without_words(column))
    return numbers.cast(data_type, safe=False)


def all_missing(column: pa.Array) -> bool:
    """Say whether no row of a column has a value."""
    return bool(column.null_count == len(column))


def from_frame(frame: pd.DataFrame) -> CatalogueTable:
    """Return a table of texts, in which an empty one is missing."""
    names = [str(name) for name in frame.columns]
    columns = {}
    for name in names:
        try:
            texts = pa.array(frame[name].tolist(), pa.large_string())
        except UnicodeEncodeError as error:
            raise UserError(
                f"{name} = {printable(error.object)}: is no UTF-8; if it is the name of a file, "
                "rename it"
            ) from error
        columns[name] = _without_blanks(texts)
    return CatalogueTable(columns, names)


def chosen_names(names: Collection[str], existing: Iterable[str]) -> list[str]:
    """Return the existing columns that are needed.

    They are those named, the vectors of `name[3]`, and for each of them the mask, if there is one.
    """
    wanted = set(names)
    elements = filter(None, map(_ELEMENT.fullmatch, names))
    wanted |= {element[1] for element in elements if element[0] not in existing}
    wanted |= {name + MASK for name in wanted}
    return [name for name in existing if name in wanted]


def make_table(
    arrays: dict[str, Any], names: Collection[str], existing: Iterable[str]
) -> CatalogueTable:
    """Return the table of what a reader has read: Arrow arrays by name, which are taken out.

    An element of a vector becomes a column `name[3]`, counted from 0, where `names` has that.
    """
    order = list(arrays)
    # Two at a time and no more, for each may be large.
    with ThreadPoolExecutor(2) as pool:
        normalised = pool.map(lambda name: _normalise(name, arrays.pop(name)), order)
        columns = dict(zip(order, normalised, strict=True))
    for name, column in columns.items():
        if name in names and pa.types.is_nested(column.type):
            raise UserError(f"column {name!r} holds vectors: name one element, as {name}[0]")
    for name in names:
        element = _ELEMENT.fullmatch(name)
        if element and name not in columns and element[1] in columns:
            columns[name] = _take_element(name, columns[element[1]], int(element[2]))
            mask = columns.get(element[1] + MASK)
            if mask is not None and pa.types.is_nested(mask.type):
                columns[name + MASK] = _take_element(name + MASK, mask, int(element[2]))
    return CatalogueTable(_without_masked(columns, names), existing)


def _without_masked(columns: dict[str, pa.Array], names: Collection[str]) -> dict[str, pa.Array]:
    """Return columns that are null where their mask is true, without the masks."""
    result = {}
    for name, column in columns.items():
        mask = columns.get(name + MASK)
        if (
            mask is not None
            and pa.types.is_boolean(mask.type)
            and not pa.types.is_nested(column.type)
        ):
            column = _null_where(column, mask)
        is_mask = name.endswith(MASK) and name.removesuffix(MASK) in columns
        if name in names or not is_mask:
            result[name] = column
    return result


def from_numpy(values: np.ndarray, is_missing: np.ndarray | None = None) -> pa.Array:
    """Return an Arrow array of NumPy values: (N,) or (N, k), in any byte order, perhaps masked."""
    if np.ma.isMaskedArray(values):
        masked = np.ma.getmaskarray(values)
        is_missing = masked if is_missing is None else is_missing | masked
        values = np.ma.getdata(values)

    if values.dtype.kind != "O" and not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    if is_missing is not None and not is_missing.any():
        is_missing = None

    if values.dtype.kind == "O" and values.ndim == 1:
        # Vectors of different lengths, of which elements may be masked.
        cells = [cell.tolist() if np.ma.isMaskedArray(cell) else cell for cell in values.tolist()]
        values = np.fromiter(cells, dtype=object, count=len(cells))
    if values.ndim == 1:
        contiguous = np.ascontiguousarray(values)
        return pa.array(contiguous, mask=is_missing, from_pandas=False)

    width = int(np.prod(values.shape[1:]))
    flat = from_numpy(values.reshape(-1), None if is_missing is None else is_missing.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, width)


def fixed_strings(texts: pa.Array, most: int) -> np.ndarray:
    """Return texts as an array of NumPy's strings, (N,), in which an empty one is missing.

    Those of more than `most` characters are cut to one more.
    """
    longest = pc.max(pc.utf8_length(texts)).as_py() or 1
    if longest > most:
        longest = most + 1
        texts = pc.utf8_slice_codeunits(texts, 0, longest)
    if len(texts) and pc.all(pc.string_is_ascii(texts)).as_py():
        padded = pc.ascii_rpad(pc.fill_null(texts, ""), longest, padding="\0")
        return np.frombuffer(padded.buffers()[2], np.uint8).astype(np.uint32).view(f"U{longest}")

    strings = np.zeros(len(texts), dtype=f"U{longest}")

    # Piece by piece, for a Python string takes several times the memory.
    for start in range(0, len(texts), CHUNK_ROWS):
        piece = pc.fill_null(texts.slice(start, CHUNK_ROWS), "")
        strings[start : start + CHUNK_ROWS] = piece.to_numpy(zero_copy_only=False)
    return strings


def all_differ(ids: np.ndarray) -> bool:
    """Say whether (N,) strings differ, sure where it says so: their hashes take less memory."""
    # Most catalogues are in the order of their ids, and to see that is ten times faster.
    if (ids[1:] > ids[:-1]).all():
        return True
    words: np.ndarray = ids.view(np.uint32 if ids.dtype.itemsize % 8 else np.uint64)
    words = words.reshape(len(ids), -1)
    hashes = np.zeros(len(ids), dtype=np.uint64)
    for number in range(words.shape[1]):
        hashes = (hashes ^ words[:, number]) * HASH_FACTOR
        hashes ^= hashes >> np.uint64(29)
    hashes.sort()
    return not bool((hashes[1:] == hashes[:-1]).any())


# ---- one form for all files ----


def _normalise(name: str, array: Any) -> pa.Array:
    """Return an array in one piece and of a plain type, null where it is missing."""
    # What is damaged must not be reached for: texts may be no texts, or lie outside the file.
    array.validate(full=True)
    if isinstance(array, pa.ChunkedArray):
        if pa.types.is_large_string(array.type):
            # Pieces that fit into the processor's cache are faster than the whole.
            pieces = [_without_blanks(piece) for piece in array.chunks]
            return pa.concat_arrays(pieces or [pa.array([], array.type)])
        array = _in_one_piece(array)
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _normalise(name, array.storage)
    if pa.types.is_dictionary(kind):
        return _normalise(name, array.dictionary_decode())
    if pa.types.is_null(kind):
        return array.cast(pa.large_string())
    if pa.types.is_float16(kind):
        array = array.cast(pa.float32())
        kind = array.type
    if pa.types.is_floating(kind):
        return _without_nan(array)
    if _is_text(kind):
        try:
            return _without_blanks(array.cast(pa.large_string()))
        except pa.ArrowInvalid as error:
            raise UserError(f"column {name!r}: is no text in UTF-8") from error
    return array


def _in_one_piece(array: pa.ChunkedArray) -> pa.Array:
    # Texts of more than 2 GB fit only into the large kind.
    if pa.types.is_string(array.type):
        array = array.cast(pa.large_string())
    whole = array.combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole


def _is_text(kind: pa.DataType) -> bool:
    tests = ("is_string", "is_large_string", "is_string_view", "is_binary", "is_large_binary")
    more = ("is_fixed_size_binary", "is_binary_view")
    return any(getattr(pa.types, test)(kind) for test in tests + more)


def _without_blanks(texts: pa.Array) -> pa.Array:
    """Return texts without blanks around them; an empty one is missing."""
    trimmed = pc.utf8_trim_whitespace(texts)
    lengths = pc.binary_length(trimmed)
    if pc.sum(lengths) == pc.sum(pc.binary_length(texts)):
        trimmed = texts  # the memory of the other is used again
    return _null_where(trimmed, pc.equal(lengths, 0))


def _without_nan(numbers: pa.Array) -> pa.Array:
    if not pa.types.is_floating(numbers.type):
        return numbers
    return _null_where(numbers, pc.is_nan(numbers))


def _null_where(array: pa.Array, condition: pa.Array) -> pa.Array:
    if not pc.any(condition).as_py():
        return array
    return pc.if_else(condition, pa.scalar(None, array.type), array)


def _take_element(name: str, vectors: pa.Array, number: int) -> pa.Array:
    try:
        element = pc.list_element(vectors, number)
    except (pa.ArrowException, KeyError) as error:
        raise UserError(
            f"column {name!r}: there is no such element; elements are counted from 0"
        ) from error
    return _normalise(name, element)


# ---- texts and numbers ----


def _as_texts(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_large_string(kind):
        return column
    if pa.types.is_boolean(kind):
        return pc.if_else(column, pa.scalar("True", pa.large_string()), "False")
    if pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return column.cast(pa.large_string())
    if pa.types.is_floating(kind):
        # NumPy writes the shortest text that is this very number, for float32 too.
        values = column.to_numpy(zero_copy_only=False).astype(str)
        return pa.array(values, pa.large_string(), mask=np.asarray(column.is_null()))

    # Dates, times and what else there is: rare, so slow is good enough.
    texts = [None if value is None else str(value) for value in column.to_pylist()]
    return pa.array(texts, pa.large_string())


def _without_words(texts: pa.Array, literal: Collection[str] = ()) -> pa.Array:
    taken_literally = {word.lower() for word in literal}
    words = [word for word in MISSING if word not in taken_literally]
    lowered = pc.utf8_lower(texts)
    return _null_where(texts, pc.is_in(lowered, pa.array(words, pa.large_string())))


def _as_numbers(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    kind = column.type
    none_wrong = np.empty(0, dtype=np.int64)
    if pa.types.is_boolean(kind):
        return column.cast(pa.int64()), none_wrong
    if pa.types.is_floating(kind):
        return column.cast(pa.float64()), none_wrong
    if pa.types.is_integer(kind):
        try:
            return column.cast(pa.int64()), none_wrong
        except pa.ArrowInvalid:  # above the largest int64
            return column.cast(pa.float64(), safe=False), none_wrong
    texts = _as_texts(column)
    numbers = _parse_all(texts)
    if numbers is None:
        # Looked for only now, for most columns have no such words.
        texts = _without_words(texts)
        numbers = _parse_all(texts)
    return _parse_each(texts) if numbers is None else (numbers, none_wrong)


def _parse_all(texts: pa.Array) -> pa.Array | None:
    """Return texts as numbers, or nothing where one of them is none to Arrow."""
    for kind in (pa.int64(), pa.float64()):
        try:
            # A cast that fails goes through all cells first, so a few are tried before.
            texts.slice(0, CELLS_TRIED).cast(kind)
            numbers = texts.cast(kind)
        except pa.ArrowInvalid:
            continue
        # Arrow would read 0x10 as sixteen.
        is_hexadecimal = pa.types.is_integer(kind) and _any_contains(texts, "x")
        if not is_hexadecimal:
            return _without_nan(numbers)
    return None


def _parse_each(texts: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Return texts as numbers by pandas, which knows more ways to write one, and those wrong."""
    objects = pd.Series(texts.to_numpy(zero_copy_only=False), dtype=object)
    values = pd.to_numeric(objects, errors="coerce").to_numpy(dtype=np.float64)
    is_missing = np.isnan(values)
    is_wrong = is_missing & np.asarray(texts.is_valid())
    return pa.array(values, mask=is_missing), np.flatnonzero(is_wrong)


def _any_contains(texts: pa.Array, part: str) -> bool:
    return bool(pc.any(pc.match_substring(texts, part, ignore_case=True)).as_py())
