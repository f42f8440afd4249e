import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lens_hpc._version import __version__
from lens_hpc.training import environment
from lens_hpc.training.accelerator import accelerator_session
from lens_hpc.training.environment import describe_environment


def test_it_tells_what_ran_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with accelerator_session() as accelerator:
        described = describe_environment(accelerator)
    assert described["command"] == sys.argv
    assert described["launcher"]["ACCELERATE_MIXED_PRECISION"] == "no"
    assert torch.__version__.startswith(described["packages"]["torch"])
    assert described["processes"] == 1
    assert described["topology"][0].startswith("rank 0: ")
    assert described["slurm_job"] == "17"
    json.dumps(described)


def test_a_package_that_is_not_there_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PACKAGES", ("lens_hpc", "no_such_package"))
    assert list(environment.package_versions()) == ["lens_hpc"]
    assert __version__


def test_the_commit_has_a_plus_when_the_code_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "environment.py"
    file.write_text("first")
    monkeypatch.setattr(environment, "__file__", str(file))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment.git_commit() is None

    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    commit = environment.git_commit()
    assert commit is not None
    assert len(commit) == 40
    file.write_text("changed")
    assert environment.git_commit() == f"{commit}+"


def test_a_device_has_a_name() -> None:
    assert environment.device_name(torch.device("cpu")) == "cpu"
