"""What this process may use of its machine: cores and memory.

In a job or a container that is less than the machine has.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def usable_cpus() -> int:
    """Return the number of cores that this process may use, at least 1.

    The processes of one launcher on one node share them.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    on_node = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, int(min(allowed, _smallest_limit("cpu", _cores_of)) / on_node))


def usable_memory() -> int:
    """Return the memory, in bytes, that this process may use together with all beside it."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(min(installed, _smallest_limit("memory", _bytes_of)))


def _smallest_limit(controller: str, limit_of: Callable[[Path], float]) -> float:
    """Return what Linux allows this process's control groups; infinity where it says nothing.

    Groups are nested, and each may limit what is within it: the smallest limit counts.
    """
    if not OWN_CGROUPS.is_file():
        return math.inf

    limits = [math.inf]
    for line in OWN_CGROUPS.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        # Version 2 has one tree for all controllers, version 1 has one for each.
        if not controllers:
            group = CGROUPS / path.lstrip("/")
        elif controller in controllers.split(","):
            group = CGROUPS / controller / path.lstrip("/")
        else:
            continue
        limits += [limit_of(folder) for folder in (group, *group.parents)]
    return min(limits)


def _cores_of(group: Path) -> float:
    """Return the processor time that one control group allows, in cores."""
    new, old = group / "cpu.max", group / "cpu.cfs_quota_us"
    if new.is_file():
        quota, period = new.read_text(encoding="utf-8").split()
    elif old.is_file():
        quota = old.read_text(encoding="utf-8").strip()
        period = (group / "cpu.cfs_period_us").read_text(encoding="utf-8").strip()
    else:
        return math.inf
    return math.inf if quota in {"max", "-1"} else int(quota) / int(period)


def _bytes_of(group: Path) -> float:
    """Return the memory that one control group allows, in bytes."""
    for file in (group / "memory.max", group / "memory.limit_in_bytes"):
        if file.is_file():
            limit = file.read_text(encoding="utf-8").strip()
            return math.inf if limit == "max" else int(limit)
    return math.inf
