"""Images as files: the same bytes every time, complete, shared, and pulled where a registry answers."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from sandbox.images import maven, oci, registry
from sandbox.images.build import ImageError, build, default_refs, ensure
from sandbox.images.recipes import Recipe
from sandbox.images.sources import MissingInput, Workshop
from sandbox.images.store import Store, blobs_of, read_record
from sandbox.images.table import BUSYBOX, COREDNS, IMAGES, PAUSE, Image


def no_program(name: str) -> Path:
    raise MissingInput(f"no program {name}")


def quiet(line: str) -> None:
    del line


@pytest.fixture(autouse=True)
def never_ask_a_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTH_REGISTRY", "off")


@pytest.fixture
def host_file(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_bytes(b"#!/bin/sh\n")
    path.chmod(0o700)
    return path


def layer_bytes(entries: list[oci.Entry]) -> bytes:
    out = io.BytesIO()
    oci.write_layer(oci.normalised(entries), out)
    return out.getvalue()


def test_layer_is_the_same_whatever_the_order_and_the_times_of_its_files(host_file: Path) -> None:
    entries = [oci.file("/bin/program", host_file), oci.text("/etc/x", "x"), oci.link("/bin/p", "program")]
    before = layer_bytes(entries)
    os.utime(host_file, (1, 1))
    assert layer_bytes(list(reversed(entries))) == before


def test_layer_names_no_host_user_and_no_time(host_file: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(layer_bytes([oci.file("/opt/a/program", host_file)]))) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == ["opt", "opt/a", "opt/a/program"]
    assert {(member.mtime, member.uid, member.gid, member.uname, member.gname) for member in members} == {
        (0, 0, 0, "", "")
    }
    assert members[-1].mode == 0o755


def test_layer_leaves_out_what_the_layers_below_hold(host_file: Path) -> None:
    below = oci.normalised([oci.folder("/tmp", 0o1777), oci.text("/etc/x", "x")])
    above = oci.normalised([oci.text("/etc/x", "x"), oci.text("/tmp/y", "y")], below)
    assert [entry.path for entry in above] == ["/tmp/y"]


@pytest.mark.parametrize("path", ["relative", "/a/../b", "/a//b", "/a/"])
def test_image_path_that_is_not_absolute_and_normal_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="absolute and normal"):
        oci.normalised([oci.text(path, "")])


def test_two_different_entries_for_one_path_are_refused() -> None:
    with pytest.raises(ValueError, match="two different entries for /etc/x"):
        oci.normalised([oci.text("/etc/x", "a"), oci.text("/etc/x", "b")])


def test_capability_survives_in_the_layer(host_file: Path) -> None:
    entry = oci.file("/coredns", host_file, capability=oci.NET_BIND_SERVICE)
    with tarfile.open(fileobj=io.BytesIO(layer_bytes([entry]))) as tar:
        value = tar.getmember("coredns").pax_headers["SCHILY.xattr.security.capability"]
    assert value.encode("utf-8", "surrogateescape") == oci.NET_BIND_SERVICE


def test_building_twice_in_two_caches_gives_the_same_digests(tmp_path: Path) -> None:
    refs = [PAUSE, BUSYBOX]
    first = ensure(refs, progress=quiet, cache=tmp_path / "a")
    second = ensure(refs, progress=quiet, cache=tmp_path / "b")
    assert [read_record(first[ref]) for ref in refs] == [read_record(second[ref]) for ref in refs]


def test_every_blob_of_a_built_image_is_there_and_is_what_its_digest_says(tmp_path: Path) -> None:
    paths = ensure([PAUSE, BUSYBOX], progress=quiet, cache=tmp_path)
    _, blobs = blobs_of(list(paths.values()))
    found = {f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in blobs.values()}
    assert found == set(blobs)


def test_archive_holds_a_blob_shared_by_two_images_once(tmp_path: Path) -> None:
    store, workshop = Store(tmp_path), Workshop(tmp_path, quiet, no_program)
    shared = [lambda workshop: [oci.text("/etc/base", "base")]]
    one = build("example.test/one:1", Recipe([shared], command=["a"]), workshop, store)
    two = build("example.test/two:1", Recipe([shared], command=["b"]), workshop, store)
    out = io.BytesIO()
    oci.write_archive(*blobs_of([one, two]), out)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        names = tar.getnames()
        index = json.load(tar.extractfile("index.json") or io.BytesIO())
    assert len(names) == len(set(names)) == len({"index.json", "oci-layout"}) + 5
    assert [entry["annotations"]["io.containerd.image.name"] for entry in index["manifests"]] == [
        "example.test/one:1", "example.test/two:1",
    ]  # fmt: skip


def test_changed_input_makes_another_layer_and_an_unchanged_one_is_kept(tmp_path: Path, host_file: Path) -> None:
    store, workshop = Store(tmp_path / "cache"), Workshop(tmp_path / "cache", quiet, no_program)

    def layers() -> list[str]:
        recipe = Recipe([[lambda w: [oci.text("/etc/x", "x")]], [lambda w: [oci.file("/bin/p", host_file)]]])
        return [blob["digest"] for blob in read_record(build("example.test/p:1", recipe, workshop, store))["blobs"][2:]]

    before = layers()
    assert layers() == before
    host_file.write_bytes(b"#!/bin/sh\nexit 1\n")
    after = layers()
    assert (after[0], after[1] != before[1]) == (before[0], True)


def test_lost_blob_is_made_again(tmp_path: Path) -> None:
    [path] = ensure([PAUSE], progress=quiet, cache=tmp_path).values()
    _, blobs = blobs_of([path])
    for blob in blobs.values():
        blob.unlink()
    ensure([PAUSE], progress=quiet, cache=tmp_path)
    assert all(blob.exists() for blob in blobs.values())


def test_maker_that_fails_leaves_no_half_made_artefact(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, quiet, no_program)

    def half(into: Path) -> None:
        (into / "a").write_text("a")
        raise MissingInput("no b")

    with pytest.raises(MissingInput):
        workshop.artefact("thing", [1], half)
    assert list((tmp_path / "artefacts").iterdir()) == []


def test_two_threads_make_an_artefact_once(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, quiet, no_program)
    made: list[Path] = []
    both = threading.Barrier(2)

    def ask() -> None:
        both.wait()
        workshop.artefact("thing", [1], made.append)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_missing_package_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"/usr/bin/none.*apt-get install none-tools"):
        Workshop(tmp_path, quiet, no_program).host_file("/usr/bin/none", "none-tools")


def test_image_whose_program_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"coredns:v1\.15\.0: no program coredns"):
        ensure([COREDNS], progress=quiet, program=no_program, cache=tmp_path)


def test_unknown_reference_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"example\.test/none:1 is not in .*registry\.k8s\.io/pause"):
        ensure(["example.test/none:1"], progress=quiet, cache=tmp_path)


def test_every_reference_is_complete_and_its_recipe_says_what_to_run() -> None:
    for ref, image in IMAGES.items():
        place = registry.place(ref)
        assert place.tag not in ("", "latest"), ref
        recipe = image.recipe()
        assert recipe.entrypoint or recipe.command, ref
        assert all(recipe.layers), ref


def test_default_images_are_in_the_table() -> None:
    assert set(default_refs()) <= set(IMAGES)


def test_every_jar_list_is_sorted_pinned_and_without_doubles() -> None:
    lists = sorted(path.stem for path in maven.LISTS.glob("*.txt"))
    assert lists
    for name in lists:
        jars = maven.read_list(name)
        assert jars == sorted(set(jars)), name
        assert len({jar.name for jar in jars}) == len(jars), name
        assert "\n".join(jar.line() for jar in jars) in (maven.LISTS / f"{name}.txt").read_text(), name


@pytest.mark.parametrize("line", ["", "abc  a:b:1", "0" * 64 + "  a:b", "0" * 64 + "  a::1"])
def test_malformed_jar_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="jar list line"):
        maven.parse_line(line)


class Server:
    """A web server on a loopback port that answers from a table of paths: a Maven repository, or a registry."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[str, bytes]] = {}
        self.asked: list[str] = []
        self.token = ""
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                path = self.path.partition("?")[0]
                if path != "/token" and server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", f'Bearer realm="{server.url}/token",service="test"')
                    self.end_headers()
                elif path in server.answers:
                    kind, content = server.answers[path]
                    self.send_response(200)
                    self.send_header("Content-Type", kind)
                    self.end_headers()
                    self.wfile.write(content)
                else:
                    self.send_error(404)

            def log_message(self, format: str, *args: object) -> None:
                del format, args

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.address = f"127.0.0.1:{self._http.server_port}"
        self.url = f"http://{self.address}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def jar_of(content: bytes) -> maven.Jar:
    return maven.Jar("org.example", "thing", "1", "", hashlib.sha256(content).hexdigest())


