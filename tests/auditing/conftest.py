import pytest

from tests.auditing.planted import PlantedSurvey


@pytest.fixture
def planted() -> PlantedSurvey:
    return PlantedSurvey()
