from tests.training.conftest import training  # noqa: F401 - a fixture
