"""Both cgroup layouts, as folders; the real thing is in test_sandbox.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox import cgroups

CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "pids")


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    for name in CONTROLLERS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").touch()
    (tmp_path / "unified").mkdir()
    (tmp_path / "unified" / "cgroup.procs").touch()
    (tmp_path / "net_cls").symlink_to("cpu")
    return tmp_path


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (tmp_path / "cgroup.subtree_control").touch()
    (tmp_path / "cgroup.procs").touch()
    return tmp_path


def test_v1_root_is_made_once_in_every_hierarchy(v1: Path) -> None:
    cgroups.make("berth-x", ["system", "n1"], v1)
    cgroups.make("berth-x", ["system", "n1"], v1)
    assert all((v1 / name / "berth-x" / "n1").is_dir() for name in CONTROLLERS)
    assert not (v1 / "unified" / "berth-x").exists()


def test_v2_root_is_made_once(v2: Path) -> None:
    (v2 / "berth-x").mkdir()
    # The kernel makes these files in every group.
    (v2 / "berth-x" / "cgroup.controllers").write_text("cpu memory pids\n")
    cgroups.make("berth-x", ["system", "n1"], v2)
    assert (v2 / "berth-x" / "n1").is_dir()
    assert (v2 / "cgroup.subtree_control").read_text().startswith("+")
    # Our own root passes on what it was given and no more.
    assert (v2 / "berth-x" / "cgroup.subtree_control").read_text() in ("+cpu", "+memory", "+pids")


def test_processes_are_found_in_groups_within_groups(v1: Path) -> None:
    cgroups.make("berth-x", ["system", "n1"], v1)
    deep = v1 / cgroups.V1_MEMBERS / "berth-x" / "n1" / "kubepods" / "pod1"
    deep.mkdir(parents=True)
    (deep / "cgroup.procs").write_text("7\n8\n")
    (v1 / cgroups.V1_MEMBERS / "berth-x" / "system" / "cgroup.procs").write_text("9\n")
    assert sorted(cgroups.processes("berth-x", v1)) == [7, 8, 9]
    assert cgroups.processes_below("berth-x/n1", v1) == [7, 8]


def test_no_group_means_no_process(v1: Path, v2: Path) -> None:
    assert list(cgroups.processes("berth-x", v1)) == []


def test_groups_are_removed_deepest_first(v2: Path) -> None:
    for path in ("berth-x/n1/pod1", "berth-x/n2", "other"):
        (v2 / path).mkdir(parents=True)
    cgroups.remove("berth-x", v2)
    assert not (v2 / "berth-x").exists()
    assert (v2 / "other").exists()


def test_v1_join_names_only_hierarchies_that_count(v1: Path) -> None:
    script = cgroups.join_script("berth-x", v1)
    assert f"{v1}/pids/berth-x/system/cgroup.procs" in script
    assert f"{v1}/memory/berth-x/system/cgroup.procs" in script
    assert "cpuset" not in script


def test_v2_usage_leaves_the_page_cache_out(v2: Path) -> None:
    (v2 / "berth-x").mkdir()
    (v2 / "berth-x" / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (v2 / "berth-x" / "memory.stat").write_text("anon 100\nfile 5000\nkernel 10\nshmem 1\n")
    assert cgroups.usage("berth-x", v2) == (2.5, 111)


def test_v1_usage_leaves_the_page_cache_out(v1: Path) -> None:
    for name in ("cpuacct", "memory"):
        (v1 / name / "berth-x").mkdir()
    (v1 / "cpuacct" / "berth-x" / "cpuacct.usage").write_text("1500000000\n")
    (v1 / "memory" / "berth-x" / "memory.stat").write_text("rss 1\ntotal_cache 5000\ntotal_rss 100\ntotal_shmem 1\n")
    assert cgroups.usage("berth-x", v1) == (1.5, 101)


def test_machine_without_cgroups_is_told_so(tmp_path: Path) -> None:
    assert "is not mounted" in (cgroups.lacking(tmp_path / "nowhere") or "")


def test_machine_without_a_controller_kubelet_needs_is_told_its_name(v2: Path) -> None:
    (v2 / "cgroup.controllers").write_text("cpu cpuset pids\n")
    assert cgroups.lacking(v2) == "the cgroup controllers memory are missing"


def test_machine_with_all_of_them_lacks_nothing(v1: Path) -> None:
    assert cgroups.lacking(v1) is None
    assert not list(v1.glob("*/berth-probe"))
