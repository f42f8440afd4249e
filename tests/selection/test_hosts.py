import numpy as np

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.packing.injection_recipe import load_recipe
from lens_hpc.selection.hosts import HostReader, find_hosts
from tests.selection.conftest import Case


def test_hosts_are_those_of_the_recipe_and_read_in_any_order(case: Case) -> None:
    hosts = find_hosts(case.hosts, load_recipe(case.recipe))
    dataset = Dataset(case.hosts)
    labels = dataset.to_pandas().set_index("id")["label"]
    assert len(hosts) == (labels == 0).sum() == 80
    assert (labels[hosts.ids] == 0).all()
    assert set(hosts.splits) == {"train", "val", "test"}

    numbers = np.random.default_rng(0).permutation(80)[:30]
    images = HostReader(hosts).read("images", numbers)
    columns = hosts.columns()
    for image, number in zip(images, numbers.tolist(), strict=True):
        sample = dataset[str(hosts.splits[number])][int(hosts.rows[number])]
        assert sample.id == hosts.ids[number]
        np.testing.assert_array_equal(image, sample.image)
        radius = sample.features[dataset.manifest.features.index("radius")]
        assert columns["radius"][number] == radius
    assert list(columns) == ["radius", "colour"]


def test_the_share_that_inject_would_paint_does_not_matter(case: Case) -> None:
    assert len(find_hosts(case.hosts, load_recipe(case.recipe, {"share": 0.001}))) == 80


def test_only_splits_that_the_recipe_names_have_hosts(case: Case) -> None:
    hosts = find_hosts(case.hosts, load_recipe(case.recipe, {"splits": ["test"]}))
    assert set(hosts.splits) == {"test"}
    assert 0 < len(hosts) < 80
