"""Without a catalogue, every object that has any file is a row, if a rejected one."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.errors import UserError
from lens_hpc.packing.recipe import PackSettings
from lens_hpc.packing.uncatalogued import uncatalogued_rows
from tests.conftest import pack_survey

RECIPE = """
name: found
images: %s
columns: {id: name, label: null}
bands: [g, r, i]
pixel_scale: 0.2
units: adu
splits: {all: 1.0}
"""


def write_files(folder: Path, names: list[str]) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / name, rng.normal(size=(4, 4)))


@pytest.mark.slow
@pytest.mark.parametrize("missing_band", ["g", "r", "i"])
@pytest.mark.parametrize(
    "images", ['"{band}/{name}.npy"', "{g: 'g/{name}.npy', r: 'r/{name}.npy', i: 'i/{name}.npy'}"]
)
def test_an_object_without_a_file_in_one_band_is_rejected(
    tmp_path: Path, missing_band: str, images: str
) -> None:
    names = [f"{band}/{name}.npy" for band in "gri" for name in "abcd"]
    names.remove(f"{missing_band}/c.npy")
    write_files(tmp_path, names)
    (tmp_path / "recipe.yaml").write_text(RECIPE % images)
    with pytest.raises(UserError, match=f"id c: {missing_band}/c.npy: there is no such file"):
        pack_survey(tmp_path, tmp_path / "d")
    dataset = pack_survey(tmp_path, tmp_path / "d", "on_bad=skip")
    assert sorted(Dataset(dataset)["all"].ids()) == ["a", "b", "d"]
    rejected = pd.read_csv(dataset / "rejected.csv")
    assert rejected["id"].tolist() == ["c"]


def rows_of(folder: Path, images: object) -> list[str]:
    recipe = PackSettings(
        name="n",
        images=images,
        columns={"id": "name", "label": None},
        bands=("g", "r"),
        pixel_scale=1,
        units="u",
        splits={"all": 1.0},
        source=folder,
        output=folder / "d",
    )
    patterns = recipe.images
    if isinstance(patterns, dict):
        listed = [[patterns[band]] for band in recipe.bands]
    else:
        assert isinstance(patterns, str)
        listed = [[patterns]] * (2 if "{band}" in patterns else 1)
    return list(uncatalogued_rows(recipe, listed, folder)["name"])


@pytest.mark.slow
@settings(max_examples=15)  # each reads files in a process of its own
@given(present=st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["g", "r", "gr"])))
def test_the_rows_are_the_union_over_the_bands(
    tmp_path_factory: pytest.TempPathFactory, present: dict[str, str]
) -> None:
    folder = tmp_path_factory.mktemp("union")
    write_files(folder, [f"{name}_{band}.npy" for name, bands in present.items() for band in bands])
    if not present:
        with pytest.raises(UserError, match="no file matches"):
            rows_of(folder, "{name}_{band}.npy")
        return

    rows = rows_of(folder, "{name}_{band}.npy")
    in_first = sorted(name for name, bands in present.items() if "g" in bands)
    assert rows[: len(in_first)] == in_first
    assert sorted(rows) == sorted(present)


def test_a_pattern_that_matches_the_files_of_another_band_adds_no_rows(tmp_path: Path) -> None:
    write_files(tmp_path, ["a.npy", "a_g.npy", "b.npy", "b_g.npy"])
    assert rows_of(tmp_path, {"g": "{name}_g.npy", "r": "{name}.npy"}) == ["a", "b"]


def test_one_file_of_all_bands_is_one_row(tmp_path: Path) -> None:
    write_files(tmp_path, ["a.npy", "b.npy"])
    assert rows_of(tmp_path, "{name}.npy") == ["a", "b"]
    assert rows_of(tmp_path, {"g": "{name}.npy", "r": "{name}.npy"}) == ["a", "b"]


def test_a_file_whose_name_is_no_utf8_is_to_be_renamed(tmp_path: Path) -> None:
    write_files(tmp_path, ["a.npy", os.fsdecode(b"caf\xe9.npy")])
    with pytest.raises(UserError, match=r"caf\\udce9: is no UTF-8; .*rename it"):
        rows_of(tmp_path, "{name}.npy")
