"""Recipes: from the programs of this machine to the layers of an image.

A part takes the Workshop and returns entries; a layer is a tuple of parts, a recipe a list of layers. Layers that
several images use are the same parts in the same order, hence the same blob, kept once here and once on each node.
Paths, users, entry points and variables are those of the public images of the same name: one manifest runs on both.
"""

from __future__ import annotations

import gzip
import os
import platform
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.images.oci import NET_BIND_SERVICE, Entry, file, folder, link, text
from sandbox.images.sources import MissingInput, Workshop, output

Part = Callable[[Workshop], list[Entry]]
SCRIPTS = Path(__file__).parent / "scripts"

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
JAVA_HOME = "/opt/java/openjdk"
# What ZooKeeper, Kafka and RocketMQ with their loggers, exporters and diagnostic tools ask for.
JAVA_MODULES = (
    "java.base", "java.compiler", "java.desktop", "java.instrument", "java.logging", "java.management",
    "java.management.rmi", "java.naming", "java.net.http", "java.rmi", "java.scripting", "java.security.jgss",
    "java.security.sasl", "java.sql", "java.xml", "jdk.crypto.ec", "jdk.httpserver", "jdk.jcmd", "jdk.management",
    "jdk.management.agent", "jdk.naming.dns", "jdk.net", "jdk.security.auth", "jdk.security.jgss", "jdk.unsupported",
    "jdk.zipfs",
)  # fmt: skip

_PAUSE_C = """
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int n) { (void)n; _exit(0); }
static void reap(int n) { (void)n; while (waitpid(-1, 0, WNOHANG) > 0) {} }
int main(void) {
    signal(SIGINT, end); signal(SIGTERM, end); signal(SIGCHLD, reap);
    for (;;) pause();
}
"""
_PAUSE_SH = """#!/busybox sh
trap 'exit 0' TERM INT
while :; do /busybox sleep 1000000 & wait $!; done
"""


@dataclass(frozen=True)
class Recipe:
    """How one image is made. `user` is "uid:gid"; `volumes` and `ports` only inform."""

    layers: Sequence[Sequence[Part]]
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    user: str = ""
    workdir: str = "/"
    environment: Mapping[str, str] = field(default_factory=dict)
    ports: Sequence[str] = ()
    volumes: Sequence[str] = ()

    def config(self) -> dict[str, object]:
        """The `config` part of the OCI image configuration."""
        variables = {"PATH": SYSTEM_PATH, **self.environment}
        config: dict[str, object] = {
            "Env": [f"{name}={value}" for name, value in variables.items()],
            "WorkingDir": self.workdir,
        }
        if self.entrypoint:
            config["Entrypoint"] = list(self.entrypoint)
        if self.command:
            config["Cmd"] = list(self.command)
        if self.user:
            config["User"] = self.user
        if self.ports:
            config["ExposedPorts"] = {port: {} for port in self.ports}
        if self.volumes:
            config["Volumes"] = {volume: {} for volume in self.volumes}
        return config


def _accounts(*extra: tuple[str, int]) -> list[Entry]:
    """/etc/passwd and /etc/group with root, nobody and the given users, each with a group of its own number."""
    users = [("root", 0), ("nobody", 65534), *extra]
    passwd = "".join(
        f"{name}:x:{number}:{number}:{name}:{'/root' if number == 0 else '/'}:/bin/sh\n" for name, number in users
    )
    group = "".join(f"{name}:x:{number}:\n" for name, number in users)
    return [text("/etc/passwd", passwd), text("/etc/group", group)]


def accounts(name: str, number: int) -> Part:
    """A user of the image."""
    return lambda workshop: _accounts((name, number))


def _busybox(workshop: Workshop) -> Path:
    for path in ("/bin/busybox", "/usr/bin/busybox"):
        if Path(path).exists() and not workshop.libraries([Path(path)]):
            return Path(path)
    return workshop.package_file("/bin/busybox", "busybox-static")


def tools(workshop: Workshop) -> list[Entry]:
    """A shell and the usual small tools, in one static program, with the places programs expect to exist."""
    busybox = _busybox(workshop)
    applets = sorted(set(output([str(busybox), "--list-full"]).split()) - {"bin/busybox", "linuxrc"})
    return [
        file("/bin/busybox", busybox, 0o755),
        *(link(f"/{applet}", "/bin/busybox") for applet in applets),
        *_accounts(),
        text("/etc/nsswitch.conf", "hosts: files dns\n"),
        folder("/tmp", 0o1777), folder("/var/tmp", 0o1777), folder("/root", 0o700), folder("/run"), folder("/var/run"),
        folder("/proc"), folder("/sys"), folder("/dev"),
    ]  # fmt: skip


