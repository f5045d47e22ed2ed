"""The sandbox's own cgroups, on hosts with the v1 and the v2 layout.

Every process of a sandbox is born in `<root>/system`, containers in `<root>/<node>/…`; so the processes of a crashed
sandbox, orphans of orphans included, are found by looking there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
# In the v1 layout this hierarchy tells which processes there are; kubelet uses the others too.
V1_MEMBERS = "pids"
# Without these kubelet does not start; a container's limits are kept by them.
NEEDED = ("cpu", "cpuset", "memory", "pids")


def is_v2(mount: Path = MOUNT) -> bool:
    """Whether the host has the unified layout."""
    return (mount / "cgroup.controllers").exists()


def hierarchies(mount: Path = MOUNT) -> list[Path]:
    """The folders in which a cgroup must be made: one in v2, one for each controller in v1."""
    if is_v2(mount):
        return [mount]
    found = [path for path in sorted(mount.iterdir()) if (path / "cgroup.procs").exists() and not path.is_symlink()]
    return [path for path in found if path.name != "unified"]


def members_root(root: str, mount: Path = MOUNT) -> Path:
    """The folder below which every process of the sandbox is listed."""
    return (mount if is_v2(mount) else mount / V1_MEMBERS) / root


def make(root: str, children: list[str], mount: Path = MOUNT) -> None:
    """Make `root` and its `children`, usable by kubelet. Idempotent. Raises OSError where that is forbidden."""
    for hierarchy in hierarchies(mount):
        for path in [hierarchy / root, *(hierarchy / root / child for child in children)]:
            path.mkdir(exist_ok=True)
            if (path / "cpuset.cpus").exists() and not is_v2(mount):
                # A new v1 cpuset is empty, and nothing can run in it.
                for name in ("cpuset.cpus", "cpuset.mems"):
                    if not (path / name).read_text().strip():
                        (path / name).write_text((path.parent / name).read_text())
    if is_v2(mount):
        for path in (mount, mount / root):
            for controller in (path / "cgroup.controllers").read_text().split():
                # One at a time: a controller the kernel refuses must not take the others with it.
                with contextlib.suppress(OSError):
                    (path / "cgroup.subtree_control").write_text(f"+{controller}")


def join_script(root: str, mount: Path = MOUNT) -> str:
    """Shell lines that put the running shell into `<root>/system`, in every hierarchy that counts something."""
    names = [""] if is_v2(mount) else [V1_MEMBERS, "memory", "cpuacct"]
    places = [mount / name / root / "system" / "cgroup.procs" for name in names]
    return "".join(f"[ ! -e {place} ] || echo $$ > {place}; " for place in places)


def processes(root: str, mount: Path = MOUNT) -> Iterator[int]:
    """Every process id in the sandbox's cgroups, containers included."""
    top = members_root(root, mount)
    for listing in [top / "cgroup.procs", *top.glob("**/cgroup.procs")] if top.exists() else []:
        # A cgroup may go while we look.
        with contextlib.suppress(OSError):
            yield from (int(line) for line in listing.read_text().split())


def processes_below(path: str, mount: Path = MOUNT) -> list[int]:
    """Process ids in one cgroup and those below it; `path` is relative, such as berth-demo/n1."""
    return list(processes(path, mount))


def remove(root: str, mount: Path = MOUNT) -> None:
    """Remove the sandbox's cgroups, deepest first. Those that still hold a process stay."""
    # On hosts with both layouts runc also makes the cgroup in the unified one.
    for hierarchy in [*hierarchies(mount), mount / "unified"]:
        top = hierarchy / root
        if not top.exists():
            continue
        for path in sorted((path for path in top.glob("**/") if path.is_dir()), key=lambda path: -len(path.parts)):
            with contextlib.suppress(OSError):
                path.rmdir()
        with contextlib.suppress(OSError):
            top.rmdir()


def usage(root: str, mount: Path = MOUNT) -> tuple[float, int]:
    """CPU seconds used so far, and bytes of memory held now, by the sandbox and all its containers.

    The page cache does not count: the kernel takes it back when somebody needs the memory.
    """

    def table(path: Path) -> dict[str, int]:
        return {key: int(value) for key, value in (line.split() for line in path.read_text().splitlines())}

    if is_v2(mount):
        memory = table(mount / root / "memory.stat")
        used = table(mount / root / "cpu.stat")["usage_usec"] / 1e6
        return used, memory["anon"] + memory["shmem"] + memory.get("kernel", 0)
    used = int((mount / "cpuacct" / root / "cpuacct.usage").read_text()) / 1e9
    memory = table(mount / "memory" / root / "memory.stat")
    return used, memory["total_rss"] + memory.get("total_shmem", 0)


def lacking(mount: Path = MOUNT) -> str | None:
    """Why kubelet could not keep its containers in cgroups here; None when it could."""
    if not mount.exists() or not hierarchies(mount):
        return f"{mount} is not mounted"
    have = (
        (mount / "cgroup.controllers").read_text().split() if is_v2(mount) else [path.name for path in mount.iterdir()]
    )
    lost = [name for name in NEEDED if name not in have]
    if lost:
        return f"the cgroup controllers {', '.join(lost)} are missing"
    probe = hierarchies(mount)[0] / "berth-probe"
    try:
        probe.mkdir(exist_ok=True)
        probe.rmdir()
        if is_v2(mount):
            (mount / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in NEEDED))
    except OSError as error:
        return f"cgroups are not writable here, which is so in most containers ({error.strerror})"
    return None
