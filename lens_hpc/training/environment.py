"""What ran where: for environment.json."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

PACKAGES = (
    "lens_hpc",
    "torch",
    "timm",
    "albumentations",
    "accelerate",
    "deepspeed",
    "h5py",
    "numpy",
    "pandas",
    "scikit-learn",
)
LAUNCHER_PREFIXES = ("ACCELERATE_", "OMP_")


def describe_environment(accelerator: Accelerator) -> dict[str, Any]:
    """Return command, versions, git commit, devices and topology. All processes must call it."""
    rank = accelerator.process_index
    where = f"rank {rank}: {platform.node()} {accelerator.device}"
    return {
        "command": sys.argv,
        "launcher": launcher_variables(),
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "packages": package_versions(),
        "device": device_name(accelerator.device),
        "processes": accelerator.num_processes,
        "topology": gather_object([where]),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def launcher_variables() -> dict[str, str]:
    """Return the environment variables that a launcher sets."""
    return {name: value for name, value in os.environ.items() if name.startswith(LAUNCHER_PREFIXES)}


def package_versions() -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def git_commit() -> str | None:
    """Return the commit of the code that runs, with a + when it was changed since.

    None outside a repository.
    """
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = _output([*git, "rev-parse", "HEAD"]).strip()
        changed = _output([*git, "status", "--porcelain", "-uno"])
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}+" if changed else commit


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def device_name(device: torch.device) -> str:
    """Return a device's name as its maker calls it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
