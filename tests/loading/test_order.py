import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_hpc.errors import UserError
from lens_hpc.loading.order import (
    RUN_ROWS,
    WINDOW_ROWS,
    Order,
    Share,
    micro_batches,
    scoring_shares,
    scoring_steps,
    share_of_step,
)

orders = st.builds(
    Order,
    rows=st.integers(2, 400),
    global_batch_size=st.integers(1, 64),
    seed=st.integers(0, 3),
    blocks=st.booleans(),
    keep_last=st.booleans(),
)


@given(order=orders, epoch=st.integers(0, 5))
def test_an_epoch_holds_every_sample_once_but_for_a_dropped_last_step(
    order: Order, epoch: int
) -> None:
    sequence = order.sequence(epoch)
    assert sorted(sequence) == list(range(order.rows))
    if order.rows < order.global_batch_size and not order.keep_last:
        return
    shares = list(order.shares(epoch, 0, 1))
    seen = np.concatenate([share.draws[share.weights == 1] for share in shares])
    assert len(seen) == len(set(seen))
    if order.keep_last:
        assert sorted(seen) == list(range(order.rows))
    else:
        assert len(seen) == order.rows // order.global_batch_size * order.global_batch_size
    assert [int(share.weights.sum()) for share in shares] == [
        order.samples_of(step) for step in range(order.steps)
    ]


@pytest.mark.slow
@given(
    rows=st.integers(2, 400),
    share=st.integers(1, 6),
    world_size=st.integers(1, 16),
    blocks=st.booleans(),
    keep_last=st.booleans(),
    epoch=st.integers(0, 5),
    data=st.data(),
)
def test_every_world_size_and_resume_point_trains_on_the_same_steps(
    rows: int,
    share: int,
    world_size: int,
    blocks: bool,
    keep_last: bool,
    epoch: int,
    data: st.DataObject,
) -> None:
    order = Order(rows, share * world_size, 7, blocks, keep_last)
    if rows < order.global_batch_size and not keep_last:
        return
    first = data.draw(st.integers(0, order.steps - 1))
    alone = list(order.shares(epoch, 0, 1))
    ranks = [list(order.shares(epoch, rank, world_size, first)) for rank in range(world_size)]
    for step, parts in enumerate(zip(*ranks, strict=True), start=first):
        assert {len(part.draws) for part in parts} == {share}
        together = np.concatenate([part.draws[part.weights == 1] for part in parts])
        np.testing.assert_array_equal(together, alone[step].draws[alone[step].weights == 1])


class Watched(Order):
    """Knows which thread made which epoch's sequence."""

    def sequence(self, epoch: int) -> np.ndarray:
        if epoch == 3:
            raise ZeroDivisionError("on purpose")
        self.__dict__.setdefault("made", []).append((epoch, threading.current_thread()))
        return super().sequence(epoch)


def test_the_next_epochs_sequence_is_made_by_another_thread() -> None:
    order = Watched(1000, 10, seed=3)
    before = set(threading.enumerate())
    found = [[share.draws.tolist() for share in order.shares(epoch, 0, 1)] for epoch in (0, 1)]

    here = threading.current_thread()
    assert [(epoch, thread is here) for epoch, thread in order.__dict__["made"]] == [
        (0, True),
        (1, False),
        (2, False),
    ]
    assert set(threading.enumerate()) == before
    for epoch in (0, 1):
        plain = Order(1000, 10, seed=3)
        sequence = plain.sequence(epoch)
        assert found[epoch] == [plain.step(sequence, step).tolist() for step in range(100)]

    # What was made for another epoch is not taken, and not kept.
    list(order.shares(0, 0, 1))
    assert list(order._made_ahead) == [1]
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        list(order.shares(2, 0, 1))
    assert set(threading.enumerate()) == before


def test_an_epoch_that_is_left_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    shares = Order(1000, 10).shares(0, 0, 1)
    next(shares)
    shares.close()
    assert set(threading.enumerate()) == before


@given(
    order=orders.filter(lambda order: order.keep_last or order.rows >= order.global_batch_size),
    first=st.integers(0, 5),
)
def test_what_is_read_ahead_is_what_will_be_needed_once(order: Order, first: int) -> None:
    first = min(first, order.steps - 1)
    shares = list(order.shares(0, 0, 1, first))
    ahead = np.concatenate([share.ahead for share in shares])
    needed = np.concatenate([share.draws for share in shares])
    assert sorted(ahead) == (sorted(needed) if order.blocks else [])