def test_jar_is_downloaded_once_and_checked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTH_MAVEN_REPO", f"{server.url}/m2/")
    server.answers["/m2/org/example/thing/1/thing-1.jar"] = ("application/java-archive", b"jar")
    [path] = maven.fetch([jar_of(b"jar")], tmp_path, quiet)
    assert maven.fetch([jar_of(b"jar")], tmp_path, quiet) == [path]
    assert (path.read_bytes(), len(server.asked)) == (b"jar", 1)


def test_jar_with_another_digest_is_not_used(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTH_MAVEN_REPO", f"{server.url}/m2")
    server.answers["/m2/org/example/thing/1/thing-1.jar"] = ("application/java-archive", b"other")
    with pytest.raises(maven.JarUnavailable, match="the list pins"):
        maven.fetch([jar_of(b"jar")], tmp_path, quiet)
    assert list(tmp_path.iterdir()) == []


def serve_image(server: Server, ref: str, layer: bytes) -> Mapping[str, bytes]:
    """Put a one-layer image, behind an index of platforms, on the test registry. Returns its blobs."""
    place = registry.place(ref, server.address)
    config = oci.encode({"architecture": "x", "os": "linux"})
    blobs = {oci.descriptor("", content)["digest"]: content for content in (config, layer)}
    manifest = oci.encode(
        {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST_TYPE,
            "config": oci.descriptor(oci.CONFIG_TYPE, config),
            "layers": [oci.descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer)],
        }
    )
    described = oci.descriptor(oci.MANIFEST_TYPE, manifest)
    entries = [
        {**described, "digest": f"sha256:{'0' * 64}", "platform": {"os": "linux", "architecture": "s390x"}},
        *({**described, "platform": {"os": "linux", "architecture": machine}} for machine in ("amd64", "arm64")),
    ]
    index = oci.encode({"schemaVersion": 2, "mediaType": oci.INDEX_TYPE, "manifests": entries})
    root = f"/v2/{place.repository}"
    server.answers["/v2/"] = ("application/json", b"{}")
    server.answers["/token"] = ("application/json", b'{"token": "open"}')
    server.answers[f"{root}/manifests/{place.tag}"] = (oci.INDEX_TYPE, index)
    server.answers[f"{root}/manifests/{described['digest']}"] = (oci.MANIFEST_TYPE, manifest)
    server.answers.update({f"{root}/blobs/{digest}": ("x", content) for digest, content in blobs.items()})
    return blobs