def runtime(workshop: Workshop) -> list[Entry]:
    """The C library, bash, certificate authorities and two time zones: what a slim distribution image has on top."""
    bash = workshop.host_file("/bin/bash", "bash")
    certificates = workshop.host_file("/etc/ssl/certs/ca-certificates.crt", "ca-certificates")
    zones = [
        file(f"/usr/share/zoneinfo/{zone}", workshop.package_file(f"/usr/share/zoneinfo/{zone}", "tzdata"), 0o644)
        for zone in ("UTC", "Asia/Shanghai")
    ]
    return [
        file("/bin/bash", bash, 0o755),
        *workshop.libraries([bash]),
        file("/etc/ssl/certs/ca-certificates.crt", certificates, 0o644),
        *zones,
    ]


BASE: Sequence[Part] = (tools, runtime)


def programs(places: Mapping[str, tuple[str, str]]) -> Part:
    """Programs with the libraries they need. `places`: path in the image to (path on the host, system package)."""

    def layer(workshop: Workshop) -> list[Entry]:
        found = {place: workshop.package_file(path, package) for place, (path, package) in places.items()}
        return [*(file(place, path, 0o755) for place, path in found.items()), *workshop.libraries(list(found.values()))]

    return layer


def version_is(argv: Sequence[str], package: str, wanted: str) -> Part:
    """Adds nothing, but refuses to build from a program of another version than the image's name says."""

    def layer(workshop: Workshop) -> list[Entry]:
        program = workshop.package_file(argv[0], package)
        said = output([str(program), *argv[1:]])
        if not re.search(rf"(?<![\d.]){re.escape(wanted)}(?![\d.])", said):
            raise MissingInput(
                f"{program} says {said.strip().splitlines()[0][:120]!r}, but the image is of version {wanted}. Use a "
                f"system whose package {package} has {wanted}, or set BERTH_REGISTRY to a registry that has the image."
            )
        return []

    return layer


def built(name: str, place: str, *, capability: bytes | None = None) -> Part:
    """A program that the sandbox builds or downloads itself, with its libraries if it has any."""

    def layer(workshop: Workshop) -> list[Entry]:
        program = workshop.program(name)
        return [file(place, program, 0o755, capability=capability), *workshop.libraries([program])]

    return layer


def certificates(workshop: Workshop) -> list[Entry]:
    """Certificate authorities only."""
    source = workshop.host_file("/etc/ssl/certs/ca-certificates.crt", "ca-certificates")
    return [file("/etc/ssl/certs/ca-certificates.crt", source, 0o644)]


def folders(*entries: Entry) -> Part:
    """Folders with their owners."""
    return lambda workshop: list(entries)


def script(place: str, name: str, replacements: Mapping[str, str] | None = None) -> Part:
    """A file of scripts/, executable when it starts with #!; `@NAME@` is replaced."""

    def layer(workshop: Workshop) -> list[Entry]:
        content = (SCRIPTS / name).read_text()
        for key, value in (replacements or {}).items():
            content = content.replace(f"@{key}@", value)
        return [text(place, content, 0o755 if content.startswith("#!") else 0o644)]

    return layer


def pause(workshop: Workshop) -> list[Entry]:
    """The process that holds a pod's namespaces: ten lines of C, or a shell loop where there is no compiler."""
    compiler = Path("/usr/bin/gcc")
    if compiler.exists():
        version = output([str(compiler), "-dumpfullversion"])

        def compile_it(into: Path) -> None:
            (into / "pause.c").write_text(_PAUSE_C)
            argv = [str(compiler), "-static", "-Os", "-s", "-o", "pause", "pause.c"]
            subprocess.run(argv, cwd=into, check=True, capture_output=True, stdin=subprocess.DEVNULL)

        try:
            return [file("/pause", workshop.artefact("pause", [_PAUSE_C, version], compile_it) / "pause", 0o755)]
        except subprocess.CalledProcessError as error:
            workshop.progress(
                f"pause does not compile ({error.stderr.decode(errors='replace').strip()[-200:]}): using a shell loop"
            )
    return [file("/busybox", _busybox(workshop), 0o755), text("/pause", _PAUSE_SH, 0o755)]


