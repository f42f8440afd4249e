import numpy as np
import pytest

from lens_hpc.dataset.sample import resolve_rows


def test_rows_are_resolved_as_numpy_does() -> None:
    rows = np.arange(10)
    for chosen in ([3, -1, 0], np.array([-10, 9]), rows % 3 == 0, [True] * 10):
        np.testing.assert_array_equal(resolve_rows(chosen, 10), rows[chosen])
    assert resolve_rows([], 10).dtype == np.int64


@pytest.mark.parametrize("chosen", [[10], [-11], [[1, 2]], [True, False]])
def test_what_is_beyond_the_rows_is_an_index_error(chosen: list) -> None:
    with pytest.raises(IndexError):
        resolve_rows(chosen, 10)


@pytest.mark.parametrize("chosen", [[1.5], ["a"]])
def test_what_is_no_number_is_a_type_error(chosen: list) -> None:
    with pytest.raises(TypeError, match="rows are chosen by numbers"):
        resolve_rows(chosen, 10)