@pytest.mark.parametrize("token", ["", "open"])
def test_image_is_pulled_once_from_a_registry_that_answers(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("BERTH_REGISTRY", server.address)
    served = serve_image(server, PAUSE, b"layer")
    server.token = token
    [path] = ensure([PAUSE], progress=quiet, cache=tmp_path).values()
    manifests, blobs = blobs_of([path])
    assert set(manifests) == {PAUSE}
    assert {digest: blobs[digest].read_bytes() for digest in served} == served
    asked = len(server.asked)
    assert ensure([PAUSE], progress=quiet, cache=tmp_path) == {PAUSE: path}
    assert len(server.asked) == asked


@pytest.mark.parametrize("broken", ["a missing layer", "a wrong layer"])
def test_image_is_built_when_the_registry_fails(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.setenv("BERTH_REGISTRY", server.address)
    serve_image(server, PAUSE, b"layer")
    blob = f"/v2/pause/blobs/{oci.descriptor('', b'layer')['digest']}"
    del server.answers[blob]
    server.answers.update({blob: ("x", b"other")} if broken == "a wrong layer" else {})
    said: list[str] = []
    [path] = ensure([PAUSE], progress=said.append, cache=tmp_path).values()
    assert path.name.endswith(".built.json")
    assert any("not pulled" in line and PAUSE in line for line in said)


def test_registry_that_does_not_answer_is_said_and_the_image_built(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.close()
    monkeypatch.setenv("BERTH_REGISTRY", server.address)
    said: list[str] = []
    [path] = ensure([PAUSE], progress=said.append, cache=tmp_path).values()
    assert path.name.endswith(".built.json")
    assert any("does not answer" in line for line in said)


@pytest.mark.parametrize(
    ("ref", "through", "expected"),
    [
        ("docker.io/library/redis:7", None, registry.Place("https://registry-1.docker.io", "library/redis", "7")),
        ("quay.io/a/b:1", None, registry.Place("https://quay.io", "a/b", "1")),
        ("quay.io/a/b:1", "mirror.test:5000", registry.Place("https://mirror.test:5000", "a/b", "1")),
        ("quay.io/a/b:1", "mirror.test/hub/", registry.Place("https://mirror.test", "hub/a/b", "1")),
        ("quay.io/a/b:1", "http://mirror.test", registry.Place("http://mirror.test", "a/b", "1")),
        ("quay.io/a/b:1", "127.0.0.1:5000", registry.Place("http://127.0.0.1:5000", "a/b", "1")),
        ("localhost:5000/b@sha256:00", None, registry.Place("http://localhost:5000", "b", "sha256:00")),
    ],
)
def test_place_of_an_image(ref: str, through: str | None, expected: registry.Place) -> None:
    assert registry.place(ref, through) == expected


@pytest.mark.parametrize("ref", ["redis", "docker.io/redis", "docker.io/:1", ""])
def test_incomplete_reference_is_refused(ref: str) -> None:
    with pytest.raises(ValueError, match="host/repository:tag"):
        registry.place(ref)


def _cannot_be_made() -> Recipe:
    def part(workshop: Workshop) -> list[oci.Entry]:
        raise MissingInput("its packages cannot be fetched")

    return Recipe([[part]], command=["x"])


@pytest.mark.parametrize("dispensable", [True, False])
def test_only_a_dispensable_image_that_cannot_be_made_is_gone_on_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dispensable: bool
) -> None:
    ref, told = "example.test/new:1", list[str]()
    table = {PAUSE: IMAGES[PAUSE], ref: Image(_cannot_be_made, dispensable=dispensable)}
    monkeypatch.setattr("sandbox.images.build.IMAGES", table)
    outcome = contextlib.nullcontext() if dispensable else pytest.raises(ImageError, match="cannot be fetched")
    with outcome:
        assert set(ensure(progress=told.append, cache=tmp_path)) == {PAUSE}
        assert [line for line in told if ref in line and "cannot be fetched" in line]
    with pytest.raises(ImageError, match="cannot be fetched"):
        ensure([ref], progress=quiet, cache=tmp_path)


def test_a_library_that_is_not_among_the_packages_of_another_suite_is_named(tmp_path: Path) -> None:
    """Never filled in from this system: such an image would run here, and break where the libraries differ."""
    workshop = Workshop(tmp_path / "cache", quiet, no_program)
    loader = Path(os.path.realpath("/lib64/ld-linux-x86-64.so.2"))
    place = tmp_path / "root" / "usr/lib/x86_64-linux-gnu"
    place.mkdir(parents=True)
    (place / "ld-linux-x86-64.so.2").write_bytes(loader.read_bytes())
    (place / "ld-linux-x86-64.so.2").chmod(0o755)
    program = tmp_path / "root" / "bash"
    program.write_bytes(Path("/bin/bash").read_bytes())
    with pytest.raises(MissingInput, match=r"libtinfo\.so\.6, needed by bash, is not among the packages"):
        workshop.libraries_within(tmp_path / "root", [program])
