"""Small surveys in every kind of file that `pack` reads, and damages to them, for the fuzz."""

import copy
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import yaml
from astropy.io import fits
from astropy.table import Table
from PIL import Image

from tests.packing.mosaic_surveys import (
    ENDINGS,
    Storage,
    make_header,
    noise,
    positions_in,
    write_mosaic,
)

ROWS = 6
SIZE = 8
Tree = dict[str, Any]


class Survey(NamedTuple):
    """A survey on disk: what the recipe says, and the file that is to be damaged."""

    recipe: Tree
    target: Path


# ---- parts of a survey ----


def the_rows() -> pd.DataFrame:
    numbers = np.arange(ROWS)
    return pd.DataFrame(
        {
            "id": [f"obj{number}" for number in numbers],
            "is_lens": numbers % 2,
            "radius": numbers + 0.25,
            "colour": np.where(numbers == 3, np.nan, numbers / 7),
            "kind": ["lens", "galaxy"] * (ROWS // 2),
        }
    )


def the_pixels(dtype: str = "float32") -> np.ndarray:
    """(rows, bands, height, width), with something in every band."""
    pixels = np.random.default_rng(1).uniform(0, 250, (ROWS, 2, SIZE, SIZE))
    return pixels.astype(dtype)


def the_recipe(**settings: Any) -> Tree:
    columns = {"id": "id", "label": "is_lens", "features": ["radius", "colour"], "keep": ["kind"]}
    return {
        "name": "fuzz",
        "catalogue": "catalogue.csv",
        "columns": columns,
        "images": "{id}.npy",
        "bands": ["g", "r"],
        "pixel_scale": 0.2,
        "units": "counts",
        "splits": {"train": 1.0},
    } | settings


def with_catalogue(name: str, write: Callable[[pd.DataFrame, Path], object], **settings: Any):
    """A survey of .npy files whose catalogue is of some kind."""

    def make(folder: Path) -> Survey:
        write(the_rows(), folder / name)
        for number, pixels in enumerate(the_pixels()):
            np.save(folder / f"obj{number}.npy", pixels)
        return Survey(the_recipe(catalogue=name, **settings), folder / name)

    return make


def with_images(ending: str, write: Callable[[np.ndarray, Path], object], dtype: str = "float32"):
    """A survey whose images are of some kind, (bands, height, width) each."""

    def make(folder: Path) -> Survey:
        the_rows().to_csv(folder / "catalogue.csv", index=False)
        for number, pixels in enumerate(the_pixels(dtype)):
            write(pixels, folder / f"obj{number}.{ending}")
        recipe = the_recipe(images=f"{{id}}.{ending}")
        probe = folder / f"obj0.{ending}"
        if ending in ("png", "jpg", "tiff"):
            with Image.open(probe) as image:
                frames = getattr(image, "n_frames", 1)
                recipe["bands"] = list(image.getbands()) if frames == 1 else ["g", "r"]
            if ending == "png" and dtype == "uint16":
                recipe["bands"] = ["r", "g", "b"]
        return Survey(recipe, folder / f"obj3.{ending}")

    return make


def with_stack(name: str, write: Callable[[np.ndarray, Path], object], **settings: Any):
    """A survey whose cutouts lie in one array."""

    def make(folder: Path) -> Survey:
        the_rows().to_csv(folder / "catalogue.csv", index=False)
        write(the_pixels(), folder / name)
        return Survey(the_recipe(images=None, stack=name, **settings), folder / name)

    return make


def with_mosaics(storage: Storage, **settings: Any):
    """A survey whose cutouts are made from the mosaics of a tile, some at an edge."""

    def make(folder: Path) -> Survey:
        shape = (40, 50)
        header = make_header(shape, projection="SIP")
        rows = the_rows()
        rows["ra"], rows["dec"] = positions_in(header, shape, ROWS).T
        rows.to_csv(folder / "catalogue.csv", index=False)

        for number, band in enumerate("gr"):
            mask = fits.ImageHDU(np.zeros(shape, np.uint8), name="MASK")
            file = folder / f"obj0_{band}.{ENDINGS[storage]}"
            write_mosaic(file, noise(shape, number), header, storage, [mask])
        mosaics = {"path": f"{{tile}}_{{band}}.{ENDINGS[storage]}", "edge": "pad"}
        recipe = the_recipe(images=None, mosaics=mosaics, size=[SIZE, SIZE], **settings)
        return Survey(recipe, file)

    return make


def make_mosaics_yaml(folder: Path) -> Survey:
    """A survey of mosaics whose recipe is damaged."""
    masks = {"hdu": "MASK", "bad": "!= 0"}
    recipe, _ = with_mosaics("plain", masks=masks, zero_point={"g": 30.0, "r": 31.4})(folder)
    recipe["mosaics"] |= {"ra": "ra", "dec": "dec", "zero_point": {"g": 27.0, "r": 26.5}}
    return Survey(recipe, folder / "recipe.yaml")


# ---- writers of each kind ----


def write_hdf5_table(rows: pd.DataFrame, file: Path) -> None:
    with h5py.File(file, "w") as opened:
        for name in rows.columns:
            opened[name] = rows[name].tolist()


def write_fits_table(rows: pd.DataFrame, file: Path) -> None:
    Table.from_pandas(rows).write(file, overwrite=True)


def write_votable(rows: pd.DataFrame, file: Path) -> None:
    Table.from_pandas(rows).write(file, format="votable", overwrite=True)


def write_cds(rows: pd.DataFrame, file: Path) -> None:
    table = Table.from_pandas(rows.fillna(0.5))
    table.write(file, format="ascii.mrt")


def write_fits_image(pixels: np.ndarray, file: Path) -> None:
    fits.PrimaryHDU(pixels).writeto(file)


def write_rice(pixels: np.ndarray, file: Path) -> None:
    image = fits.CompImageHDU(pixels, compression_type="RICE_1")
    image.header["BLANK"] = -1
    image.writeto(file)


def write_scaled(pixels: np.ndarray, file: Path) -> None:
    image = fits.PrimaryHDU(pixels)
    image.header["BLANK"] = -99
    image.header["BUNIT"] = "MJy/sr"
    image.writeto(file)


def write_hdf5(pixels: np.ndarray, file: Path) -> None:
    with h5py.File(file, "w") as opened:
        opened["group/images"] = pixels


def write_chunked(pixels: np.ndarray, file: Path) -> None:
    with h5py.File(file, "w") as opened:
        opened.create_dataset("images", data=pixels, compression="gzip", chunks=True)


def write_picture(pixels: np.ndarray, file: Path) -> None:
    """A colour of 8 bits."""
    planes = np.concatenate([pixels, pixels[:1, ::-1]])
    Image.fromarray(np.moveaxis(planes, 0, -1).copy()).save(file)


def write_deep(pixels: np.ndarray, file: Path) -> None:
    """A colour of 16 bits."""
    planes = np.concatenate([pixels, pixels[:1, ::-1]])
    cv2.imwrite(str(file), np.moveaxis(planes, 0, -1))


def write_pages(pixels: np.ndarray, file: Path) -> None:
    pages = [Image.fromarray(page) for page in pixels]
    pages[0].save(file, save_all=True, append_images=pages[1:], compression="tiff_lzw")


def write_parquet_images(pixels: np.ndarray, file: Path) -> None:
    cells = []
    for image in pixels:
        content = io.BytesIO()
        np.save(content, image)
        cells.append(content.getvalue())
    pq.write_table(pa.table({"image": pa.array(cells, pa.binary())}), file)


def make_tar(folder: Path) -> Survey:
    with tarfile.open(folder / "train.tar", "w") as archive:
        for number, pixels in enumerate(the_pixels()):
            fields = the_rows().fillna(0.5).iloc[number].to_dict()
            content = io.BytesIO()
            np.save(content, pixels)
            for name, data in (
                (f"obj{number}.json", json.dumps(fields, default=float).encode()),
                (f"obj{number}.npy", content.getvalue()),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    recipe = the_recipe(catalogue="train.tar", images="{__tar__}/{__key__}.npy")
    return Survey(recipe, folder / "train.tar")


def make_uncatalogued_tar(folder: Path) -> Survey:
    recipe, target = make_tar(folder)
    recipe |= {"catalogue": None, "images": "train.tar/{id}.npy"}
    recipe["columns"] = {"label": None}
    return Survey(recipe, target)


def make_labelled_stack(folder: Path) -> Survey:
    """A stack without a catalogue, whose labels lie in a file."""
    np.save(folder / "stack.npy", the_pixels())
    with h5py.File(folder / "labels.h5", "w") as opened:
        labels = the_rows().is_lens.to_numpy(copy=True)
        opened.create_dataset("labels", data=labels, chunks=True, compression="gzip")
    recipe = the_recipe(catalogue=None, images=None, stack="stack.npy", stack_labels="labels.h5")
    recipe["columns"] = {}
    return Survey(recipe, folder / "labels.h5")


def make_yaml(folder: Path) -> Survey:
    """A recipe that has as many settings as go together."""
    make = with_catalogue("catalogue.csv", lambda rows, file: rows.to_csv(file, index=False))
    recipe, _ = make(folder)
    the_rows()[["id", "kind"]].rename(columns={"kind": "more"}).to_csv(
        folder / "more.csv", index=False
    )
    recipe["columns"] |= {
        "features": ["colour"],
        "label": "kind == 'lens' & radius > 1",
        "missing": {"radius": [-99]},
    }
    recipe |= {
        "where": "radius > -1",
        "join": {"catalogue": "more.csv", "key": "id"},
        "size": [6, 6],
        "planes": [0, 1],
        "pixel_scale": {"g": 0.2, "r": 0.4},
        "zero_point": {"g": 27.0, "r": None},
        "gain": 2.0,
        "axes": "BHW",
        "dtype": "float32",
        "compression": "lzf",
        "bad_pixels": {"mask": -1.0, "most": 0.2, "fill": "zero", "constant_bands": "keep"},
        "splits": {"train": 0.5, "test": 0.5},
        "validation": 0.0,
        "seed": 3,
        "shard_mib": 1,
        "on_bad": "error",
        "key": None,
        "hdu": None,
        "follow_links": False,
        "resampling": "flux",
    }
    return Survey(recipe, folder / "recipe.yaml")


KINDS: dict[str, Callable[[Path], Survey]] = {
    "csv": with_catalogue("catalogue.csv", lambda rows, file: rows.to_csv(file, index=False)),
    "ecsv": with_catalogue(
        "catalogue.ecsv", lambda rows, file: Table.from_pandas(rows).write(file)
    ),
    "cds": with_catalogue("catalogue.txt", write_cds),
    "jsonl": with_catalogue(
        "catalogue.jsonl", lambda rows, file: rows.to_json(file, orient="records", lines=True)
    ),
    "parquet": with_catalogue("catalogue.parquet", lambda rows, file: rows.to_parquet(file)),
    "feather": with_catalogue("catalogue.feather", lambda rows, file: rows.to_feather(file)),
    "fits_table": with_catalogue("catalogue.fits", write_fits_table),
    "votable": with_catalogue("catalogue.vot", write_votable),
    "hdf5_table": with_catalogue("catalogue.h5", write_hdf5_table),
    "fits": with_images("fits", write_fits_image),
    "fits_scaled": with_images("fits", write_scaled, "int16"),
    "fits_rice": with_images("fits", write_rice, "int32"),
    "npy": with_images("npy", lambda pixels, file: np.save(file, pixels)),
    "npz": with_images("npz", lambda pixels, file: np.savez_compressed(file, images=pixels)),
    "hdf5": with_images("h5", write_hdf5),
    "hdf5_chunked": with_images("h5", write_chunked),
    "png": with_images("png", write_picture, "uint8"),
    "png_deep": with_images("png", write_deep, "uint16"),
    "jpeg": with_images("jpg", write_picture, "uint8"),
    "tiff": with_images("tiff", write_picture, "uint8"),
    "tiff_pages": with_images("tiff", write_pages),
    "stack_npy": with_stack("stack.npy", lambda pixels, file: np.save(file, pixels)),
    "stack_npz": with_stack("stack.npz", lambda pixels, file: np.savez(file, images=pixels)),
    "stack_hdf5": with_stack("stack.h5", write_hdf5),
    "stack_chunked": with_stack("stack.h5", write_chunked),
    "stack_fits": with_stack("stack.fits", write_fits_image),
    "stack_rice": with_stack(
        "stack.fits", lambda pixels, file: write_rice(pixels.astype("int32"), file)
    ),
    "stack_parquet": with_stack("stack.parquet", write_parquet_images, key="image"),
    "stack_labels": make_labelled_stack,
    "tar": make_tar,
    "tar_without_catalogue": make_uncatalogued_tar,
    "mosaics": with_mosaics("plain", masks={"hdu": "MASK"}),
    "mosaics_rice": with_mosaics("rice"),
    "mosaics_gzip": with_mosaics("gzip"),
    "mosaics_yaml": make_mosaics_yaml,
    "yaml": make_yaml,
}


# ---- damages ----


def damage_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip bits, chop, repeat, zero a block or insert bytes: one or some of these."""
    for _ in range(rng.integers(1, 4)):
        start, end = sorted(rng.integers(0, len(content) + 1, 2).tolist())
        block = slice(start, min(end, start + int(rng.choice([1, 4, 64, 4096]))))
        way = rng.choice(["flip", "chop", "repeat", "zero", "insert", "remove"])
        damaged = bytearray(content)
        if way == "flip":
            for _ in range(rng.integers(1, 9)):
                if damaged:
                    damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
        elif way == "chop":
            del damaged[start:]
        elif way == "repeat":
            damaged[start:start] = damaged[block]
        elif way == "zero":
            damaged[block] = bytes(len(damaged[block]))
        elif way == "insert":
            damaged[start:start] = rng.bytes(rng.integers(1, 20))
        else:
            del damaged[block]
        content = bytes(damaged)
    return content


OTHER_VALUES: list[Any] = [
    None, True, 0, -1, 1, 3, 10**9, 10**30, 0.5, 1e-30, 1e300, float("nan"), float("inf"),
    "", "x", "id", "radius", "kind", "{", "}", "{id}", "{band}", "{id:", "{id:(}", "\0", "..",
    "/", ".", "catalogue.csv", "obj0.npy", "a" * 5000, "é", "(((", "radius >", "kind == ",
    [], {}, [None], [1], [0, 0], [10**9, 10**9], ["g"], ["g", "g"], {"g": 1}, {"g": 1, "r": None},
    {"g": "obj0.npy", "r": "obj1.npy"}, {1: 2}, [["x"]], {"a": {"b": {}}},
]  # fmt: skip


def damage_tree(tree: Tree, rng: np.random.Generator) -> Tree:
    """Drop, rename or retype some keys of a tree of settings, at any depth."""
    tree = json.loads(json.dumps(tree))
    for _ in range(rng.integers(1, 3)):
        branches = list(_branches(tree))
        branch = branches[rng.integers(len(branches))]
        if rng.random() < 0.5:
            branch = tree
        if not branch:
            continue
        key = list(branch)[rng.integers(len(branch))]
        way = rng.choice(["drop", "rename", "retype", "retype", "retype", "swap"])
        if way == "drop":
            del branch[key]
        elif way == "rename":
            branch[str(key)[:-1] + "s"] = branch.pop(key)
        elif way == "swap":
            other = list(branch)[rng.integers(len(branch))]
            branch[key], branch[other] = branch[other], branch[key]
        else:
            # A copy, for the next damage may be to this value.
            branch[key] = copy.deepcopy(OTHER_VALUES[rng.integers(len(OTHER_VALUES))])
    return tree


def _branches(tree: Any):
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _branches(value)


def write_survey_of(kind: str, folder: Path) -> None:
    """Write a sound survey of a kind, and its recipe."""
    folder.mkdir(parents=True)
    recipe, _ = KINDS[kind](folder)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")


def write_damaged_survey(kind: str, folder: Path, seed: int) -> Path:
    """Write a survey of a kind with one damaged file, and return that file."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, sorted(KINDS).index(kind)])
    recipe, target = KINDS[kind](folder)
    is_recipe = kind.endswith("yaml")
    if is_recipe and rng.random() < 0.8:
        recipe = damage_tree(recipe, rng)
    text = yaml.safe_dump(recipe, sort_keys=False)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    if not is_recipe or rng.random() < 0.25:
        target.write_bytes(damage_bytes(target.read_bytes(), rng))
    return target
