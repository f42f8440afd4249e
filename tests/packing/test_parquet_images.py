from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lens_hpc.packing import parquet_images
from lens_hpc.packing.parquet_images import ParquetImages

ROWS = 10


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (ROWS, 3, 8, 9), dtype=np.uint8)


def encoded(image: np.ndarray, kind: str) -> bytes:
    buffer = BytesIO()
    if kind == "npy":
        np.save(buffer, image)
    else:
        Image.fromarray(np.moveaxis(image, 0, -1)).save(buffer, format=kind)
    return buffer.getvalue()


def cells(images: np.ndarray, kind: str) -> Any:
    if kind == "struct":
        # As the library `datasets` of Hugging Face writes its feature Image.
        return [{"bytes": encoded(image, "png"), "path": f"{i}.png"} for i, image in enumerate(images)]  # fmt: skip  # noqa: E501
    if kind == "lists":
        return pa.array([image.astype(np.float32).tolist() for image in images])
    if kind == "tensor":
        return pa.FixedShapeTensorArray.from_numpy_ndarray(images)
    return [encoded(image, kind) for image in images]


@pytest.mark.parametrize("kind", ["png", "npy", "struct", "lists", "tensor"])
@pytest.mark.parametrize("most_cached", [0, 1 << 20])
def test_images_come_back_in_any_order(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    images: np.ndarray,
    kind: str,
    most_cached: int,
) -> None:
    monkeypatch.setattr(parquet_images, "MOST_CACHED_BYTES", most_cached)
    table = pa.table({"label": range(ROWS), "image": cells(images, kind)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    stored = ParquetImages(tmp_path / "a.parquet", None)
    assert len(stored) == ROWS
    for row in np.random.default_rng(0).permutation(ROWS):
        np.testing.assert_array_equal(stored[int(row)], images[row])


def test_the_column_is_named_where_there_are_two(tmp_path: Path, images: np.ndarray) -> None:
    table = pa.table({"a": cells(images, "png"), "b": cells(images[::-1], "png"), "n": [0] * ROWS})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="a, b; choose one with key"):
        ParquetImages(tmp_path / "a.parquet", None)
    with pytest.raises(ValueError, match="'n' is not among a, b"):
        ParquetImages(tmp_path / "a.parquet", "n")
    np.testing.assert_array_equal(ParquetImages(tmp_path / "a.parquet", "b")[0], images[-1])


def test_a_cell_without_an_image_is_told(tmp_path: Path, images: np.ndarray) -> None:
    ragged = [[[1.0, 2.0], [3.0]], None, [[1.0, None], [3.0, 4.0]]]
    pq.write_table(pa.table({"image": ragged}), tmp_path / "a.parquet")
    stored = ParquetImages(tmp_path / "a.parquet", None)
    with pytest.raises(ValueError, match="differ in length"):
        stored[0]
    with pytest.raises(ValueError, match="no image"):
        stored[1]
    assert np.isnan(stored[2]).tolist() == [[False, True], [False, False]]


def test_a_tensor_without_some_numbers_or_with_axes_in_another_order(tmp_path: Path) -> None:
    for permutation in (None, [1, 0]):
        kind = pa.fixed_shape_tensor(pa.float32(), [2, 3], permutation=permutation)
        flat = pa.array([[1, 2, 3, 4, None, 6], None], pa.list_(pa.float32(), 6))
        table = pa.table({"image": pa.ExtensionArray.from_storage(kind, flat)})
        pq.write_table(table, tmp_path / f"{permutation}.parquet")

    stored = ParquetImages(tmp_path / "None.parquet", None)
    np.testing.assert_array_equal(stored[0], [[1, 2, 3], [4, np.nan, 6]])
    with pytest.raises(ValueError, match="no image"):
        stored[1]
    with pytest.raises(ValueError, match=r"axes in the order \[1, 0\]"):
        ParquetImages(tmp_path / "[1, 0].parquet", None)[0]


def test_a_picture_is_refused_where_its_axes_are_not_those_asked_for(
    tmp_path: Path, images: np.ndarray
) -> None:
    table = pa.table({"image": [encoded(images[0], "npy"), encoded(images[1], "png")]})
    pq.write_table(table, tmp_path / "a.parquet")
    stored = ParquetImages(tmp_path / "a.parquet", None, may_be_pictures=False)
    np.testing.assert_array_equal(stored[0], images[0])
    with pytest.raises(ValueError, match="leave stack_axes out"):
        stored[1]