@settings(deadline=None)
@given(
    lenses=st.integers(1, 40),
    others=st.integers(1, 400),
    blocks=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_oversampling_repeats_the_rarer_class_evenly(
    lenses: int, others: int, blocks: bool, epoch: int
) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([1, 0], [lenses, others]))
    order = Order(len(labels), 1, 3, blocks, labels=labels)
    draws = order.sequence(epoch)
    assert len(draws) == len(set(draws)) == order.samples == 2 * max(lenses, others)
    rows, times = np.unique(draws % order.rows, return_counts=True)
    assert len(rows) == len(labels)
    assert times[labels == 1].sum() == times[labels == 0].sum()
    for label in (0, 1):
        assert np.ptp(times[labels == label]) <= 1
    np.testing.assert_array_equal(
        draws, Order(len(labels), 1, 3, blocks, labels=labels).sequence(epoch)
    )


def test_blocks_are_mixed_within_windows_and_full_is_mixed_throughout() -> None:
    rows = 10 * WINDOW_ROWS
    full, blocks = (Order(rows, 256, 0, way).sequence(0) for way in (False, True))
    window = blocks[:WINDOW_ROWS]
    assert len(np.unique(window // RUN_ROWS)) == WINDOW_ROWS // RUN_ROWS  # whole runs
    assert np.ptp(window) > rows / 2  # from all over the split
    assert abs(np.corrcoef(np.arange(len(window)), window)[0, 1]) < 0.1  # and mixed
    assert len(np.unique(full[:WINDOW_ROWS] // RUN_ROWS)) > 0.95 * rows / RUN_ROWS


def test_a_rank_reads_its_part_of_the_dataset() -> None:
    order = Order(100_000, 512, 0)
    for share in list(order.shares(0, 3, 4))[:20]:
        assert share.draws.min() > 0.6 * order.rows


@given(rows=st.integers(0, 200), batch_size=st.integers(1, 33), world_size=st.integers(1, 9))
def test_every_row_is_scored_once(rows: int, batch_size: int, world_size: int) -> None:
    ranks = [list(scoring_shares(rows, batch_size, rank, world_size)) for rank in range(world_size)]
    seen = np.concatenate(
        [np.empty(0, int), *(share.draws for shares in ranks for share in shares)]
    )
    assert sorted(seen) == list(range(rows))

    batches = {tuple(share.draws) for shares in ranks for share in shares}
    assert batches == {tuple(share.draws) for share in scoring_shares(rows, batch_size, 0, 1)}
    assert scoring_steps(rows, batch_size, world_size) == max(len(shares) for shares in ranks)


def test_epochs_and_seeds_differ() -> None:
    sequences = {
        tuple(Order(50, 1, seed).sequence(epoch)) for seed in range(3) for epoch in range(3)
    }
    assert len(sequences) == 9


def test_a_batch_that_does_not_divide_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        UserError, match="64 cannot be shared evenly by 3 processes; choose 63 or 66"
    ):
        share_of_step(64, 3)
    with pytest.raises(UserError, match=r"choose 4$"):
        share_of_step(3, 4)


def test_micro_batches_share_out_a_step() -> None:
    assert micro_batches(64, 2, None) == (32, 1)
    assert micro_batches(64, 2, 8) == (8, 4)
    assert micro_batches(64, 2, 100) == (32, 1)
    with pytest.raises(UserError, match=r"micro_batch_size = 5: .* choose 4 or 8$"):
        micro_batches(64, 2, 5)


def test_micro_batches_have_all_samples_of_a_share_in_order() -> None:
    draws = np.arange(6)
    weights = np.array([1, 1, 1, 1, 0, 0], dtype=np.float32)
    parts = list(Share(draws, weights, ahead=np.array([7, 8])).split(3))
    assert [part.draws.tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]
    assert [part.weights.tolist() for part in parts] == [[1, 1], [1, 1], [0, 0]]
    assert [part.ahead.tolist() for part in parts] == [[7, 8], [], []]


def test_a_batch_larger_than_the_split_is_refused() -> None:
    with pytest.raises(UserError, match="an epoch has only 10 samples"):
        _ = Order(10, 11).steps
    assert Order(10, 11, keep_last=True).steps == 1
