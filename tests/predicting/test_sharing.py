"""Every part has one worker, and no worker much more than another."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lens_hpc.predicting.sharing import share_out


@given(st.lists(st.integers(0, 1000), max_size=40), st.integers(1, 9))
def test_each_part_has_one_worker_and_the_load_is_even(objects: list[int], workers: int) -> None:
    shares = share_out(objects, workers)
    assert len(shares) == workers
    assert sorted(part for share in shares for part in share) == list(range(len(objects)))

    # Whoever has most got the last part when all others had at least as much already.
    loads = [sum(objects[part] for part in share) for share in shares]
    busiest = max(range(workers), key=lambda worker: loads[worker])
    if shares[busiest]:
        smallest = min(objects[part] for part in shares[busiest])
        assert loads[busiest] - smallest <= np.mean(loads) + 1e-9