def _java_17(workshop: Workshop) -> Path:
    """Home of a Java 17; one with jmods and jlink is preferred."""
    candidates = [Path(os.environ.get("JAVA_HOME") or "/nonexistent"), *sorted(Path("/usr/lib/jvm").glob("*"))]
    homes = []
    for home in candidates:
        release = home / "release"
        if (
            release.exists()
            and 'JAVA_VERSION="17' in release.read_text(errors="replace")
            and (home / "bin/java").exists()
        ):
            homes.append(home.resolve())
    if not homes:
        raise MissingInput(
            "Java 17 is missing: install the system package openjdk-17-jre-headless "
            "(apt-get install openjdk-17-jre-headless); openjdk-17-jdk-headless makes a smaller image"
        )
    return max(homes, key=lambda home: (home / "jmods").is_dir() and (home / "bin/jlink").exists())


def java(workshop: Workshop) -> list[Entry]:
    """A Java 17 runtime at /opt/java/openjdk: linked from JAVA_MODULES, or the whole JRE where there is no jlink."""
    home = _java_17(workshop)
    runtime_home = home
    if (home / "jmods").is_dir() and (home / "bin/jlink").exists():
        image = (home / "lib/modules").stat()

        def link_it(into: Path) -> None:
            workshop.progress("linking a small Java runtime")
            argv = [
                str(home / "bin/jlink"), "--add-modules", ",".join(JAVA_MODULES), "--strip-debug", "--no-header-files",
                "--no-man-pages", "--output", str(into / "java"),
            ]  # fmt: skip
            output(argv)

        inputs = [JAVA_MODULES, (home / "release").read_text(), image.st_size, image.st_mtime_ns]
        runtime_home = workshop.artefact("java", inputs, link_it) / "java"
    linked = [*runtime_home.glob("lib/*.so"), *runtime_home.glob("lib/server/*.so"), *runtime_home.glob("bin/*")]
    entries = [entry for entry in workshop.tree(runtime_home, JAVA_HOME) if "/legal/" not in entry.path]
    # Libraries for a screen (X11) have no use here and are not on a headless system; Java loads them on demand only.
    headless = [
        path for path in linked if not re.search(r"lib(awt_xawt|splashscreen|jawt|fontmanager|freetype)", path.name)
    ]
    return [*entries, *workshop.libraries(sorted(headless), inside=runtime_home)]


def jars(name: str, at: str) -> Part:
    """The jars listed in jars/<name>.txt, in one folder."""

    def layer(workshop: Workshop) -> list[Entry]:
        return [file(f"{at}/{jar}", path, 0o644) for jar, path in workshop.jars(name)]

    return layer


def architecture() -> str:
    """GOARCH's name for this machine."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def pause_only() -> Recipe:
    """The process that holds a pod's namespaces."""
    return Recipe([[pause]], entrypoint=["/pause"], user="65535:65535")


def busybox() -> Recipe:
    """The small tools alone, for tests of names and addresses."""
    return Recipe([[tools]], command=["sh"])


def coredns() -> Recipe:
    """CoreDNS, run as nobody in particular with the right to port 53."""
    return Recipe(
        [[certificates, built("coredns", "/coredns", capability=NET_BIND_SERVICE)]],
        entrypoint=["/coredns"], user="65532:65532", ports=["53/tcp", "53/udp"],
    )  # fmt: skip


# Path in the image to package and path there. In Debian redis-server is a link to redis-check-rdb: files are copied
# under the name they are called by.
_REDIS_PROGRAMS = {
    "/usr/local/bin/redis-server": ("/usr/bin/redis-server", "redis-server"),
    "/usr/local/bin/redis-check-rdb": ("/usr/bin/redis-check-rdb", "redis-tools"),
    "/usr/local/bin/redis-check-aof": ("/usr/bin/redis-check-aof", "redis-tools"),
    "/usr/local/bin/redis-cli": ("/usr/bin/redis-cli", "redis-tools"),
    "/usr/local/bin/redis-benchmark": ("/usr/bin/redis-benchmark", "redis-tools"),
}
# With all they are linked with: what an image of another suite's programs brings along.
_REDIS_PACKAGES = (
    "redis-server", "redis-tools", "libc6", "libatomic1", "libjemalloc2", "liblzf1", "libssl3t64", "libstdc++6",
    "libgcc-s1", "libsystemd0", "libcap2", "libzstd1", "zlib1g",
)  # fmt: skip


