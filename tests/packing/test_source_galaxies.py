"""Sources that are rows of a packed dataset: which rows, what is known of them, what is refused."""

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.dataset.manifest import Manifest, read_manifest
from lens_hpc.errors import UserError
from lens_hpc.packing.source_galaxies import PackedGalaxies, check_galaxies
from lens_hpc.sky.pictured_source import cut_out_galaxy
from tests.conftest import pack_survey
from tests.packing.injections import (
    pack_galaxies,
    pack_pictures,
    pack_sources,
    recipe_of,
    sources_of,
    write_sources,
)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 galaxies, of which 10 can be sources, one of these without light; not to be changed."""
    return pack_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(pack_galaxies(tmp_path_factory.mktemp("hosts"), rows=20))


def check(hosts: Manifest, packed: Path, pixels: str = "linear", **law: Any) -> None:
    recipe = recipe_of(sources=sources_of(packed) | law, pixels=pixels)
    check_galaxies(recipe, hosts)


def table_of(dataset: Path) -> pd.DataFrame:
    return Dataset(dataset).to_pandas().set_index("id")


def test_rows_are_those_with_all_values_that_are_no_lenses(packed: Path) -> None:
    galaxies = PackedGalaxies(packed, None, ("photo_z", "mag"))
    names = [galaxies.name(number) for number in range(len(galaxies))]
    assert {*names} == {*table_of(packed).index} - {"source01", "source02"}
    # Without a column, it does not matter that one has no redshift.
    assert len(PackedGalaxies(packed, None, ())) == 11


def test_values_and_pictures_are_those_of_the_row(packed: Path) -> None:
    galaxies = PackedGalaxies(packed, None, ("mag", "photo_z"))
    table = table_of(packed)
    images = {}
    for split in Dataset(packed).values():
        images |= dict(zip(split.ids().tolist(), split[:].images, strict=True))

    rng = np.random.default_rng(0)
    drawn = [galaxies.draw(rng) for _ in range(400)]
    # Each is drawn some 40 times: that one is missing has a probability of 10 * 0.9^400 = 5e-18.
    assert len({one.name for one in drawn}) == 10
    for one in drawn[:40]:
        row = table.loc[one.name]
        assert one.value("mag") == pytest.approx(row["mag"])
        assert one.value("photo_z") == pytest.approx(row["photo_z"], rel=1e-6)
        found, expected = one.picture(), cut_out_galaxy(images[one.name].mean(axis=0), 0.05)
        assert (found is None) == (expected is None) == (one.name == "source00")
        if found is not None and expected is not None:
            torch.testing.assert_close(found.light, expected.light)


def test_the_picture_is_that_of_the_band_asked_for(packed: Path) -> None:
    by_band = [PackedGalaxies(packed, band, ()).picture(5) for band in ("f606w", "f814w", None)]
    sizes = {picture.light.shape for picture in by_band if picture is not None}
    assert len(sizes) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"galaxies": "nowhere"}, "nowhere is not a packed dataset"),
        ({"galaxies_band": "i"}, "sources.galaxies_band = i: is no band of"),
        ({"z": {"column": "zphot"}}, "'zphot' is neither a feature nor a kept column of"),
        ({"z": {"column": "zphot"}}, "they have photo_z, mag, blue, kind"),
        ({"z": {"column": "kind"}}, "the column 'kind' of the galaxies"),
    ],
)
def test_what_the_dataset_does_not_have_is_told(
    packed: Path, hosts: Manifest, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        check(hosts, packed, **changes)


def test_galaxies_of_which_nothing_is_to_be_seen_are_refused(
    hosts: Manifest, tmp_path: Path
) -> None:
    survey = write_sources(tmp_path / "s")
    rng = np.random.default_rng(0)
    for file in survey.glob("*.npy"):
        np.save(file, rng.normal(0, 1, (2, 48, 48)).astype(np.float32))
    packed = pack_survey(survey, tmp_path / "d")
    with pytest.raises(UserError, match=r"in the middle of 10 pictures .*, such as source\d\d"):
        check(hosts, packed)


def test_rows_without_a_value_are_no_sources(hosts: Manifest, tmp_path: Path) -> None:
    survey = write_sources(tmp_path / "s")
    table = pd.read_csv(survey / "catalogue.csv").assign(mag=np.nan)
    table.to_csv(survey / "catalogue.csv", index=False)
    packed = pack_survey(survey, tmp_path / "d")
    with pytest.raises(UserError, match=r"no row can be a source: .* \(photo_z, mag, blue\)"):
        check(hosts, packed)


def test_pictures_of_8_bits_are_refused_unless_they_are_assumed_to_be_linear(
    hosts: Manifest, tmp_path: Path
) -> None:
    packed = pack_pictures(tmp_path, rows=20)
    of_pictures = {"z": {"fixed": 2}, "magnitude": {"fixed": 24}, "colors": {"g": {"fixed": 0}}}
    with pytest.raises(UserError, match=r"have 8 bits, .* and no source can be made of them"):
        check(hosts, packed, **of_pictures)
    check(hosts, packed, pixels="assume_linear", **of_pictures)


def test_pixels_as_coarse_as_those_of_the_hosts_are_warned_of(
    packed: Path, hosts: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        check(hosts, packed)
        assert not caplog.records
        check(hosts.model_copy(update={"pixel_scale_arcsec": 0.05}), packed)
    assert "its pixels of 0.05 arcsec are not finer than the hosts' of 0.05" in caplog.text


def test_a_damaged_shard_is_told(packed: Path, tmp_path: Path) -> None:
    folder = pack_sources(tmp_path)
    galaxies = PackedGalaxies(folder, None, ())
    file = folder / "train" / "shard-00000.h5"
    stored = bytearray(file.read_bytes())
    image = Dataset(folder)["train"].take("images", np.array([0]))[0].tobytes()
    stored[stored.index(image)] ^= 1
    file.write_bytes(stored)
    with pytest.raises(UserError, match=r"shard-00000\.h5: is damaged"):
        for number in range(len(galaxies)):
            galaxies.picture(number)
