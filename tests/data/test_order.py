import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_hpc import UserError
from lens_hpc.data import order
from lens_hpc.data.order import Order

orders = st.builds(
    Order,
    rows=st.integers(2, 400),
    global_batch_size=st.integers(1, 64),
    seed=st.integers(0, 3),
    blocks=st.booleans(),
    keep_last=st.booleans(),
)


@given(made=orders, epoch=st.integers(0, 5))
def test_an_epoch_holds_every_sample_once_but_for_a_dropped_last_step(made: Order, epoch: int) -> None:
    sequence = made.sequence(epoch)
    assert sorted(sequence) == list(range(made.rows))
    if made.rows < made.global_batch_size and not made.keep_last:
        return
    shares = list(made.shares(epoch, 0, 1))
    seen = np.concatenate([share.draws[share.weights == 1] for share in shares])
    assert len(seen) == len(set(seen))
    if made.keep_last:
        assert sorted(seen) == list(range(made.rows))
    else:
        assert len(seen) == made.rows // made.global_batch_size * made.global_batch_size
    assert [int(share.weights.sum()) for share in shares] == [made.samples_of(step) for step in range(made.steps)]


@given(
    rows=st.integers(2, 400), share=st.integers(1, 6), world_size=st.integers(1, 16), blocks=st.booleans(),
    keep_last=st.booleans(), epoch=st.integers(0, 5), data=st.data(),
)  # fmt: skip
def test_every_world_size_and_resume_point_trains_on_the_same_steps(
    rows: int, share: int, world_size: int, blocks: bool, keep_last: bool, epoch: int, data: st.DataObject
) -> None:
    made = Order(rows, share * world_size, 7, blocks, keep_last)
    if rows < made.global_batch_size and not keep_last:
        return
    first = data.draw(st.integers(0, made.steps - 1))
    alone = list(made.shares(epoch, 0, 1))
    ranks = [list(made.shares(epoch, rank, world_size, first)) for rank in range(world_size)]
    for step, parts in enumerate(zip(*ranks, strict=True), start=first):
        assert {len(part.draws) for part in parts} == {share}
        together = np.concatenate([part.draws[part.weights == 1] for part in parts])
        np.testing.assert_array_equal(together, alone[step].draws[alone[step].weights == 1])


@given(made=orders.filter(lambda made: made.keep_last or made.rows >= made.global_batch_size), first=st.integers(0, 5))
def test_what_is_read_ahead_is_what_will_be_needed_once(made: Order, first: int) -> None:
    first = min(first, made.steps - 1)
    shares = list(made.shares(0, 0, 1, first))
    ahead = np.concatenate([share.ahead for share in shares])
    needed = np.concatenate([share.draws for share in shares])
    assert sorted(ahead) == (sorted(needed) if made.blocks else [])


@settings(deadline=None)
@given(
    lenses=st.integers(1, 40), others=st.integers(1, 400), blocks=st.booleans(), epoch=st.integers(0, 3)
)  # fmt: skip
def test_oversampling_repeats_the_rarer_class_evenly(lenses: int, others: int, blocks: bool, epoch: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([1, 0], [lenses, others]))
    made = Order(len(labels), 1, 3, blocks, labels=labels)
    draws = made.sequence(epoch)
    assert len(draws) == len(set(draws)) == made.samples == 2 * max(lenses, others)
    rows, times = np.unique(draws % made.rows, return_counts=True)
    assert len(rows) == len(labels)
    assert times[labels == 1].sum() == times[labels == 0].sum()
    for label in (0, 1):
        assert np.ptp(times[labels == label]) <= 1
    np.testing.assert_array_equal(draws, Order(len(labels), 1, 3, blocks, labels=labels).sequence(epoch))


def test_blocks_are_mixed_within_windows_and_full_is_mixed_throughout() -> None:
    rows = 10 * order.WINDOW_ROWS
    full, blocks = (Order(rows, 256, 0, way).sequence(0) for way in (False, True))
    window = blocks[: order.WINDOW_ROWS]
    assert len(np.unique(window // order.RUN_ROWS)) == order.WINDOW_ROWS // order.RUN_ROWS  # whole runs
    assert np.ptp(window) > rows / 2  # from all over the split
    assert abs(np.corrcoef(np.arange(len(window)), window)[0, 1]) < 0.1  # and mixed
    assert len(np.unique(full[: order.WINDOW_ROWS] // order.RUN_ROWS)) > 0.95 * rows / order.RUN_ROWS


def test_a_rank_reads_its_part_of_the_dataset() -> None:
    made = Order(100_000, 512, 0)
    for share in list(made.shares(0, 3, 4))[:20]:
        assert share.draws.min() > 0.6 * made.rows


@given(rows=st.integers(0, 200), batch_size=st.integers(1, 33), world_size=st.integers(1, 9))
def test_every_row_is_scored_once(rows: int, batch_size: int, world_size: int) -> None:
    ranks = [list(order.scoring_shares(rows, batch_size, rank, world_size)) for rank in range(world_size)]
    seen = np.concatenate([np.empty(0, int), *(share.draws for shares in ranks for share in shares)])
    assert sorted(seen) == list(range(rows))
    batches = {tuple(share.draws) for shares in ranks for share in shares}
    assert batches == {tuple(share.draws) for share in order.scoring_shares(rows, batch_size, 0, 1)}


def test_epochs_and_seeds_differ() -> None:
    sequences = {tuple(Order(50, 1, seed).sequence(epoch)) for seed in range(3) for epoch in range(3)}
    assert len(sequences) == 9


def test_a_batch_that_does_not_divide_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="64 cannot be shared evenly by 3 processes; choose 63 or 66"):
        order.share_of_step(64, 3)
    with pytest.raises(UserError, match=r"choose 4$"):
        order.share_of_step(3, 4)


def test_a_batch_larger_than_the_split_is_refused() -> None:
    with pytest.raises(UserError, match="an epoch has only 10 samples"):
        _ = Order(10, 11).steps
    assert Order(10, 11, keep_last=True).steps == 1
