"""onnxruntime, without its telemetry: the one place where it is imported.

Since 1.29 its packages send events to their maker and keep an identifier in the user's cache, on Linux and macOS too,
unless this variable is set before the first import (its Privacy.md). What somebody sets it to is left alone.
"""

import math
import os
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort  # noqa: F401
from onnxruntime import OrtValue  # noqa: F401

_CPUS = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


def available_cores() -> int:
    """Physical cores that this process may use, at least 1: those of its affinity mask, hardware threads of one core
    counted once (two of them share the units that do the products), and no more than its cgroup's quota of processor
    time, rounded up."""
    if not hasattr(os, "sched_getaffinity"):  # Windows, macOS
        return os.cpu_count() or 1
    cpus = os.sched_getaffinity(0)
    cores = {_siblings(cpu) for cpu in cpus}
    return max(1, math.ceil(min(len(cores), _cgroup_quota())))


def _siblings(cpu: int) -> str:
    """The hardware threads of this one's core, as the kernel lists them; without a list, the thread alone."""
    try:
        return (_CPUS / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _cgroup_quota() -> float:
    """Cores' worth of processor time that the cgroups around this process allow; infinite without a limit."""
    quotas = [math.inf]
    try:
        lines = (_PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2: "max 100000" or "150000 100000", at every level
            root, read = _CGROUP, _quota_v2
        elif "cpu" in controllers.split(","):
            root, read = _CGROUP / "cpu", _quota_v1
        else:
            continue
        # In a container the path may be the host's; the container's own limit is then at the root.
        folder = root / path.lstrip("/")
        quotas += [read(level) for level in (folder, *folder.parents) if level.is_relative_to(root)]
    return min(quotas)


def _quota_v2(folder: Path) -> float:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def _quota_v1(folder: Path) -> float:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return math.inf if quota <= 0 else quota / period
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
