"""Finished cutouts, against those that `pack` stores, made one by one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from lens_hpc.packing.cutouts import Cutouts
from lens_hpc.packing.finished_cutouts import finished_batches
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.packing.mosaic_images import MosaicImages
from tests.packing.mosaic_surveys import (
    SCALE_ARCSEC,
    make_header,
    make_recipe,
    noise,
    positions_in,
    write_mosaic,
)

SHAPE = (150, 180)
SIZE = 16
COUNT = 120
MEMORY_BYTES = 1 << 28
FILES = ("g.fits", "r.fits")

Spoil = Callable[[np.ndarray, np.random.Generator], None]
"""Changes the images of a tile, (bands, height, width)."""


def leave(images: np.ndarray, rng: np.random.Generator) -> None:
    pass


def with_holes(images: np.ndarray, rng: np.random.Generator) -> None:
    images[rng.random(images.shape) < 0.002] = np.nan
    images[rng.random(images.shape) < 0.0005] = np.inf
    images[0, :30, :60] = np.nan


def with_infinities_alone(images: np.ndarray, rng: np.random.Generator) -> None:
    images[rng.random(images.shape) < 0.002] = np.inf
    images[rng.random(images.shape) < 0.002] = -np.inf


def with_flat_places(images: np.ndarray, rng: np.random.Generator) -> None:
    images[1, 40:80] = 0
    images[:, 100:140] = 7


def with_equal_bands(images: np.ndarray, rng: np.random.Generator) -> None:
    images[1, :, :90] = images[0, :, :90]


def without_light(images: np.ndarray, rng: np.random.Generator) -> None:
    images[:, :75] -= 1000


def of_few_counts(images: np.ndarray, rng: np.random.Generator) -> None:
    images[:] = rng.integers(0, 2, images.shape)
    images[:, 60:] *= 100


def immense(images: np.ndarray, rng: np.random.Generator) -> None:
    images[:, :75] *= np.float32(1e36)


SPOILT: list[Spoil] = [
    leave,
    with_holes,
    with_infinities_alone,
    with_flat_places,
    with_equal_bands,
    without_light,
    of_few_counts,
    immense,
]


def write_tile(folder: Path, spoil: Spoil, seed: int) -> np.ndarray:
    """Write a tile with marked pixels in two bands; return positions on it and beyond its edges."""
    rng = np.random.default_rng(seed)
    header = make_header(SHAPE)
    images = np.stack([noise(SHAPE, seed), noise(SHAPE, seed + 1)])
    spoil(images, rng)
    for file, image in zip(FILES, images, strict=True):
        marks = (rng.random(SHAPE) < 0.0005).astype(np.uint8)
        write_mosaic(folder / file, image, header, more=[fits.ImageHDU(marks, name="FLAGS")])
    positions = positions_in(header, SHAPE, COUNT, seed, beyond=SIZE)
    positions[::40] = np.nan
    return positions


def finish(
    folder: Path, positions: np.ndarray, batch_size: int = 50, **settings: Any
) -> tuple[dict[int, np.ndarray], dict[int, float], dict[int, str]]:
    """Return the pixels and the edge fraction of each position, and why others have none."""
    pixels: dict[int, np.ndarray] = {}
    edges: dict[int, float] = {}
    reasons: dict[int, str] = {}
    recipe = make_recipe(**settings)
    for batch in finished_batches(
        recipe, folder, FILES, positions, batch_size, MEMORY_BYTES, reasons
    ):
        rows = batch.rows.tolist()
        assert rows == sorted(rows)
        assert batch.pixels.dtype == recipe.dtype
        pixels |= zip(rows, batch.pixels, strict=True)
        edges |= zip(rows, batch.edge_fraction.tolist(), strict=True)
    assert not pixels.keys() & reasons.keys()
    return pixels, edges, reasons


def pack_one_by_one(
    folder: Path, positions: np.ndarray, **settings: Any
) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """Return what `pack` stores of each position, and why it stores none."""
    recipe = make_recipe(**settings)
    paths = np.array([FILES] * len(positions), dtype=object)
    images = MosaicImages(recipe, folder, paths, positions, MEMORY_BYTES)
    cutouts = Cutouts(recipe, folder, paths, stack=images)
    cutouts.prepare(np.arange(len(positions)), lambda row: None)
    pixels: dict[int, np.ndarray] = {}
    reasons: dict[int, str] = {}
    for row in range(len(positions)):
        try:
            pixels[row] = cutouts[row]
        except BadCutoutError as error:
            reasons[row] = str(error)
    return pixels, reasons


def assert_same(one: dict[int, np.ndarray], other: dict[int, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for row, image in one.items():
        assert image.dtype == other[row].dtype
        np.testing.assert_array_equal(image, other[row])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_finished_cutouts_are_those_that_pack_stores(
    tmp_path: Path, spoil: Spoil, dtype: str
) -> None:
    seed = 10 * SPOILT.index(spoil)
    positions = write_tile(tmp_path, spoil, seed)
    settings = {
        "dtype": dtype,
        "bad_pixels": {
            "fill": "median" if seed % 20 else "zero",
            "most": 0.1,
            "constant_bands": "keep" if seed % 30 else "refuse",
        },
    }
    pixels, _, reasons = finish(tmp_path, positions, **settings)

    expected, why_not = pack_one_by_one(tmp_path, positions, **settings)
    assert_same(pixels, expected)
    assert reasons == why_not


OTHER_SETTINGS: dict[str, dict[str, Any]] = {
    "edge skip": {"mosaics": {"path": "{tile}/{band}.fits", "edge": "skip"}},
    "mask hdu": {"masks": {"hdu": "FLAGS"}, "bad_pixels": {"most": 0.01, "fill": "median"}},
    "mask word": {"bad_pixels": {"mask": 0, "most": 0.4}},
    "constant kept": {"bad_pixels": {"constant_bands": "keep"}},
}


@pytest.mark.parametrize("name", OTHER_SETTINGS)
def test_the_policy_of_the_recipe_holds(tmp_path: Path, name: str) -> None:
    positions = write_tile(tmp_path, with_flat_places, seed=3)
    settings = OTHER_SETTINGS[name]
    pixels, _, reasons = finish(tmp_path, positions, **settings)

    expected, why_not = pack_one_by_one(tmp_path, positions, **settings)
    assert 0 < len(pixels) < COUNT
    assert_same(pixels, expected)
    assert reasons == why_not


def test_bands_with_wide_pixels_are_finished_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wide_shape = (75, 90)
    header = make_header(SHAPE)
    wide_header = make_header(wide_shape, scale_arcsec=2 * SCALE_ARCSEC)
    wide = noise(wide_shape, 1)
    wide[rng.random(wide_shape) < 0.002] = np.nan
    write_mosaic(tmp_path / "g.fits", noise(SHAPE), header)
    write_mosaic(tmp_path / "r.fits", wide, wide_header)
    positions = positions_in(header, SHAPE, COUNT, beyond=SIZE / 2)

    settings = {
        "pixel_scale": {"g": SCALE_ARCSEC, "r": 2 * SCALE_ARCSEC},
        "bad_pixels": {"most": 0.1},
        "resampling": "flux",
    }
    pixels, _, reasons = finish(tmp_path, positions, **settings)
    expected, why_not = pack_one_by_one(tmp_path, positions, **settings)
    assert_same(pixels, expected)
    assert reasons == why_not


@pytest.mark.parametrize("batch_size", [1, 7, COUNT, 10 * COUNT])
def test_the_size_of_batches_changes_nothing(tmp_path: Path, batch_size: int) -> None:
    positions = write_tile(tmp_path, with_holes, seed=5)
    settings = {"bad_pixels": {"most": 0.05}}
    pixels, edges, reasons = finish(tmp_path, positions, batch_size, **settings)

    expected, same_edges, why_not = finish(tmp_path, positions, 50, **settings)
    assert_same(pixels, expected)
    assert edges == same_edges
    assert reasons == why_not


def test_the_part_beyond_an_edge_is_told_of_usable_cutouts(tmp_path: Path) -> None:
    header = make_header(SHAPE)
    write_tile(tmp_path, leave, seed=0)
    middle = positions_in(header, SHAPE, 1, beyond=-SIZE)
    positions = np.concatenate([middle, [[header["CRVAL1"] + 5, header["CRVAL2"]]], middle])
    pixels, edges, reasons = finish(tmp_path, positions)

    assert list(pixels) == [0, 2]
    assert edges == {0: 0.0, 2: 0.0}
    assert list(reasons) == [1]
    assert "no pixel lies on the mosaic" in reasons[1]


def test_good_cutouts_go_through_without_a_look_at_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = make_header(SHAPE)
    write_tile(tmp_path, leave, seed=0)
    positions = positions_in(header, SHAPE, COUNT, beyond=-SIZE)

    def refuse(*_: object) -> None:
        raise AssertionError("each cutout is looked at")

    monkeypatch.setattr(Cutouts, "read", refuse)
    pixels, _, _ = finish(tmp_path, positions)
    assert len(pixels) == COUNT


def test_a_tile_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    positions = write_tile(tmp_path, leave, seed=0)
    (tmp_path / "r.fits").write_text("no image")
    with pytest.raises(BadCutoutError, match=r"r\.fits: cannot be read as a mosaic"):
        finish(tmp_path, positions)
