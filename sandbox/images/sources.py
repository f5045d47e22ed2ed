"""What recipes are made of: programs and libraries of this system, fetched packages, things built once."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.images import maven
from sandbox.images.oci import Entry, file, folder, link

_LIST_LINE = re.compile(r"^\s+(?P<name>\S+) => (?P<path>/\S+) \(0x[0-9a-f]+\)$")
_LDD_LINE = re.compile(r"^\s+(?:(?P<name>\S+) => )?(?P<path>/\S+) \(0x[0-9a-f]+\)$")
_FETCH_TIMEOUT_SECONDS = 300.0


class MissingInput(Exception):
    """Something an image is made of is not on this machine; the message names it and the command that installs it."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, against other threads and other processes alike. It ends with its holder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def _run(argv: Sequence[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        timeout=_FETCH_TIMEOUT_SECONDS, env=_ENVIRONMENT,
    )  # fmt: skip


def output(argv: Sequence[str]) -> str:
    """Standard output and error of a program that must succeed. Raises MissingInput otherwise."""
    try:
        done = _run(argv)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingInput(f"{argv[0]} could not be run: {error}") from error
    if done.returncode != 0:
        raise MissingInput(f"{' '.join(argv)} failed with status {done.returncode}: {done.stderr.strip()[-800:]}")
    return done.stdout + done.stderr


