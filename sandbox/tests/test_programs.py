"""Where the programs come from: present, downloaded, built."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandbox import SandboxError, packages, programs

PROGRAMS = (*programs.SERVER_PROGRAMS, "etcd")
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def quiet(line: str) -> None:
    del line


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return tmp_path / "cache" / "berth" / "programs"


def fake(name: str, version: str = programs.KUBERNETES) -> bytes:
    return f'#!/bin/sh\necho "Kubernetes {version}"\n# {name}\n'.encode()


def archive(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


@pytest.fixture
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A web server with the folders of the official releases; its files may be changed."""
    root = tmp_path / "releases"
    server = root / programs.KUBERNETES / f"kubernetes-server-linux-{MACHINE}.tar.gz"
    archive(server, {f"kubernetes/server/bin/{name}": fake(name) for name in programs.SERVER_PROGRAMS})
    server.with_name(server.name + ".sha512").write_text(hashlib.sha512(server.read_bytes()).hexdigest())
    etcd = root / programs.ETCD / f"etcd-{programs.ETCD}-linux-{MACHINE}.tar.gz"
    archive(etcd, {f"etcd-{programs.ETCD}-linux-{MACHINE}/etcd": fake("etcd")})
    (etcd.parent / "SHA256SUMS").write_text(f"{hashlib.sha256(etcd.read_bytes()).hexdigest()}  {etcd.name}\n")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            del format, args

    handler = functools.partial(Quiet, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{served.server_port}"
        monkeypatch.setenv("BERTH_KUBERNETES_RELEASES", url)
        monkeypatch.setenv("BERTH_ETCD_RELEASES", url)
        yield root
        served.shutdown()
        thread.join()


def test_download_gives_every_program_ready_to_run(releases: Path, tmp_path: Path) -> None:
    into = tmp_path / "into"
    assert programs.download(into, quiet)
    assert sorted(path.name for path in into.iterdir()) == sorted(PROGRAMS)
    assert all(os.access(into / name, os.X_OK) for name in PROGRAMS)


def test_download_that_does_not_match_its_checksum_is_refused(releases: Path, tmp_path: Path) -> None:
    etcd = next(releases.glob(f"{programs.ETCD}/*.tar.gz"))
    etcd.write_bytes(etcd.read_bytes() + b"x")
    with pytest.raises(SandboxError, match="does not match its published checksum"):
        programs.download(tmp_path / "into", quiet)
    assert not (tmp_path / "into").exists()


def test_release_that_lacks_a_program_is_refused_with_its_name(releases: Path, tmp_path: Path) -> None:
    server = next(releases.glob(f"{programs.KUBERNETES}/*.tar.gz"))
    archive(server, {name: fake(name) for name in programs.SERVER_PROGRAMS if name != "kubelet"})
    server.with_name(server.name + ".sha512").write_text(hashlib.sha512(server.read_bytes()).hexdigest())
    with pytest.raises(SandboxError, match="lack kubelet"):
        programs.download(tmp_path / "into", quiet)
    assert not (tmp_path / "into").exists()


def test_release_that_is_not_there_means_building(releases: Path, tmp_path: Path) -> None:
    next(releases.glob(f"{programs.ETCD}/*.tar.gz")).unlink()
    assert not programs.download(tmp_path / "into", quiet)


def test_address_that_does_not_answer_means_building(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Port 1 of this machine: refused at once.
    monkeypatch.setenv("BERTH_KUBERNETES_RELEASES", "http://127.0.0.1:1")
    assert not programs.download(tmp_path / "into", quiet)


def folder_of(path: Path, version: str) -> Path:
    path.mkdir()
    for name in PROGRAMS:
        (path / name).write_bytes(fake(name, version))
        (path / name).chmod(0o755)
    return path


def test_programs_that_are_there_come_before_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assets = folder_of(tmp_path / "assets", programs.KUBERNETES)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    assert programs.present(PROGRAMS) == assets


def test_programs_of_another_minor_version_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(folder_of(tmp_path / "assets", "v1.28.1")))
    assert programs.present(PROGRAMS) is None


def test_folder_with_some_of_the_programs_only_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assets = folder_of(tmp_path / "assets", programs.KUBERNETES)
    (assets / "kubelet").unlink()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    assert programs.present(PROGRAMS) is None


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A Go module of a few lines, without dependencies."""
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "go.mod").write_text("module example.test/tiny\n\ngo 1.21\n")
    (folder / "go.sum").touch()
    (folder / "main.go").write_text('package main\n\nfunc main() { println("hello") }\n')
    return folder


def test_two_builders_at_once_build_once(
    module: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "sources"
    source.mkdir()
    module.rename(source / "dns")
    monkeypatch.setattr(programs, "SOURCES", source)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    said: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: programs.coredns(said.append), range(2)))
    assert paths[0] == paths[1]
    assert os.access(paths[0], os.X_OK)
    assert len([line for line in said if line.startswith("built")]) == 1
    assert not list(cache.glob("*.new"))


def test_failed_build_shows_the_compiler_and_leaves_nothing(module: Path, tmp_path: Path) -> None:
    (module / "main.go").write_text("package main\n\nfunc main() { nonsense() }\n")
    out = tmp_path / "out"
    with pytest.raises(SandboxError, match="undefined: nonsense"):
        programs._build(module, out, [], "tiny", quiet)
    assert not out.exists()


def test_other_sources_are_another_program(module: Path) -> None:
    before = programs._digest(module)
    (module / "go.sum").write_text("x")
    assert programs._digest(module) != before


def test_missing_programs_are_listed_with_the_one_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packages.PACKAGES, "no-such-program", ("some-package", "some-package"))
    monkeypatch.setitem(packages.PACKAGES, "nor-this", ("some-package", "some-package"))
    with pytest.raises(packages.PackagesError, match=r"no-such-program, nor-this\. .*install some-package$"):
        packages.ensure(["sh", "no-such-program", "nor-this"], install=False)


def test_every_program_the_sandbox_runs_has_a_package() -> None:
    assert {*packages.SANDBOX, *packages.IMAGES} <= set(packages.PACKAGES)


def test_installing_starts_no_service_and_leaves_the_hosts_own_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(packages, "POLICY", policy)
    with packages._no_services_started():
        assert os.access(policy, os.X_OK)
        left_by_a_kill = policy.read_text()
    assert not policy.exists()
    policy.write_text(left_by_a_kill)
    with packages._no_services_started():
        pass
    assert not policy.exists()
    policy.write_text("#!/bin/sh\nexit 0\n")
    with packages._no_services_started():
        pass
    assert policy.read_text() == "#!/bin/sh\nexit 0\n"
