"""Shipped recipes on surveys as public code that reads the real ones has them.

Each test names the code that its layout was taken from: names of files and columns, lines of
comments, HDUs, types and sizes. test_layouts.py has the recipes whose layouts are as simple as
their names.
"""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from PIL import Image

from lens_hpc.dataset.bands import by_wavelength
from tests.packing.test_layouts import RECIPES, packed, write_fits

pytestmark = pytest.mark.slow

ROWS = 24
FIRST_ID = 100000
OWN_LAYOUT = {"table", "stack", "mosaics"}

CHALLENGE_2_COLUMNS = [
    "",
    "ID",
    "x_crit",
    "y_crit",
    "source_ID",
    "z_source",
    "z_lens",
    "mag_source",
    "ein_area",
    "n_crit",
    "r_source",
    "crit_area",
    "n_pix_source",
    "source_flux",
    "n_pix_lens",
    "lens_flux",
    "n_source_im",
    "mag_eff",
    "sb_contrast",
    "color_diff",
    "n_gal_3",
    "n_gal_5",
    "n_gal_10",
    "halo_mass",
    "star_mass",
    "mag_lens",
    "n_sources",
]
"""The header of image_catalog2.0train.csv, as a public reader of its 27 columns lists them."""


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def labels(found: dict[str, tuple[str, int, np.ndarray, np.ndarray]]) -> dict[str, int]:
    return {identifier: label for identifier, (_, label, _, _) in found.items()}


