import numpy as np

from lens_hpc.loading.random_numbers import normals, uniforms


def test_uniforms_are_uniform_and_independent() -> None:
    numbers = uniforms(3, 1, np.arange(4000), 6).numpy()
    assert numbers.min() >= 0
    assert numbers.max() < 1

    counts = np.stack([np.histogram(column, 20, (0, 1))[0] for column in numbers.T])
    chi_squared = ((counts - 200) ** 2 / 200).sum(axis=1)
    assert chi_squared.max() < 50  # of 19 degrees of freedom

    assert abs(np.corrcoef(numbers.T) - np.eye(6)).max() < 0.06
    assert abs(np.corrcoef(numbers[:-1, 0], numbers[1:, 0])[0, 1]) < 0.06


def test_epochs_seeds_and_streams_are_independent() -> None:
    draws = np.arange(4000)
    numbers = uniforms(3, 1, draws, 1).numpy()[:, 0]
    for seed, epoch, stream in ((3, 2, 0), (4, 1, 0), (1, 3, 0), (3, 1, 1)):
        others = uniforms(seed, epoch, draws, 1, stream).numpy()[:, 0]
        assert abs(np.corrcoef(numbers, others)[0, 1]) < 0.06


def test_the_numbers_of_a_draw_do_not_depend_on_those_asked_for_with_it() -> None:
    draws = np.arange(50)
    expected = uniforms(3, 1, draws, 6).numpy()
    np.testing.assert_array_equal(uniforms(3, 1, draws[[9, 3]], 6).numpy(), expected[[9, 3]])
    np.testing.assert_array_equal(uniforms(3, 1, draws, 2).numpy(), expected[:, :2])


def test_numbers_are_as_they_were() -> None:
    """A run that goes on under a newer version must see the same augmentation."""
    numbers = uniforms(3, 1, np.array([7]), 3, 1)[0].tolist()
    assert numbers == [0.11901465724648164, 0.9642838956246229, 0.7415789186972258]
    numbers = normals(3, 1, np.array([7]), 3)[0]
    np.testing.assert_allclose(numbers, [0.028473, -0.130506, 0.733661], atol=1e-6)


def test_normals_are_normal_and_independent() -> None:
    numbers = normals(3, 1, np.arange(20_000), 3).numpy()
    assert abs(numbers.mean(axis=0)).max() < 0.03
    np.testing.assert_allclose(numbers.std(axis=0), 1, atol=0.02)
    np.testing.assert_allclose((numbers**4).mean(axis=0), 3, atol=0.25)
    assert abs(np.corrcoef(numbers.T) - np.eye(3)).max() < 0.03
