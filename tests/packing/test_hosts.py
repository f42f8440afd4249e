"""Hosts are the rows that the condition names; what is no galaxy to paint on is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lens_hpc.errors import UserError
from lens_hpc.packing.hosts import open_hosts
from tests.packing.injections import pack_galaxies, pack_pictures, recipe_of


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 galaxies, of which 4 are labelled lenses; not to be changed."""
    return pack_galaxies(tmp_path_factory.mktemp("hosts"))


def drawn_ids(packed: Path, **changes: Any) -> set[str]:
    hosts = open_hosts(packed, recipe_of(**changes))
    return {name for split in hosts.splits.values() for name in split.ids[split.is_drawn]}


def test_hosts_are_all_that_is_no_lens(packed: Path) -> None:
    hosts = open_hosts(packed, recipe_of())
    assert hosts.total() == 36
    for split in hosts.splits.values():
        numbers = np.array([int(name[3:]) for name in split.ids])
        np.testing.assert_array_equal(split.is_host, numbers % 10 != 0)
        assert (split.is_host | ~split.is_drawn).all()
        assert split.is_drawn.sum() == round(split.is_host.sum() / 2)


def test_a_condition_may_name_features_kept_columns_label_and_split(packed: Path) -> None:
    where = "colour > 1 & tile == 't1' & label != 1 & split == 'train'"
    hosts = open_hosts(packed, recipe_of(where=where))
    table = hosts_table(packed)
    expected = (table["colour"] > 1) & (table["tile"] == "t1") & (table["label"] != 1)
    expected &= table["split"] == "train"
    assert 0 < hosts.total() == expected.sum()


def hosts_table(packed: Path) -> Any:
    from lens_hpc.dataset.dataset import Dataset

    return Dataset(packed).to_pandas()


def test_who_gets_an_arc_depends_on_seed_and_id_alone(packed: Path) -> None:
    first = drawn_ids(packed, share=0.3)
    assert first == drawn_ids(packed, share=0.3)
    assert first < drawn_ids(packed, share=0.6)
    assert first != drawn_ids(packed, share=0.3, seed=1)


def test_only_the_splits_named_have_hosts(packed: Path) -> None:
    hosts = open_hosts(packed, recipe_of(splits=("test",)))
    assert not hosts.splits["train"].is_host.any()
    assert hosts.splits["test"].is_host.any()


def test_a_row_tells_what_its_arc_depends_on(packed: Path) -> None:
    psf = {"g": "{tile}.fits", "i": {"column": "seeing_i"}}
    split = open_hosts(packed, recipe_of(psf=psf)).splits["train"]
    values = split.catalogue_of(5)
    row = hosts_table(packed).set_index("id").loc[split.ids[5]]
    assert values["tile"] == row["tile"]
    assert values["sigma_v"] == row["sigma_v"]
    assert values["z"] == pytest.approx(row["z"], rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"where": "colour > 9"}, "no row of .* is a host"),
        ({"where": "colour > 0"}, "4 hosts are labelled lenses, such as gal0.0"),
        ({"where": "color > 0"}, "no column 'color'"),
        ({"where": "tile > 3"}, "tile = 't.' is not a number"),
        ({"where": "colour >"}, "is not a condition"),
        ({"share": 0.001}, "none of 36 hosts gets an arc"),
        ({"splits": ("val",)}, "has no split 'val'; it has"),
        ({"psf": {"g": 0.8, "i": {"column": "fwhm"}}}, "needs a column 'fwhm'"),
    ],
)
def test_what_does_not_fit_the_dataset_is_refused(
    packed: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        open_hosts(packed, recipe_of(**changes))


def test_8_bits_are_refused_and_may_be_assumed_to_be_linear(tmp_path: Path) -> None:
    packed = pack_pictures(tmp_path)
    with pytest.raises(UserError, match=r"have 8 bits, .* arc cannot .* pixels=assume_linear"):
        open_hosts(packed, recipe_of())
    assert open_hosts(packed, recipe_of(pixels="assume_linear")).total() == 36
