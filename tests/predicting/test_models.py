"""Which models score a survey, and what is noted of them."""

import json
from pathlib import Path

from safetensors.numpy import load_file, save_file

from lens_hpc.layout import BEST, WEIGHTS
from lens_hpc.predicting.models import load_models
from tests.predicting.small_runs import make_run

FACTS = {name: str(number) for number, name in enumerate("abcdefgh")}


def test_what_is_noted_of_a_model_is_the_same_in_every_process(
    packed_once: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", packed_once)
    weights = run / BEST / WEIGHTS
    save_file(load_file(weights), weights, metadata=FACTS | {"step": "1"})

    noted = set()
    for _ in range(6):
        models = load_models([run], BEST, code=(), prevalence=None)
        noted.add(json.dumps(models.describe()))
    assert len(noted) == 1
