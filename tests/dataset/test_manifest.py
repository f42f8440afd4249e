import json
from pathlib import Path

import pytest

from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError


def test_a_damaged_or_newer_manifest_is_named(dataset: Path) -> None:
    file = dataset / "manifest.json"
    tree = json.loads(file.read_text())
    file.write_text(json.dumps(tree | {"schema_version": 99}))
    with pytest.raises(UserError, match="schema version 99"):
        read_manifest(dataset)
    file.write_text(file.read_text()[:50])
    with pytest.raises(UserError, match=r"manifest\.json: is damaged"):
        read_manifest(dataset)


def test_a_folder_without_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a packed dataset"):
        Split(tmp_path, "train")
