from pathlib import Path

import pytest

from lens_hpc.grading.grading_folder import Grading
from tests.grading.gradings import make_grading


@pytest.fixture(scope="session")
def grading_once(tmp_path_factory: pytest.TempPathFactory) -> Grading:
    """40 candidates, 10 of them random ones, and 10 hidden galaxies; not to be changed."""
    return make_grading(tmp_path_factory.mktemp("grading"))


@pytest.fixture(scope="session")
def made(grading_once: Grading) -> Path:
    """The folder with candidates, hidden and grading; not to be changed."""
    return grading_once.folder.parent
