import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_hpc import UserError
from lens_hpc.data import order


@given(rows=st.integers(1, 300), share=st.integers(1, 8), world_size=st.integers(1, 16), epoch=st.integers(0, 5))
def test_every_world_size_trains_on_the_same_steps(rows: int, share: int, world_size: int, epoch: int) -> None:
    batch = share * world_size
    sequence = order.epoch_order(rows, 7, epoch)
    assert sorted(sequence) == list(range(rows))
    if rows < batch:
        return
    ranks = [list(order.training_batches(sequence, batch, rank, world_size)) for rank in range(world_size)]
    steps = [np.concatenate(parts) for parts in zip(*ranks, strict=True)]
    alone = list(order.training_batches(sequence, batch, 0, 1))
    assert len(steps) == len(alone) == order.steps_per_epoch(rows, batch)
    for step, whole in zip(steps, alone, strict=True):
        np.testing.assert_array_equal(step, whole)
    assert len(set(np.concatenate(steps))) == len(steps) * batch


@given(rows=st.integers(0, 200), batch_size=st.integers(1, 33), world_size=st.integers(1, 9))
def test_every_row_is_scored_once(rows: int, batch_size: int, world_size: int) -> None:
    ranks = [list(order.scoring_batches(rows, batch_size, rank, world_size)) for rank in range(world_size)]
    seen = np.concatenate([np.empty(0, int), *(batch for batches in ranks for batch in batches)])
    assert sorted(seen) == list(range(rows))
    batches = {tuple(batch) for batches in ranks for batch in batches}
    assert batches == {tuple(batch) for batch in order.scoring_batches(rows, batch_size, 0, 1)}


def test_epochs_and_seeds_differ() -> None:
    sequences = {tuple(order.epoch_order(50, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(sequences) == 9


def test_a_batch_that_does_not_divide_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="64 cannot be shared evenly by 3 processes; choose 63 or 66"):
        order.share_of_step(64, 3)
    with pytest.raises(UserError, match=r"choose 4$"):
        order.share_of_step(3, 4)


def test_a_batch_larger_than_the_split_is_refused() -> None:
    with pytest.raises(UserError, match="has only 10 rows"):
        order.steps_per_epoch(10, 11)
