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
    "lens_hpc", "torch", "timm", "albumentations", "accelerate", "deepspeed", "h5py", "numpy", "pandas", "scikit-learn",
)  # fmt: skip


def describe(accelerator: Accelerator) -> dict[str, Any]:
    """Command, versions, git commit, devices and topology. All processes must call it."""
    return {
        "command": sys.argv,
        "launcher": {name: value for name, value in os.environ.items() if name.startswith(("ACCELERATE_", "OMP_"))},
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := package_version(name))},
        "device": device_name(accelerator.device),
        "processes": accelerator.num_processes,
        "topology": gather_object([f"rank {accelerator.process_index}: {platform.node()} {accelerator.device}"]),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def package_version(name: str) -> str | None:
    """None when it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """Commit of the code that runs, with a + when it was changed since; None outside a repository."""
    where = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run(
            [*where, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run([*where, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + "+" * bool(changed.stdout)


def device_name(device: torch.device) -> str:
    """As its maker calls it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
