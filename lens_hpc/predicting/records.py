"""What a prediction notes of itself: models, recipe and settings, before anything is scored."""

import json
from pathlib import Path
from typing import Any

from lens_hpc import files, layout
from lens_hpc._version import __version__
from lens_hpc.errors import UserError
from lens_hpc.packing.plan import recipe_of
from lens_hpc.packing.recipe import PackSettings
from lens_hpc.predicting.models import Models
from lens_hpc.predicting.predict_settings import PredictSettings

DECIDING = ("prevalence", "tta", "batch_size", "tile_memory")
"""Settings of which every score is a function, besides models and recipe."""
LONGEST_SHOWN = 80


def describe_prediction(
    settings: PredictSettings,
    models: Models,
    recipe: PackSettings | None,
    survey: str,
    differences: list[str],
) -> dict[str, Any]:
    """Return what prediction.json says: of what all scores are a function, and by what version."""
    record = {name: getattr(settings, name) for name in DECIDING}
    return {
        "version": __version__,
        "survey": survey,
        "models": models.describe(),
        **record,
        "recipe": None if recipe is None else recipe_of(recipe),
        "unlike_training": differences,
    }


def check_output(output: Path, record: dict[str, Any]) -> None:
    """Raise UserError where the output holds another prediction, or something else."""
    file = output / layout.PREDICTION
    if not file.is_file():
        _check_not_foreign(output)
        return

    try:
        before = deciding(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{file}: is damaged ({error}); name another output, or remove this one"
        ) from error

    # As JSON reads it back.
    now = deciding(json.loads(json.dumps(record)))
    changed = [key for key in now if before[key] != now[key]]
    if changed:
        listed = "; ".join(f"{key}: {_shown(before[key])} there" for key in changed)
        raise UserError(
            f"output = {output}: was begun with another {', '.join(changed)}, and scores of both "
            f"cannot be mixed; name another folder ({listed})"
        )


def _check_not_foreign(output: Path) -> None:
    """Raise UserError where a folder without a record holds what no prediction leaves there."""
    if not output.exists():
        return
    is_foreign = not output.is_dir() or bool(files.names_in(output) - {layout.PREDICTION})

    # Another task may have begun the prediction meanwhile.
    if is_foreign and not (output / layout.PREDICTION).is_file():
        raise UserError(
            f"output = {output}: holds something else than a prediction; name another folder"
        )


def deciding(record: dict[str, Any]) -> dict[str, Any]:
    """Return what scores are a function of. Models may have been copied to another place."""
    deciding = {key: record[key] for key in (*DECIDING, "recipe")}
    deciding["model"] = [model["crc32"] for model in record["models"]]
    return deciding


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."


def begin_output(output: Path, record: dict[str, Any]) -> None:
    """Make the folder of a prediction, unless it is there already. The record comes first."""
    check_output(output, record)
    files.make_folder(output)
    if not (output / layout.PREDICTION).is_file():
        files.write_text(output / layout.PREDICTION, json.dumps(record, indent=1) + "\n")
    files.make_folder(output / layout.SCORES)
