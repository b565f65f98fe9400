"""What a process may use of the machine: what containers and schedulers say counts too."""

import os

import pytest

from difftract_bids import machine


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """A control group of version 2, two folders deep, with no limits yet."""
    own = tmp_path / "cgroup" / "job" / "step"
    own.mkdir(parents=True)
    (tmp_path / "own").write_text("0::/job/step\n")
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_OWN_CGROUPS", tmp_path / "own")
    for name in ("MEM_PER_NODE", "MEM_PER_CPU", "CPUS_ON_NODE"):
        monkeypatch.delenv(f"SLURM_{name}", raising=False)
    return own


def test_without_limits_there_are_the_cpus_of_the_affinity_and_nine_tenths_of_memory(cgroup):
    (cgroup / "cpu.max").write_text("max 100000\n")
    (cgroup / "memory.max").write_text("max\n")
    assert machine.available_cpus() == len(os.sched_getaffinity(0))
    total_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    assert machine.available_memory_gb() == pytest.approx(0.9 * total_gb)


def test_a_quota_of_time_counts_as_cpus_begun(cgroup, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    (cgroup / "cpu.max").write_text("350000 100000\n")
    assert machine.available_cpus() == 4
    (cgroup / "cpu.max").write_text("1000 100000\n")
    assert machine.available_cpus() == 1


def test_the_limits_of_the_groups_around_count_too(cgroup, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    (cgroup.parent / "cpu.max").write_text("200000 100000\n")
    (cgroup.parent / "memory.max").write_text("1000000000\n")
    (cgroup / "memory.max").write_text("2000000000\n")
    assert machine.available_cpus() == 2
    assert machine.available_memory_gb() == pytest.approx(0.9)


def test_version_1_of_control_groups_has_other_files(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    for name in ("cpu,cpuacct", "cpu", "cpuacct", "memory"):
        (tmp_path / name / "docker").mkdir(parents=True)
    (tmp_path / "own").write_text("4:memory:/docker\n3:cpu,cpuacct:/docker\n")
    (tmp_path / "memory" / "docker" / "memory.limit_in_bytes").write_text("3000000000")
    (tmp_path / "cpu" / "docker" / "cpu.cfs_quota_us").write_text("150000")
    (tmp_path / "cpu" / "docker" / "cpu.cfs_period_us").write_text("100000")
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "_OWN_CGROUPS", tmp_path / "own")
    assert machine.available_cpus() == 2
    assert machine.available_memory_gb() == pytest.approx(2.7)


@pytest.mark.usefixtures("cgroup")
def test_what_slurm_gave_the_job_is_all_there_is(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "3")
    assert machine.available_cpus() == 3
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "500")
    assert machine.available_memory_gb() == pytest.approx(0.9 * 1.572864)
    monkeypatch.delenv("SLURM_MEM_PER_CPU")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "500")
    assert machine.available_memory_gb() == pytest.approx(0.9 * 0.524288)
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "0")  # all of the machine's
    assert machine.available_memory_gb() > 0.6


def test_kills_for_want_of_memory_are_counted_by_the_system(cgroup):
    assert machine.n_killed_for_memory() == 0
    (cgroup / "memory.events").write_text("low 0\noom 5\noom_kill 3\n")
    assert machine.n_killed_for_memory() == 3
