"""What a report says of selection functions, as lens-hpc completeness has written them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lens_hpc import layout
from lens_hpc.dataset.shards import file_crc32
from lens_hpc.logs import logger
from lens_hpc.model.trained import TrainedModel


def read_selections(
    run: Path, members: Sequence[TrainedModel], as_uri: Callable[[str], str]
) -> list[dict[str, Any]]:
    """Return what completeness.json says of each selection function that these models made.

    The `pictures` of each are what `as_uri` makes of its figures, SVG by name. One of other weights
    is left out with a warning, as is one that is damaged.
    """
    weights = [file_crc32(member.folder / layout.WEIGHTS) for member in members]
    folder = layout.completeness_folder(run, "")
    selections = []
    for file in sorted(folder.glob(f"[!.]*/{layout.COMPLETENESS}")):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            if [model["crc32"] for model in record["models"]] != weights:
                logger.warning("%s: is of other weights, and not in the report", file.parent)
                continue
            drawn = file.parent / layout.FIGURES
            pictures = {
                name: as_uri((drawn / f"{name}.svg").read_text(encoding="utf-8"))
                for name in record["captions"]
            }
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            logger.warning("%s: is damaged (%s), and not in the report", file, error)
            continue
        selections.append(record | {"folder": file.parent, "pictures": pictures})
    return selections
