"""Cores and processor, on trees of files that look like the kernel's."""

import os
from pathlib import Path

import pytest

from cohere_lite import session as machine

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="reads Linux's files")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four cores of two hardware threads each, no cgroups."""
    for cpu in range(8):
        write(tmp_path, f"cpu/cpu{cpu}/topology/thread_siblings_list", f"{cpu % 4},{cpu % 4 + 4}\n")
    for name in ("cpu", "cgroup", "proc"):
        monkeypatch.setattr(machine, {"cpu": "_CPUS", "cgroup": "_CGROUP", "proc": "_PROC"}[name], tmp_path / name)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    return tmp_path


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_hardware_threads_of_a_core_count_once(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.available_cores() == 4
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 4, 5})  # both threads of core 0, one of core 1
    assert machine.available_cores() == 2


def test_without_a_topology_every_cpu_is_a_core(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CPUS", system / "nowhere")
    assert machine.available_cores() == 8


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("max 100000", 4), ("250000 100000", 3), ("200000 100000", 2), ("50000 100000", 1), ("nonsense", 4), ("1 0", 4)],
)
def test_quota_of_a_cgroup(system: Path, limit: str, cores: int) -> None:
    """By hand: 250 ms of processor time in 100 ms are two and a half cores, rounded up."""
    write(system, "proc/self/cgroup", "0::/service/worker\n")
    write(system, "cgroup/service/worker/cpu.max", f"{limit}\n")
    assert machine.available_cores() == cores


def test_the_tightest_quota_around_the_process_counts(system: Path) -> None:
    write(system, "proc/self/cgroup", "0::/service/worker\n")
    write(system, "cgroup/service/cpu.max", "200000 100000\n")
    write(system, "cgroup/service/worker/cpu.max", "max 100000\n")
    assert machine.available_cores() == 2


def test_quota_in_a_container_that_shows_the_hosts_path(system: Path) -> None:
    write(system, "proc/self/cgroup", "0::/docker/0123\n")
    write(system, "cgroup/cpu.max", "100000 100000\n")
    assert machine.available_cores() == 1


@pytest.mark.parametrize(("quota", "cores"), [("-1", 4), ("150000", 2)])
def test_quota_of_the_first_version_of_cgroups(system: Path, quota: str, cores: int) -> None:
    write(system, "proc/self/cgroup", "3:cpu,cpuacct:/service\n2:memory:/other\n")
    write(system, "cgroup/cpu/service/cpu.cfs_quota_us", quota)
    write(system, "cgroup/cpu/service/cpu.cfs_period_us", "100000")
    assert machine.available_cores() == cores


def test_processor_names_the_instruction_sets(system: Path) -> None:
    info = "processor : {}\nmodel name : Some CPU\ncpu MHz : {}\nflags : fpu avx2{}\n"
    write(system, "proc/cpuinfo", info.format(0, 1200, "") + info.format(1, 3400, ""))
    old = machine.processor()
    assert "avx2" in old
    assert "3400" not in old  # changes from one second to the next
    write(system, "proc/cpuinfo", info.format(0, 1200, " avx512_vnni"))
    assert machine.processor() != old
