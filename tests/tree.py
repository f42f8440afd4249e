"""A copy of the repository's files, as a clone would have them, and an empty environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def copy_tree(folder: Path) -> Path:
    """Copy what belongs to the repository, also what was not committed yet, into a new folder."""
    listing = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def bare_environment(home: Path) -> dict[str, str]:
    """Return what `env -i` leaves, with an empty HOME and a PATH that has this Python.

    Where this machine says by PIP_... how pip reaches its packages, that is kept.
    """
    home.mkdir()
    python = Path(sys.base_prefix) / "bin"
    of_pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    path = os.pathsep.join((str(python), "/usr/bin", "/bin"))
    return {"HOME": str(home), "PATH": path, **of_pip}