@dataclass(frozen=True)
class Workshop:
    """Where recipes get their inputs. `program` finds binaries that are built elsewhere (CoreDNS), by name."""

    cache: Path
    progress: Callable[[str], None]
    program: Callable[[str], Path]

    def host_file(self, path: str, package: str) -> Path:
        """A file of an installed system package. Raises MissingInput naming package and command."""
        found = Path(path)
        if not found.exists():
            raise MissingInput(f"{path} is missing: install the system package {package} (apt-get install {package})")
        return found

    def package_file(self, path: str, package: str) -> Path:
        """As host_file, but a package that is not installed is downloaded and unpacked in the cache instead.

        For daemons nobody wants started on this machine just because an image contains them.
        """
        if Path(path).exists():
            return Path(path)
        kept = sorted((self.cache / "artefacts").glob(f"deb-{package}-*/{path.lstrip('/')}"))
        if kept:
            return kept[-1]
        remedy = f"install the system package {package} (apt-get update && apt-get install {package})"
        if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
            raise MissingInput(f"{path} is missing: {remedy}")

        def fetch(into: Path) -> None:
            self.progress(f"downloading the system package {package}")
            with tempfile.TemporaryDirectory(prefix="berth-deb-") as name:
                # apt's download user must be able to write here, else it warns and downloads as root.
                Path(name).chmod(0o777)
                done = _run(["apt-get", "download", "-q", package], cwd=Path(name))
                debs = list(Path(name).glob("*.deb"))
                if done.returncode != 0 or len(debs) != 1:
                    raise MissingInput(
                        f"{path} is missing and cannot be downloaded: {remedy}. apt-get: {done.stderr.strip()[-800:]}"
                    )
                output(["dpkg-deb", "-x", str(debs[0]), str(into)])

        version = output(["apt-cache", "show", "--no-all-versions", package]) if shutil.which("apt-cache") else ""
        root = self.artefact(f"deb-{package}", [version], fetch)
        return self.host_file(str(root / path.lstrip("/")), package)

    def suite(self, codename: str, packages: Sequence[str]) -> Path:
        """A folder with packages of another Debian suite unpacked, fetched by this machine's apt from its mirrors.

        For a program of another version than this system has; nothing of it is installed. Its lists are kept apart, and
        checked against the keys of debian-archive-keyring as the system's own are. Raises MissingInput.
        """
        remedy = "use a Debian system with a mirror, or set BERTH_REGISTRY to a registry that has the image"
        if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
            raise MissingInput(f"Debian {codename}'s {packages[0]} cannot be fetched without apt-get: {remedy}")

        def fetch(into: Path) -> None:
            own = output(["sed", "-n", "s/^VERSION_CODENAME=//p", "/etc/os-release"]).strip()
            form = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(REPO_URI) $(RELEASE) $(COMPONENT)"
            told = output(["apt-get", "indextargets", "--format", form, "Created-By: Packages"]).splitlines()
            # The suite itself, its updates and its security fixes; and no mirror of anybody but Debian.
            wanted = re.compile(rf" {re.escape(own)}(-updates|-security)? main$")
            sources = sorted({wanted.sub(rf" {codename}\1 main", line) for line in told if wanted.search(line)})
            if not sources:
                raise MissingInput(f"this system's apt has no sources of Debian {own or '?'}: {remedy}")
            self.progress(f"downloading {packages[0]} of Debian {codename}")
            with tempfile.TemporaryDirectory(prefix="berth-suite-") as name:
                place = Path(name)
                place.chmod(0o755)
                for part in ("lists/partial", "cache/archives/partial", "parts", "debs"):
                    (place / part).mkdir(parents=True)
                (place / "sources.list").write_text("\n".join(sources) + "\n")
                argv = ["apt-get", "-q"]
                for option, value in (
                    ("Dir::Etc::sourcelist", place / "sources.list"), ("Dir::Etc::sourceparts", place / "parts"),
                    ("Dir::State::lists", place / "lists"), ("Dir::Cache", place / "cache"),
                    ("Dir::State::status", "/dev/null"), ("APT::Sandbox::User", "root"),
                    ("APT::Default-Release", codename), ("Acquire::Languages", "none"),
                ):  # fmt: skip
                    argv += ["-o", f"{option}={value}"]
                for step in ([*argv, "update"], [*argv, "download", *packages]):
                    done = _run(step, cwd=place / "debs")
                    if done.returncode != 0:
                        said = done.stderr.strip()[-800:]
                        raise MissingInput(f"{packages[0]} of Debian {codename} cannot be fetched: {remedy}. {said}")
                for deb in sorted((place / "debs").glob("*.deb")):
                    output(["dpkg-deb", "-x", str(deb), str(into)])

        return self.artefact(f"suite-{codename}-{packages[0]}", packages, fetch)

    def artefact(self, name: str, inputs: Sequence[object], make: Callable[[Path], None]) -> Path:
        """A folder that `make` fills once for the same inputs; complete or absent, however the maker ends."""
        key = hashlib.sha256(repr(list(inputs)).encode()).hexdigest()[:16]
        target = self.cache / "artefacts" / f"{name}-{key}"
        if target.exists():
            return target
        with locked(self.cache / "locks" / f"{name}-{key}"):
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
                try:
                    make(work)
                    work.chmod(0o755)
                    work.rename(target)
                finally:
                    shutil.rmtree(work, ignore_errors=True)
        return target

    def jars(self, name: str) -> list[tuple[str, Path]]:
        """File names and local paths of the jars in jars/<name>.txt. Raises maven.JarUnavailable."""
        wanted = maven.read_list(name)
        return list(
            zip((jar.name for jar in wanted), maven.fetch(wanted, self.cache / "jars", self.progress), strict=True)
        )

    def libraries(self, programs: Sequence[Path], *, inside: Path | None = None) -> list[Entry]:
        """The shared libraries the programs are linked with, at the paths the loader looks for them.

        Libraries below `inside` come with the programs and are left out. Raises MissingInput for one that is not found.
        """
        done = _run(["ldd", *(str(program) for program in programs)])
        own = set() if inside is None else {path.name for path in inside.rglob("*.so*")}
        found: dict[str, Entry] = {}
        for line in done.stdout.splitlines():
            if "not found" in line:
                name = line.split()[0]
                if name in own:
                    continue
                needs = ", ".join(program.name for program in programs[:3])
                raise MissingInput(
                    f"the library {name}, needed by {needs}…, is missing: install the package that contains it"
                )
            match = _LDD_LINE.match(line)
            if match is None:
                continue
            source = Path(match["path"])
            if inside is not None and source.resolve().is_relative_to(inside.resolve()):
                continue
            # The loader's own name (no "=>") is written into programs; the others are searched by folder.
            found[match["path"]] = file(match["path"], source, 0o755)
        return list(found.values())

    def libraries_within(self, root: Path, programs: Sequence[Path]) -> list[Entry]:
        """As `libraries`, but of programs and libraries that were unpacked below `root`, and of nothing of this system.

        Raises MissingInput for a library that is not there.
        """
        loaders = sorted(root.glob("usr/lib/*/ld-linux-*.so.*")) + sorted(root.glob("lib/ld-linux-*.so.*"))
        if not loaders:
            raise MissingInput(f"{root} holds no loader: libc6 is not among its packages")
        folders_ = sorted({path.parent for path in root.glob("usr/lib/*/*.so*")})
        search = ":".join(str(path) for path in folders_)
        found: dict[str, Entry] = {}
        for program in programs:
            said = output([str(loaders[0]), "--inhibit-cache", "--library-path", search, "--list", str(program)])
            for line in said.splitlines():
                match = _LIST_LINE.match(line)
                if match is None:
                    continue
                source, name = Path(match["path"]), match["name"]
                if not source.resolve().is_relative_to(root.resolve()):
                    raise MissingInput(f"the library {name}, needed by {program.name}, is not among the packages")
                # The loader's own place is written into programs; the others are searched where the system's are.
                at = name if name.startswith("/") else "/" + str(source.relative_to(root / "usr"))
                found[at] = file(at, source, 0o755)
        return list(found.values())

    def tree(self, root: Path, at: str) -> list[Entry]:
        """A folder of the host, copied to `at`; symlinks inside it stay links, those leading out are followed."""
        entries: list[Entry] = [folder(at)]
        for path in sorted(root.rglob("*")):
            place = f"{at}/{path.relative_to(root)}"
            inner = path.is_symlink() and path.resolve().is_relative_to(root.resolve())
            if inner and not path.readlink().is_absolute():
                entries.append(link(place, str(path.readlink())))
            elif path.is_dir():
                entries.append(folder(place))
            elif path.exists():
                entries.append(file(place, path))
        return entries