def redis_packages(workshop: Workshop, codename: str) -> Path:
    """The programs and libraries of another suite's Redis, unpacked. Raises MissingInput."""
    return workshop.suite(codename, _REDIS_PACKAGES)


def _redis(version: str, found: Sequence[Part]) -> Recipe:
    own = [
        *found,
        accounts("redis", 999),
        folders(folder("/data", 0o755, uid=999, gid=999)),
        script("/usr/local/bin/docker-entrypoint.sh", "redis-entrypoint.sh"),
    ]
    return Recipe(
        [BASE, own],
        entrypoint=["docker-entrypoint.sh"], command=["redis-server"], user="999:999", workdir="/data",
        environment={"REDIS_VERSION": version}, ports=["6379/tcp"], volumes=["/data"],
    )  # fmt: skip


def redis(version: str) -> Recipe:
    """Redis from the system's packages; server and cli with TLS."""
    said = version_is(["/usr/bin/redis-server", "--version"], "redis-server", version)
    return _redis(version, [said, programs(_REDIS_PROGRAMS)])


def redis_of(version: str, codename: str) -> Recipe:
    """Redis from the packages of another Debian suite, with its own C library."""

    def layer(workshop: Workshop) -> list[Entry]:
        root = redis_packages(workshop, codename)
        found = {place: root / path.lstrip("/") for place, (path, _) in _REDIS_PROGRAMS.items()}
        [described] = root.glob("usr/share/doc/redis-server/changelog.Debian.gz")
        newest = gzip.decompress(described.read_bytes()).decode().partition("\n")[0]
        if not re.search(rf"[(:]{re.escape(version)}[-+]", newest):
            raise MissingInput(f"Debian {codename} has {newest[:80]!r}, but the image is of version {version}")
        return [
            *(file(place, path, 0o755) for place, path in found.items()),
            *workshop.libraries_within(root, list(found.values())),
        ]

    return _redis(version, [layer])


def redis_exporter(version: str) -> Recipe:
    """The Prometheus exporter of Redis, from the system's package, which need not be installed."""
    path, package = "/usr/bin/prometheus-redis-exporter", "prometheus-redis-exporter"
    exporter = programs({"/redis_exporter": (path, package)})
    return Recipe(
        [[version_is([path, "-version"], package, version), certificates, exporter]],
        entrypoint=["/redis_exporter"], user="59000:59000", ports=["9121/tcp"],
    )  # fmt: skip


def zookeeper(version: str) -> Recipe:
    """ZooKeeper on Java 17 with its jars from Maven, laid out as the official image."""
    home = f"/apache-zookeeper-{version}-bin"
    words = {"HOME": home}
    return Recipe(
        [
            BASE,
            [java],
            [
                jars(f"zookeeper-{version}", f"{home}/lib"),
                accounts("zookeeper", 1000),
                folders(*(folder(path, 0o755, uid=1000, gid=1000) for path in ("/conf", "/data", "/datalog", "/logs"))),
                script("/conf/logback.xml", "zookeeper-logback.xml"),
                script(f"{home}/bin/zkServer.sh", "zkServer.sh", words),
                script(f"{home}/bin/zkCli.sh", "zkCli.sh", words),
                script("/docker-entrypoint.sh", "zookeeper-entrypoint.sh"),
            ],
        ],
        entrypoint=["/docker-entrypoint.sh"], command=["zkServer.sh", "start-foreground"],
        user="1000:1000", workdir=home,
        environment={
            "PATH": f"{JAVA_HOME}/bin:{SYSTEM_PATH}:{home}/bin",
            "JAVA_HOME": JAVA_HOME,
            "LANG": "C.UTF-8",
            "ZOOCFGDIR": "/conf", "ZOO_CONF_DIR": "/conf",
            "ZOO_DATA_DIR": "/data", "ZOO_DATA_LOG_DIR": "/datalog", "ZOO_LOG_DIR": "/logs",
            "ZOO_TICK_TIME": "2000", "ZOO_INIT_LIMIT": "5", "ZOO_SYNC_LIMIT": "2", "ZOO_MAX_CLIENT_CNXNS": "60",
            "ZOO_AUTOPURGE_PURGEINTERVAL": "0", "ZOO_AUTOPURGE_SNAPRETAINCOUNT": "3",
            "ZOO_STANDALONE_ENABLED": "true", "ZOO_ADMINSERVER_ENABLED": "true",
        },
        ports=["2181/tcp", "2888/tcp", "3888/tcp", "8080/tcp"], volumes=["/data", "/datalog", "/logs"],
    )  # fmt: skip
