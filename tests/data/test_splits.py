import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lens_hpc.data import splits

FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}


@given(lenses=st.integers(0, 200), others=st.integers(1, 200), seed=st.integers(0, 3))
def test_every_class_is_split_by_the_fractions_to_one_row(lenses: int, others: int, seed: int) -> None:
    labels = np.array([1] * lenses + [0] * others)
    names = splits.draw(labels, None, FRACTIONS, seed)
    for label, total in ((1, lenses), (0, others)):
        for name, fraction in FRACTIONS.items():
            assert abs(((names == name) & (labels == label)).sum() - fraction * total) <= 1


@given(sizes=st.lists(st.integers(1, 5), min_size=60, max_size=100), seed=st.integers(0, 3))
def test_groups_stay_whole_and_fractions_hold(sizes: list[int], seed: int) -> None:
    groups = np.repeat([f"g{i}" for i in range(len(sizes))], sizes)
    labels = np.random.default_rng(seed).integers(0, 2, len(groups))
    names = splits.draw(labels, groups, FRACTIONS, seed)
    for group in set(groups):
        assert len(set(names[groups == group])) == 1
    for name, fraction in FRACTIONS.items():
        assert abs((names == name).mean() - fraction) < 0.05
        assert abs((names[labels == 1] == name).mean() - fraction) < 0.12


def test_the_seed_decides() -> None:
    labels = np.arange(100) % 2
    groups = np.array([str(i // 2) for i in range(100)])
    for chosen in (None, groups):
        draws = [tuple(splits.draw(labels, chosen, FRACTIONS, seed)) for seed in (0, 0, 1)]
        assert draws[0] == draws[1] != draws[2]
