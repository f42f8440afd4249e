"""What a reader of a report wants to know of a run and its data, before any number.

What nobody knows, as of runs of earlier versions, is left out.
"""

import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from lens_hpc import config, layout
from lens_hpc._version import __version__
from lens_hpc.dataset.manifest import Manifest
from lens_hpc.dataset.split import Split
from lens_hpc.logs import logger
from lens_hpc.model.trained import TrainedModel
from lens_hpc.training.best import TITLES
from lens_hpc.training.environment import git_commit

FEATURES_NAMED = 12
COMMIT_LENGTH = 10
INPUTS = {
    "fusion": "image and catalogue features",
    "image": "image alone",
    "features": "catalogue features alone",
}


class Fact(NamedTuple):
    """A line of the report's head."""

    name: str
    value: str
    is_code: bool = False


def gather_facts(run: Path, members: Sequence[TrainedModel], split: Split) -> list[Fact]:
    """Return what is known of a run, its models and the dataset that they scored."""
    facts = [Fact("run", str(run))]
    facts += _describe_data(split)
    if members:
        facts += _describe_models(members, split.manifest)
    facts += _describe_training(_read_environment(run))
    facts += _describe_today()
    # Commands take a whole line each.
    return sorted(facts, key=lambda fact: fact.is_code)


def _describe_data(split: Split) -> Iterator[Fact]:
    """Yield what the dataset is."""
    manifest = split.manifest
    rows = sum(record.rows for record in manifest.splits.values())
    parts = ", ".join(f"{name} {record.rows:,}" for name, record in manifest.splits.items())
    yield Fact("dataset", f"{manifest.name}: {rows:,} rows ({parts})")

    width = manifest.width * manifest.pixel_scale_arcsec
    yield Fact(
        "cutouts",
        f"{', '.join(manifest.bands)}; {manifest.height} x {manifest.width} pixels of "
        f"{manifest.pixel_scale_arcsec:g} arcsec, {width:.3g} arcsec wide",
    )
    yield Fact("features", _shorten(manifest.features) or "none")


def _shorten(names: Sequence[str]) -> str:
    more = f" and {len(names) - FEATURES_NAMED} more" if len(names) > FEATURES_NAMED else ""
    return ", ".join(names[:FEATURES_NAMED]) + more


def _describe_models(members: Sequence[TrainedModel], scored: Manifest) -> Iterator[Fact]:
    """Yield what was trained, on what, and how long: of an ensemble, that of the first.

    Each of an ensemble has its own seed and its own weights.
    """
    first = members[0]
    train = first.settings.train
    yield Fact("model", _name_model(first.settings.model))
    if first.manifest.name != scored.name:
        yield Fact("training data", first.manifest.name)
    yield Fact("training", f"{train.epochs} epochs, {train.global_batch_size} cutouts a step")

    if all("epoch" in member.facts for member in members):
        epochs = ", ".join(member.facts["epoch"] for member in members)
        which = first.folder.name
        if which == layout.BEST:
            which = f"best validation {TITLES[train.best]}"
        yield Fact("weights", f"{which}, of epoch {epochs} of {train.epochs}")
    yield Fact("seed", ", ".join(str(member.settings.train.seed) for member in members))


def _name_model(model: config.Model) -> str:
    inputs = INPUTS[model.inputs]
    if model.name != "fusion":
        return f"{model.name}, {inputs}"
    return inputs if model.inputs == "features" else f"{inputs}, backbone {model.backbone}"


# ---- what ran ----


def _describe_training(environment: dict[str, Any]) -> Iterator[Fact]:
    """Yield what the run keeps of the command and the code that trained it."""
    command = environment.get("command")
    if isinstance(command, list) and command:
        yield Fact("trained by", shown_command([str(word) for word in command]), is_code=True)

    packages = environment.get("packages")
    version = packages.get("lens_hpc") if isinstance(packages, dict) else None
    if isinstance(version, str):
        yield Fact("trained with", _name_code(version, environment.get("git_commit")))
    processes, device = environment.get("processes"), environment.get("device")
    if isinstance(processes, int) and isinstance(device, str):
        yield Fact("trained on", f"{processes} x {device}")


def _describe_today() -> Iterator[Fact]:
    """Yield when and by what the run is evaluated."""
    yield Fact("evaluated", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    # In a notebook, the command is that of the notebook.
    if sys.argv[1:2] == ["evaluate"]:
        yield Fact("evaluated by", shown_command(sys.argv), is_code=True)
    yield Fact("evaluated with", _name_code(__version__, git_commit()))


def shown_command(command: Sequence[str]) -> str:
    """Return a command line as a user would write it."""
    program = Path(command[0])
    if program.name == "__main__.py":
        words = ["python", "-m", program.parent.name]
    else:
        words = [program.name]
    return shlex.join([*words, *command[1:]])


def _name_code(version: str, commit: object) -> str:
    """Return a version and, where it is known, a commit."""
    if not isinstance(commit, str):
        return f"lens_hpc {version}"
    changed = " and changes" if commit.endswith("+") else ""
    return f"lens_hpc {version}, commit {commit[:COMMIT_LENGTH]}{changed}"


def _read_environment(run: Path) -> dict[str, Any]:
    """Return what a run keeps of where it was trained; nothing, with a warning, if damaged."""
    file = run / layout.ENVIRONMENT
    if not file.is_file():
        return {}
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        logger.warning("%s is damaged (%s): the report does not say what trained it", file, error)
        return {}
    return tree if isinstance(tree, dict) else {}
