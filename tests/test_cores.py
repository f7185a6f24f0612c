"""Cores that this process may use, on trees of files that look like the kernel's."""

import os
from pathlib import Path

import pytest

from cohere_lite import session
from cohere_lite.extras import cores

needs_linux = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="reads Linux's files")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four cores of two hardware threads each, no cgroups."""
    for cpu in range(8):
        write(tmp_path, f"cpu/cpu{cpu}/topology/thread_siblings_list", f"{cpu % 4},{cpu % 4 + 4}\n")
    for name, place in (("cpu", "_CPUS"), ("cgroup", "_CGROUP"), ("proc", "_PROC")):
        monkeypatch.setattr(cores, place, tmp_path / name)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    return tmp_path


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@needs_linux
def test_hardware_threads_of_a_core_count_once(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cores.available_cores() == 4
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 4, 5})  # both threads of core 0, one of core 1
    assert cores.available_cores() == 2


@needs_linux
def test_without_a_topology_every_cpu_is_a_core(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_CPUS", system / "nowhere")
    assert cores.available_cores() == 8


@needs_linux
@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max 100000", 4), ("250000 100000", 3), ("200000 100000", 2), ("50000 100000", 1), ("nonsense", 4), ("1 0", 4)],
)
def test_quota_of_a_cgroup(system: Path, limit: str, expected: int) -> None:
    """By hand: 250 ms of processor time in 100 ms are two and a half cores, rounded up."""
    write(system, "proc/self/cgroup", "0::/service/worker\n")
    write(system, "cgroup/service/worker/cpu.max", f"{limit}\n")
    assert cores.available_cores() == expected


@needs_linux
def test_the_tightest_quota_around_the_process_counts(system: Path) -> None:
    write(system, "proc/self/cgroup", "1:name=systemd:/other\n0::/service/worker\n")
    write(system, "cgroup/service/cpu.max", "200000 100000\n")
    write(system, "cgroup/service/worker/cpu.max", "max 100000\n")
    assert cores.available_cores() == 2


@needs_linux
def test_quota_in_a_container_that_shows_the_hosts_path(system: Path) -> None:
    write(system, "proc/self/cgroup", "0::/docker/0123\n")
    write(system, "cgroup/cpu.max", "100000 100000\n")
    assert cores.available_cores() == 1


def test_outside_of_linux_onnxruntime_counts_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 is its default: one thread per physical core. os.cpu_count() would be logical processors."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cores.available_cores() == 0
    assert session.session_options(None, True, False).intra_op_num_threads == 0
