import numpy as np

from lens_hpc.selection.grid import TrialGrid, draw_trials

GRID = TrialGrid((0.5, 1.0, 2.0), (22.0, 23.0, 24.0, 25.0))


def test_a_cell_has_each_host_at_most_once_and_values_between_its_edges() -> None:
    trials = draw_trials(GRID, host_count=30, trials=25, seed=3)
    assert len(trials.host) == 25 * 6
    for row in range(2):
        for column in range(3):
            chosen = (trials.radius_cell == row) & (trials.magnitude_cell == column)
            assert len(set(trials.host[chosen].tolist())) == chosen.sum() == 25
            radii, magnitudes = trials.einstein_radius[chosen], trials.source_magnitude[chosen]
            assert GRID.einstein_radius[row] <= radii.min()
            assert radii.max() < GRID.einstein_radius[row + 1]
            assert GRID.source_magnitude[column] <= magnitudes.min()
            assert magnitudes.max() < GRID.source_magnitude[column + 1]
    assert trials.host.max() < 30


def test_where_there_are_fewer_hosts_each_has_one() -> None:
    trials = draw_trials(GRID, host_count=7, trials=25, seed=3)
    assert np.bincount(trials.host).tolist() == [6] * 7


def test_a_cell_does_not_depend_on_how_many_others_there_are() -> None:
    wider = TrialGrid((0.5, 1.0, 2.0, 3.0), (22.0, 23.0, 24.0, 25.0))
    few = draw_trials(GRID, host_count=30, trials=5, seed=3)
    many = draw_trials(wider, host_count=30, trials=5, seed=3)
    for one, other in zip(few, many, strict=True):
        np.testing.assert_array_equal(one, other[: len(one)])
    again = draw_trials(GRID, host_count=30, trials=5, seed=4)
    assert not np.array_equal(few.einstein_radius, again.einstein_radius)
