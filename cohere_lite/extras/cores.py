"""How many cores this process may keep busy: fewer than the machine has under an affinity mask or a quota."""

import math
import os
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


def available_cores() -> int:
    """Physical cores that this process may use: those of its affinity mask, and no more than its cgroup's quota of
    processor time, rounded up. Hardware threads of a core count once: they share the units that do the products.

    Outside of Linux 0, which tells onnxruntime to count the machine's physical cores itself."""
    if not hasattr(os, "sched_getaffinity"):  # Windows, macOS
        return 0
    cores = {_siblings(cpu) for cpu in os.sched_getaffinity(0)}
    return max(1, math.ceil(min(len(cores), _cgroup_quota())))


def _siblings(cpu: int) -> str:
    """The hardware threads of this one's core, as the kernel lists them; without a list, the thread alone."""
    try:
        return (_CPUS / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _cgroup_quota() -> float:
    """Cores' worth of processor time that the cgroups (version 2) around this process allow; infinite without a
    limit."""
    try:
        lines = (_PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "")
    # In a container the path may be the host's; the container's own limit is then at the root.
    folder = _CGROUP / path.lstrip("/")
    return min(_quota(level) for level in (folder, *folder.parents) if level.is_relative_to(_CGROUP))


def _quota(folder: Path) -> float:
    """cpu.max: "max 100000", or "150000 100000" for one and a half cores."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
