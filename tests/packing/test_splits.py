from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.packing.splits import draw_splits
from tests.conftest import pack_survey, write_survey

FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}


@given(lenses=st.integers(0, 200), others=st.integers(1, 200), seed=st.integers(0, 3))
def test_every_class_is_split_by_the_fractions_to_one_row(
    lenses: int, others: int, seed: int
) -> None:
    labels = np.array([1] * lenses + [0] * others)
    names = draw_splits(labels, None, FRACTIONS, seed)
    for label, total in ((1, lenses), (0, others)):
        for name, fraction in FRACTIONS.items():
            assert abs(((names == name) & (labels == label)).sum() - fraction * total) <= 1


@given(sizes=st.lists(st.integers(1, 5), min_size=60, max_size=100), seed=st.integers(0, 3))
def test_groups_stay_whole_and_fractions_hold(sizes: list[int], seed: int) -> None:
    groups = np.repeat([f"g{i}" for i in range(len(sizes))], sizes)
    labels = np.random.default_rng(seed).integers(0, 2, len(groups))
    names = draw_splits(labels, groups, FRACTIONS, seed)
    for group in set(groups):
        assert len(set(names[groups == group])) == 1
    for name, fraction in FRACTIONS.items():
        assert abs((names == name).mean() - fraction) < 0.05
        assert abs((names[labels == 1] == name).mean() - fraction) < 0.12


def test_the_seed_decides() -> None:
    labels = np.arange(100) % 2
    groups = np.array([str(i // 2) for i in range(100)])
    for chosen in (None, groups):
        draws = [tuple(draw_splits(labels, chosen, FRACTIONS, seed)) for seed in (0, 0, 1)]
        assert draws[0] == draws[1] != draws[2]


# ---- in a dataset ----


def test_splits_come_from_a_column(tmp_path: Path) -> None:
    names = ["test" if i < 10 else "train" for i in range(40)]
    survey = write_survey(tmp_path / "s", split=names)
    dataset = pack_survey(survey, tmp_path / "d", "columns.split=split")
    assert sorted(Split(dataset, "test").ids()) == sorted(f"obj{i}" for i in range(10))
    assert len(Split(dataset, "train")) == 30


def test_groups_are_kept_whole(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", field=[f"f{i // 4}" for i in range(40)])
    dataset = pack_survey(survey, tmp_path / "d", "columns.group=field")
    fields = [
        {int(name[3:]) // 4 for name in Split(dataset, split).ids()}
        for split in ("train", "val", "test")
    ]
    assert sum(len(part) for part in fields) == len(set.union(*fields)) == 10


def test_blocks_are_fair_samples(tmp_path: Path) -> None:
    sorted_labels = ["0"] * 2400 + ["1"] * 1600
    survey = write_survey(tmp_path / "s", rows=4000, size=4, is_lens=sorted_labels)
    split = Split(pack_survey(survey, tmp_path / "d", "splits={train: 1.0}"), "train")
    labels = split.take("labels", np.arange(len(split)))
    blocks = labels[: len(labels) // 256 * 256].reshape(-1, 256).sum(axis=1)
    sigma = np.sqrt(256 * 0.4 * 0.6)
    assert abs(blocks - 256 * 0.4).max() < 4 * sigma
    assert 0.4 * sigma < blocks.std() < 1.8 * sigma


def test_a_split_without_rows_is_refused(tmp_path: Path, survey: Path) -> None:
    with pytest.raises(UserError, match=r"^splits: no row is left for the split 'tiny'"):
        pack_survey(survey, tmp_path / "d", "splits={train: 0.99, tiny: 0.01}")


def test_validation_is_drawn_out_of_a_given_train(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", part=["B" if i < 10 else "A" for i in range(40)])
    names = "columns.split_names={A: train, B: test}"
    dataset = pack_survey(survey, tmp_path / "d", "columns.split=part", names, "validation=0.2")
    assert {name: len(Split(dataset, name)) for name in ("train", "val", "test")} == {
        "train": 24,
        "val": 6,
        "test": 10,
    }


def test_a_group_too_large_for_its_split_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    survey = write_survey(tmp_path / "s", field=["big" if i < 20 else f"f{i}" for i in range(40)])
    pack_survey(survey, tmp_path / "d", "columns.group=field", "splits={train: 0.2, test: 0.8}")
    assert not caplog.text
    pack_survey(
        survey, tmp_path / "e", "columns.group=field", "splits={train: 0.33, val: 0.33, test: 0.34}"
    )
    assert "a group in column field is too large to fit better" in caplog.text


def test_a_train_without_a_class_is_refused_and_a_test_without_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    survey = write_survey(tmp_path / "s", split=["train" if i % 2 else "test" for i in range(40)])
    with pytest.raises(UserError, match="the split train has no non-lenses"):
        pack_survey(survey, tmp_path / "d", "columns.split=split")
    survey = write_survey(
        tmp_path / "t", split=["test" if i in (1, 3) else "train" for i in range(40)]
    )
    pack_survey(survey, tmp_path / "e", "columns.split=split")
    assert "split test has no non-lenses" in caplog.text
