"""Each shipped recipe on files written in its very layout, and one more in YAML alone."""

import gzip
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from astropy.table import Table
from PIL import Image

from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.dataset.split import Split
from tests.conftest import call

pytestmark = pytest.mark.slow

RECIPES = Path(__file__).parents[2] / "configs" / "pack"
ROWS = 24


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def packed(
    recipe: str, source: Path, *overrides: str
) -> dict[str, tuple[str, int, np.ndarray, np.ndarray]]:
    """Pack with a shipped recipe; {id: (split, label, image, features)}."""
    file = RECIPES / f"{recipe}.yaml" if "/" not in recipe else Path(recipe)
    output = source.parent / "packed"
    call("pack", file, f"source={source}", f"output={output}", *overrides)
    found = {}
    for name in read_manifest(output).splits:
        split = Split(output, name)
        rows = np.arange(len(split))
        columns = (split.take(column, rows) for column in ("labels", "images", "features"))
        for identifier, label, image, features in zip(split.ids(), *columns, strict=True):
            found[str(identifier)] = (name, int(label), image, features)
    return found


def write_fits(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(image.astype(">f4")).writeto(path)


@pytest.mark.parametrize("folder", ["files", "Public/Band1"])
def test_bologna1_space(tmp_path: Path, rng: np.random.Generator, folder: str) -> None:
    source = tmp_path / "s"
    images = {100000 + i: 1e-12 * rng.normal(size=(101, 101)) for i in range(ROWS)}
    for identifier, image in images.items():
        write_fits(source / folder / f"imageEUC_VIS-{identifier}.fits", image)
    lens = [i % 2 for i in range(ROWS)]
    columns = {
        "ID": list(images),
        "is_lens": lens,
        "Einstein_area": lens,
        "numb_pix_lensed_image": lens,
    }
    pd.DataFrame(columns | {"flux_lensed_image_in_sigma": lens}).to_csv(
        source / "classifications.csv", index=False
    )
    found = packed("bologna1_space", source)
    assert len(found) == ROWS
    for i, (identifier, image) in enumerate(images.items()):
        _, label, stored, features = found[str(identifier)]
        assert label == i % 2
        np.testing.assert_array_equal(stored, image[None].astype(np.float32))
        assert features.shape == (0,)


def test_bologna1_ground(tmp_path: Path, rng: np.random.Generator) -> None:
    source = tmp_path / "s"
    images = 1e-12 * rng.normal(size=(ROWS, 4, 101, 101)).astype(np.float32)
    for i in range(ROWS):
        for number, (band, plane) in enumerate(zip("RIGU", images[i], strict=True), start=1):
            plane = plane.copy()
            if i == 3:
                plane[:10] = 100
            write_fits(source / f"Band{number}" / f"imageSDSS_{band}-{i}.fits", plane)
    pd.DataFrame({"ID": range(ROWS), "is_lens": [i % 2 for i in range(ROWS)]}).to_csv(
        source / "classifications.csv", index=False
    )
    found = packed("bologna1_ground", source)
    np.testing.assert_array_equal(found["5"][2], images[5])
    masked = found["3"][2]
    np.testing.assert_array_equal(masked[:, 10:], images[3][:, 10:])
    for plane, stored in zip(images[3], masked, strict=True):
        np.testing.assert_allclose(stored[:10], np.median(plane[10:]), rtol=1e-6)


def test_bologna2(tmp_path: Path, rng: np.random.Generator) -> None:
    source = tmp_path / "s"
    for i in range(ROWS):
        write_fits(source / f"Public/EUC_VIS/Euclid_VIS-{i}.fits", rng.normal(size=(60, 60)))
        for band in "JYH":
            write_fits(
                source / f"Public/EUC_{band}/Euclid_{band}-{i}.fits",
                rng.normal(1, 0.1, size=(20, 20)),
            )
    lines = ["# challenge 2", "#ID, n_source_im, mag_eff, n_pix_source"]
    truth = [(i, i % 2, 1.6 + (0.1 if i % 3 else 0.0), 20 + (i % 5 > 0)) for i in range(ROWS)]
    lines += [", ".join(map(str, row)) for row in truth] + ["# the end"]
    (source / "image_catalog2.0train.csv").write_text("\n".join(lines) + "\n")
    found = packed("bologna2", source)
    for i, sources, magnification, pixels in truth:
        _, label, image, _ = found[str(i)]
        assert label == int(sources > 0 and magnification > 1.6 and pixels > 20)
        assert image.shape == (4, 60, 60)
        coarse = fits.getdata(source / f"Public/EUC_H/Euclid_H-{i}.fits")
        np.testing.assert_allclose(
            image[3].reshape(20, 3, 20, 3).sum(axis=(1, 3)), coarse, rtol=1e-4
        )
    assert read_manifest(tmp_path / "packed").resampled == ("J", "Y", "H")


def test_deeplense_2025(tmp_path: Path, rng: np.random.Generator) -> None:
    source = tmp_path / "s"
    for folder, count in (
        ("train_lenses", 20),
        ("train_nonlenses", 40),
        ("test_lenses", 3),
        ("test_nonlenses", 9),
    ):
        (source / folder).mkdir(parents=True)
        for i in range(count):
            np.save(source / folder / f"{i}.npy", rng.normal(size=(3, 64, 64)).astype(np.float32))
    found = packed("deeplense_2025", source)
    assert len(found) == 72
    for identifier, (split, label, image, features) in found.items():
        folder, kind, number = identifier.split("_")
        assert split == folder or (split, folder) == ("val", "train")
        assert label == (kind == "lenses")
        assert features.shape == (0,)
        np.testing.assert_array_equal(image, np.load(source / f"{folder}_{kind}" / f"{number}.npy"))
    assert sum(split == "val" for split, *_ in found.values()) == 6


def test_deeplense_2024(tmp_path: Path, rng: np.random.Generator) -> None:
    source = tmp_path / "s"
    source.mkdir()
    for i in range(ROWS):
        np.save(source / f"{'nl_' * (i % 2)}{i}.npy", rng.normal(size=(334, 334)))
    found = packed("deeplense_2024", source)
    assert {identifier: label for identifier, (_, label, _, _) in found.items()} == {
        f"{'nl_' * (i % 2)}{i}": 1 - i % 2 for i in range(ROWS)
    }
    assert found["nl_1"][2].shape == (1, 334, 334)


def test_lsst_2025(tmp_path: Path, rng: np.random.Generator) -> None:
    source = tmp_path / "s"
    source.mkdir()
    images = {}
    for number in (1, 2):
        for kind in "LN":
            for index in range(12):
                name = f"D{number}_{kind}{index}"
                images[name] = rng.normal(size=(5, 41, 41)).astype(np.float32)
                for band, plane in zip("grizy", images[name], strict=True):
                    column = fits.Column("image", "1681E", dim="(41,41)", array=plane[None])
                    hdus = [fits.PrimaryHDU(), fits.BinTableHDU.from_columns([column])]
                    fits.HDUList(hdus).writeto(source / f"{name}_{band}.fits")
    found = packed("lsst_2025", source)
    assert found.keys() == images.keys()
    for name, (split, label, image, _) in found.items():
        assert split in ({"1": ("train", "val"), "2": ("test",)}[name[1]])
        assert label == (name[3] == "L")
        np.testing.assert_array_equal(image, images[name])


@pytest.mark.parametrize("kind", ["npy", "npz", "h5", "NHWB"])
def test_stack(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    source = tmp_path / "s"
    source.mkdir()
    images = rng.normal(size=(ROWS, 3, 16, 16)).astype(np.float32)
    pd.DataFrame(
        {"id": [f"o{i}" for i in range(ROWS)], "is_lens": [i % 2 for i in range(ROWS)]}
    ).to_csv(source / "catalogue.csv", index=False)
    overrides = []
    if kind == "npz":
        np.savez(source / "images.npz", cube=images, other=np.zeros(3))
        overrides = ["stack=images.npz", "key=cube"]
    elif kind == "h5":
        with h5py.File(source / "images.h5", "w") as file:
            file["cube"] = images
        overrides = ["stack=images.h5"]
    else:
        np.save(source / "images.npy", images if kind == "npy" else np.moveaxis(images, 1, -1))
        overrides = ["stack_axes=NHWB"] * (kind == "NHWB")
    found = packed("stack", source, *overrides)
    for i in range(ROWS):
        np.testing.assert_array_equal(found[f"o{i}"][2], images[i])


@pytest.mark.parametrize("kind", ["fits", "vot", "parquet", "csv.gz", "fits.gz"])
def test_table(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    source = tmp_path / "s"
    images = rng.normal(size=(ROWS, 3, 16, 16)).astype(np.float32)
    for i in range(ROWS):
        write_fits(source / "cutouts" / f"o{i}.fits", images[i])
    columns = {
        "id": [f"o{i}" for i in range(ROWS)],
        "is_lens": [i % 2 for i in range(ROWS)],
        "mag": [i + 0.25 for i in range(ROWS)],
    }
    file = source / f"catalogue.{kind}"
    if kind == "parquet":
        pd.DataFrame(columns).to_parquet(file)
    elif kind == "csv.gz":
        file.write_bytes(gzip.compress(pd.DataFrame(columns).to_csv(index=False).encode()))
    else:
        Table(columns).write(file, format="votable" if kind == "vot" else "fits")
    found = packed("table", source, f"catalogue={file.name}", "columns.features=[mag]")
    for i in range(ROWS):
        _, label, image, features = found[f"o{i}"]
        assert label == i % 2
        assert features.tolist() == [i + 0.25]
        np.testing.assert_array_equal(image, images[i])


def test_a_ninth_layout_is_told_without_python(tmp_path: Path, rng: np.random.Generator) -> None:
    """TIFF in nested folders by field, sizes unequal, lenses by a threshold on votes."""
    source = tmp_path / "s"
    rows = []
    for i in range(ROWS):
        field = f"F{i % 4}"
        (source / "img" / field).mkdir(parents=True, exist_ok=True)
        size = 20 + i % 3
        Image.fromarray(rng.normal(size=(size, size)).astype(np.float32)).save(
            source / "img" / field / f"{i}.tif"
        )
        rows.append({"field": field, "number": i, "votes": i / ROWS, "note": "a, b"})
    pd.DataFrame(rows).to_csv(source / "votes.csv", index=False)
    recipe = tmp_path / "ninth.yaml"
    recipe.write_text(
        "name: ninth\ncatalogue: votes.csv\nimages: 'img/{field}/{number}.tif'\n"
        "columns: {id: '{field}-{number}', label: votes >= 0.5, group: field}\n"
        "bands: [i]\npixel_scale: 0.2\nunits: counts\nsize: [20, 20]\n"
        "splits: {train: 0.5, test: 0.5}\n"
    )
    found = packed(str(recipe), source)
    assert len(found) == ROWS
    for identifier, (_, label, image, _) in found.items():
        field, number = identifier.split("-")
        assert label == (int(number) / ROWS >= 0.5)
        whole = np.asarray(Image.open(source / "img" / field / f"{number}.tif"))
        offset = (whole.shape[0] - 20) // 2
        np.testing.assert_array_equal(image[0], whole[offset : offset + 20, offset : offset + 20])
    assert (
        len({split for identifier, (split, *_) in found.items() if identifier.startswith("F1-")})
        == 1
    )
