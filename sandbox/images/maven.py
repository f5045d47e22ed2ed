"""Jars from a Maven repository, named and pinned by SHA-256 in the lists under jars/.

A list has one jar per line, `<sha256>  group:artifact:version[:classifier]`; `python -m sandbox.images lock` writes it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

DEFAULT_REPOSITORY = "https://repo1.maven.org/maven2"
LISTS = Path(__file__).parent / "jars"
_TIMEOUT_SECONDS = 30.0
_MAVEN_TIMEOUT_SECONDS = 900.0
_DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"


class JarUnavailable(Exception):
    """A jar could not be fetched, or is not the one the list pins."""


@dataclass(frozen=True, order=True)
class Jar:
    """One pinned jar of a Maven repository."""

    group: str
    artifact: str
    version: str
    classifier: str
    sha256: str

    @property
    def name(self) -> str:
        """File name, as in the repository."""
        return f"{self.artifact}-{self.version}{'-' + self.classifier if self.classifier else ''}.jar"

    @property
    def path(self) -> str:
        """Path in a Maven repository."""
        return f"{self.group.replace('.', '/')}/{self.artifact}/{self.version}/{self.name}"

    def line(self) -> str:
        """The line of a jar list."""
        parts = [self.group, self.artifact, self.version, *([self.classifier] if self.classifier else [])]
        return f"{self.sha256}  {':'.join(parts)}"


def parse_line(line: str) -> Jar:
    """Raises ValueError, naming the line, when it is not `<sha256>  group:artifact:version[:classifier]`."""
    digest, _, coordinate = line.partition("  ")
    parts = coordinate.split(":")
    if len(digest) != 64 or len(parts) not in (3, 4) or not all(parts):
        raise ValueError(f"jar list line {line!r} must be '<sha256>  group:artifact:version[:classifier]'")
    return Jar(parts[0], parts[1], parts[2], parts[3] if len(parts) == 4 else "", digest)


def read_list(name: str) -> list[Jar]:
    """The jars of jars/<name>.txt."""
    lines = (LISTS / f"{name}.txt").read_text().splitlines()
    return [parse_line(line) for line in lines if line and not line.startswith("#")]


def repository() -> str:
    """Base URL jars are downloaded from; BERTH_MAVEN_REPO overrides Maven Central."""
    return os.environ.get("BERTH_MAVEN_REPO", "").rstrip("/") or DEFAULT_REPOSITORY


def _check(content: bytes, jar: Jar, origin: str) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != jar.sha256:
        raise JarUnavailable(f"{jar.name} from {origin} has SHA-256 {found}, the list pins {jar.sha256}: not used")
    return content


def _store(content: bytes, target: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".jar-", delete=False) as out:
        out.write(content)
    Path(out.name).chmod(0o644)
    Path(out.name).replace(target)


def _download(jar: Jar, target: Path, context: ssl.SSLContext) -> str | None:
    """Fetch over HTTPS. Returns why it failed, or None. A wrong digest is never retried elsewhere: JarUnavailable."""
    url = f"{repository()}/{jar.path}"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS, context=context) as answer:
            content = answer.read()
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        return f"{url}: {error}"
    _store(_check(content, jar, url), target)
    return None


def project(jars: Sequence[tuple[str, str, str, str]], *, transitive: bool) -> str:
    """A pom.xml that depends on the jars (group, artifact, version, classifier), alone or with what they need."""
    dependencies = []
    alone = "" if transitive else (
        "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>"
    )  # fmt: skip
    for group, artifact, version, classifier in jars:
        extra = f"<classifier>{escape(classifier)}</classifier>" if classifier else ""
        dependencies.append(
            f"<dependency><groupId>{escape(group)}</groupId><artifactId>{escape(artifact)}</artifactId>"
            f"<version>{escape(version)}</version>{extra}{alone}</dependency>"
        )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>io.berth</groupId><artifactId>jars</artifactId><version>1</version><packaging>pom</packaging>"
        f"<dependencies>{''.join(dependencies)}</dependencies></project>"
    )


def copy_with_maven(pom: str, into: Path) -> None:
    """Let Maven, with the settings and mirrors of this machine, copy the project's jars to `into` in repository layout.

    Raises JarUnavailable with the end of Maven's output.
    """
    program = shutil.which("mvn")
    if program is None:
        raise JarUnavailable("Maven is not installed (Debian: apt-get install maven)")
    (into / "pom.xml").write_text(pom)
    argv = [
        program, "-q", "-B", "-f", str(into / "pom.xml"), f"{_DEPENDENCY_PLUGIN}:copy-dependencies",
        f"-DoutputDirectory={into}", "-Dmdep.useRepositoryLayout=true", "-DincludeScope=runtime",
    ]  # fmt: skip
    done = subprocess.run(
        argv, cwd=into, stdin=subprocess.DEVNULL, capture_output=True, timeout=_MAVEN_TIMEOUT_SECONDS, check=False
    )
    if done.returncode != 0:
        tail = (done.stdout + done.stderr).decode(errors="replace").strip()[-1500:]
        raise JarUnavailable(f"mvn dependency:copy-dependencies failed: {tail}")


def fetch(jars: Sequence[Jar], cache: Path, progress: Callable[[str], None]) -> list[Path]:
    """Local paths of the jars, downloaded once and checked against their pinned digests.

    Plain HTTPS first; what it cannot get is asked of Maven, whose settings may name a mirror. Raises JarUnavailable
    naming both roads.
    """
    cache.mkdir(parents=True, exist_ok=True)
    paths = {jar: cache / f"{jar.sha256[:16]}-{jar.name}" for jar in jars}
    missing = [jar for jar in jars if not paths[jar].exists()]
    if not missing:
        return [paths[jar] for jar in jars]
    progress(f"downloading {len(missing)} jars from {repository()}")
    context = ssl.create_default_context()
    with ThreadPoolExecutor(max_workers=6) as pool:
        reasons = list(pool.map(lambda jar: _download(jar, paths[jar], context), missing))
    failed = [(jar, reason) for jar, reason in zip(missing, reasons, strict=True) if reason is not None]
    if failed:
        progress(f"{len(failed)} jars did not come over HTTPS ({failed[0][1]}); asking Maven")
        wanted = [(jar.group, jar.artifact, jar.version, jar.classifier) for jar, _ in failed]
        with tempfile.TemporaryDirectory(prefix="berth-jars-") as folder:
            try:
                copy_with_maven(project(wanted, transitive=False), Path(folder))
            except (JarUnavailable, subprocess.TimeoutExpired) as error:
                raise JarUnavailable(
                    f"{failed[0][0].name}: {failed[0][1]}; and by Maven: {error}. Set BERTH_MAVEN_REPO to a repository "
                    "that answers, or configure a mirror in Maven's settings.xml."
                ) from error
            for jar, _ in failed:
                _store(_check((Path(folder) / jar.path).read_bytes(), jar, "Maven"), paths[jar])
    return [paths[jar] for jar in jars]


def lock(coordinates: Sequence[str]) -> list[Jar]:
    """Resolve `group:artifact:version[:classifier]` and what it needs at run time into a pinned list, by Maven.

    Raises ValueError for a malformed coordinate, JarUnavailable when Maven fails.
    """
    wanted = []
    for coordinate in coordinates:
        parts = coordinate.split(":")
        if len(parts) not in (3, 4) or not all(parts):
            raise ValueError(f"{coordinate!r} must be group:artifact:version[:classifier]")
        wanted.append((parts[0], parts[1], parts[2], parts[3] if len(parts) == 4 else ""))
    with tempfile.TemporaryDirectory(prefix="berth-lock-") as folder:
        copy_with_maven(project(wanted, transitive=True), Path(folder))
        found = []
        for path in Path(folder).rglob("*.jar"):
            version_folder = path.parent
            artifact, version = version_folder.parent.name, version_folder.name
            group = ".".join(version_folder.parent.parent.relative_to(folder).parts)
            classifier = path.stem.removeprefix(f"{artifact}-{version}").removeprefix("-")
            if classifier.startswith(("osx", "windows")):
                continue  # native code for systems no image runs on
            found.append(Jar(group, artifact, version, classifier, hashlib.sha256(path.read_bytes()).hexdigest()))
        return sorted(found)