@pytest.mark.parametrize("recipe", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_a_recipe_cites_the_source_of_its_layout_or_says_that_it_has_none(recipe: str) -> None:
    text = (RECIPES / f"{recipe}.yaml").read_text()
    assert recipe in OWN_LAYOUT or "github.com/" in text or "not verified" in text


# ---- the first challenge of Bologna ----


def write_classifications(source: Path) -> dict[str, int]:
    """Write the labels of the training sets, in the columns of lensfinder-euclid/fits_to_npz.py.

    The area is of the lens, whether or not there is a source behind it.
    """
    rows = [
        {
            "ID": FIRST_ID + i,
            "is_lens": i % 2,
            "Einstein_area": 1.5e-11 + i * 1e-13,
            "numb_pix_lensed_image": 150 * (i % 2),
            "flux_lensed_image_in_sigma": 900 * (i % 2),
        }
        for i in range(ROWS)
    ]
    pd.DataFrame(rows).to_csv(source / "classifications.csv", index=False)
    return {str(row["ID"]): int(row["is_lens"]) for row in rows}


def test_bologna1_space_has_an_einstein_area_for_every_row(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """As in lensgen_pytorch/dataset.py, where masked pixels are 100 here, too."""
    source = tmp_path / "SpaceBasedTraining"
    images = 1e-12 * rng.normal(size=(ROWS, 101, 101)).astype(np.float32)
    images[3, :10] = 100
    for i, image in enumerate(images):
        write_fits(source / f"Public/Band1/imageEUC_VIS-{FIRST_ID + i}.fits", image)
    expected = write_classifications(source)

    found = packed("bologna1_space", source)

    assert labels(found) == expected
    np.testing.assert_array_equal(found["100004"][2][0], images[4])
    assert np.abs(found["100003"][2]).max() < 1e-10


def test_bologna1_ground_in_the_folders_of_its_archive(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """As in CMUDeepLens/notebooks/BLF_GroundBased.ipynb."""
    source = tmp_path / "GroundBasedTraining"
    images = 1e-12 * rng.normal(size=(ROWS, 4, 101, 101)).astype(np.float32)
    for i, planes in enumerate(images):
        for number, (band, plane) in enumerate(zip("RIGU", planes, strict=True), start=1):
            name = f"imageSDSS_{band}-{FIRST_ID + i}.fits"
            write_fits(source / "Public" / f"Band{number}" / name, plane)
    expected = write_classifications(source)

    found = packed("bologna1_ground", source)

    assert labels(found) == expected
    for i, planes in enumerate(images):
        np.testing.assert_array_equal(found[str(FIRST_ID + i)][2], planes)

    # What a picture in colours shows first is the shortest wavelength.
    assert ["RIGU"[number] for number in by_wavelength("RIGU")] == ["U", "G", "R", "I"]


@pytest.mark.parametrize(
    ("recipe", "catalogue", "folder", "bands"),
    [
        ("bologna1_space_test", "euclidB_image_catalog.csv", "Data_EuclidBig", ["EUC_VIS"]),
        (
            "bologna1_ground_test",
            "kidsB_image_catalog.csv",
            "Data_KiDS_Big",
            ["SDSS_R", "SDSS_I", "SDSS_G", "SDSS_U"],
        ),
    ],
)
def test_bologna1_test_sets_lie_in_folders_that_no_column_tells(
    tmp_path: Path,
    rng: np.random.Generator,
    recipe: str,
    catalogue: str,
    folder: str,
    bands: list[str],
) -> None:
    """As in LEXACTUM/Space.py and Ground.py: comments, a plain header, no_source."""
    source = tmp_path / "Challenge1.0"
    images = 1e-12 * rng.normal(size=(ROWS, len(bands), 101, 101)).astype(np.float32)
    for i, planes in enumerate(images):
        public = source / f"{folder}.{i % 3}" / "Public"
        for number, (band, plane) in enumerate(zip(bands, planes, strict=True), start=1):
            write_fits(public / f"Band{number}" / f"image{band}-{FIRST_ID + i}.fits", plane)

    # More rows than images.
    lines = ["# a comment, with a comma", "# another", "ID,z_lens,no_source"]
    lines += [f"{FIRST_ID + i},0.5,{i % 2}" for i in range(ROWS + 4)]
    (source / catalogue).write_text("\n".join(lines) + "\n")

    found = packed(recipe, source)

    assert labels(found) == {str(FIRST_ID + i): 1 - i % 2 for i in range(ROWS)}
    assert {split for split, *_ in found.values()} == {"test"}
    for i, planes in enumerate(images):
        np.testing.assert_array_equal(found[str(FIRST_ID + i)][2], planes)


# ---- the second challenge of Bologna ----


def challenge_2_rows() -> list[dict[str, object]]:
    """Return rows of every kind: lenses, faint ones, no source, and a grey zone."""
    kinds: list[dict[str, object]] = [
        {"n_source_im": 2, "mag_eff": 2.5, "n_pix_source": 250, "n_sources": 1},
        {"n_source_im": 0, "mag_eff": "", "n_pix_source": "", "n_sources": 0},
        {"n_source_im": 1, "mag_eff": 1.3, "n_pix_source": 80, "n_sources": 1},
        {"n_source_im": 1, "mag_eff": 3.0, "n_pix_source": 12, "n_sources": 1},
    ]
    empty = dict.fromkeys(CHALLENGE_2_COLUMNS, 0)
    return [
        empty | {"": i, "ID": 200001 + i, "ein_area": 1.2e-11} | kinds[i % 4] for i in range(ROWS)
    ]


def write_challenge_2(
    source: Path, rows: list[dict[str, object]], without_image: int, rng: np.random.Generator
) -> None:
    """Write the survey as gravitational_lens_ml/src/build_dataset.py reads it."""
    with_image = {row["ID"] for row in rows} - {without_image}
    for identifier in with_image:
        for band, size in (("VIS", 200), ("J", 66), ("Y", 66), ("H", 66)):
            image = 1e-11 * rng.normal(1, 0.1, size=(size, size))
            path = source / f"Public/EUC_{band}/imageEUC_{band}-{identifier}.fits"
            write_fits(path, image)

    with (source / "image_catalog2.0train.csv").open("w", newline="") as file:
        file.writelines(f"# line {number} tells, with a comma, a column\n" for number in range(28))
        writer = csv.DictWriter(file, CHALLENGE_2_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def test_bologna2_with_its_real_header_names_and_sizes(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """As in gravitational_lens_ml, which drops rows without images and IDs that stand twice."""
    source = tmp_path / "datapack2.0train"
    rows = challenge_2_rows()
    twice = rows[5]["ID"]
    without_image = 200008
    write_challenge_2(source, [*rows, rows[5]], without_image, rng)

    found = packed("bologna2", source, "on_bad=skip")

    left_out = {twice, without_image}
    expected = {
        str(row["ID"]): int(number % 4 == 0)
        for number, row in enumerate(rows)
        if row["ID"] not in left_out
    }
    assert labels(found) == expected
    rejected = pd.read_csv(tmp_path / "packed" / "rejected.csv")
    assert set(rejected["id"]) == left_out

    # Three fine pixels lie in each coarse one, within a border of one.
    image = found["200001"][2]
    assert image.shape == (4, 200, 200)
    public = source / "Public"
    vis = fits.getdata(public / "EUC_VIS/imageEUC_VIS-200001.fits")
    coarse = fits.getdata(public / "EUC_H/imageEUC_H-200001.fits")
    np.testing.assert_array_equal(image[0], vis)
    inner = image[3, 1:-1, 1:-1].reshape(66, 3, 66, 3)
    np.testing.assert_allclose(inner.sum(axis=(1, 3)), coarse, rtol=1e-5)


def test_bologna2_can_leave_out_what_is_neither(tmp_path: Path, rng: np.random.Generator) -> None:
    """As in gravitational_lens_ml/src/create_labeled_catalog.py, by the line in the recipe."""
    source = tmp_path / "datapack2.0train"
    rows = challenge_2_rows()
    write_challenge_2(source, rows, 0, rng)
    text = (RECIPES / "bologna2.yaml").read_text()
    where = text.partition('where="')[2].partition('"')[0]

    found = packed("bologna2", source, f"where={where}", "size=[198, 198]")

    expected = {str(row["ID"]): 1 - i % 4 for i, row in enumerate(rows) if i % 4 < 2}
    assert labels(found) == expected
    assert found["200001"][2].shape == (4, 198, 198)
    assert found["200001"][2].min() > 0


# ---- others ----


def write_cell(path: Path, image: np.ndarray) -> None:
    """Write an image as the LSST-like challenge has it: a cell of the only row of a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = fits.Column("meta", "24A", array=["a text of 24 characters."])
    pixels = fits.Column("image", "1681D", dim="(41,41)", array=image[None])
    table = fits.BinTableHDU.from_columns([text, pixels])
    assert len(table.header) == 13
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)


def test_lsst_2025_in_its_four_folders(tmp_path: Path, rng: np.random.Generator) -> None:
    """As in 2508_slchallenge/pynb/show_fits.ipynb: names, neighbours, HDUs, and a damaged file."""
    source = tmp_path / "slchallenge"
    images = {}
    for folder, name in (
        ("slsim_lenses", "D1_L"),
        ("slsim_nonlenses", "D1_N"),
        ("hsc_lenses", "D2_L"),
        ("hsc_nonlenses", "D2_N"),
    ):
        for index in range(8):
            identifier = f"{name}_{index * 4321:08d}"
            images[identifier] = rng.normal(size=(5, 41, 41))
            for band, plane in zip("grizy", images[identifier], strict=True):
                write_cell(source / folder / folder / f"{identifier}_{band}.fits", plane)
        (source / folder / "_manifest.txt").write_text("a list\n")
        fits.PrimaryHDU().writeto(source / folder / "parameters.fits")
    damaged = source / "slsim_lenses/slsim_lenses/D1_L_00004321_y.fits"
    damaged.write_bytes(damaged.read_bytes()[:6000])
    del images["D1_L_00004321"]

    found = packed("lsst_2025", source, "on_bad=skip")

    assert labels(found) == {name: int(name[3] == "L") for name in images}
    for name, (split, _, image, _) in found.items():
        assert split in ({"1": ("train", "val"), "2": ("test",)}[name[1]])
        np.testing.assert_array_equal(image, images[name].astype(np.float32))


def test_lsst_2025_with_splits_over_both_sets(tmp_path: Path, rng: np.random.Generator) -> None:
    """As 2508_slchallenge/src/data_loader.py draws them, by the line in the recipe."""
    source = tmp_path / "slchallenge"
    for name in ("D1_L", "D1_N", "D2_L", "D2_N"):
        for index in range(10):
            for band in "grizy":
                write_cell(source / f"{name}_{index:08d}_{band}.fits", rng.normal(size=(41, 41)))
    overrides = ["columns.split=null", "splits={train: 0.7, val: 0.15, test: 0.15}", "validation=0"]

    found = packed("lsst_2025", source, *overrides)

    in_training = {name[:2] for name, (split, *_) in found.items() if split == "train"}
    assert in_training == {"D1", "D2"}


def test_cfhtls_spacewarps(tmp_path: Path, rng: np.random.Generator) -> None:
    """As in the survey itself: 64 x 64 pictures, and columns that are empty in some rows."""
    source = tmp_path / "cfhtls_spacewarps"
    (source / "images").mkdir(parents=True)
    pictures = rng.integers(0, 256, (ROWS, 64, 64, 3), dtype=np.uint8)
    lines = [
        "id,group,origin,is_lens,redshift,i_mag,crowd_probability,mag_inst,color_bi,r50_arcsec,"
        "ra,dec"
    ]
    for i, picture in enumerate(pictures):
        identifier = f"SW{i:04d}c"
        Image.fromarray(picture).save(source / "images" / f"{identifier}.png")
        rest = "candidate,1,0.47,19.884,0.5973" if i % 2 else "dudfield,0,,,"
        position = "30.3412,-9.25415" if i % 2 else ","
        lines.append(f"{identifier},ASW{i // 2:05d}he,{rest},-4.9518967,0.7150886,2.6,{position}")
    (source / "catalogue.csv").write_text("\n".join(lines) + "\n")

    found = packed("cfhtls_spacewarps", source)

    for i, picture in enumerate(pictures):
        _, label, image, features = found[f"SW{i:04d}c"]
        assert label == i % 2
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, np.moveaxis(picture, -1, 0))
        np.testing.assert_allclose(features, [-4.9518967, 0.7150886, 2.6], rtol=1e-6)
