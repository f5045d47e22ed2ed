"""OCI layers and image tars, byte for byte the same from the same inputs.

A layer is an uncompressed tar: entries sorted by path, no times, numeric owners only. Uncompressed because the tar
never leaves the machine, unpacking is a plain copy, and the digest does not depend on a compressor's version.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TypedDict

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"

# vfs_cap_data, version 2, effective: CAP_NET_BIND_SERVICE (bit 10) permitted, nothing inheritable.
NET_BIND_SERVICE = bytes.fromhex("0100000200040000000000000000000000000000")

_STREAM_BYTES = 1 << 20


class Descriptor(TypedDict):
    """An OCI content descriptor: media type, digest ("sha256:…"), size in bytes."""

    mediaType: str
    digest: str
    size: int


@dataclass(frozen=True)
class Entry:
    """One path of a layer. Exactly one of `content`, `source`, `target` is set, or none of them for a folder.

    `path` is absolute in the image; `mode` holds permission bits; `capability` is the value of security.capability.
    """

    path: str
    mode: int
    content: bytes | None = None
    source: Path | None = None
    target: str | None = None
    uid: int = 0
    gid: int = 0
    capability: bytes | None = None

    def identity(self) -> list[object]:
        """What decides the bytes this entry adds. A host file counts by size and time of change, so no file is read."""
        mark: object = None
        if self.content is not None:
            mark = hashlib.sha256(self.content).hexdigest()
        elif self.source is not None:
            stat = self.source.stat()
            mark = [str(self.source), stat.st_size, stat.st_mtime_ns]
        elif self.target is not None:
            mark = self.target
        capability = self.capability.hex() if self.capability else None
        return [self.path, self.mode, self.uid, self.gid, capability, mark]


def folder(path: str, mode: int = 0o755, *, uid: int = 0, gid: int = 0) -> Entry:
    """A folder of the image."""
    return Entry(path, mode, uid=uid, gid=gid)


def text(path: str, content: str, mode: int = 0o644, *, uid: int = 0, gid: int = 0) -> Entry:
    """A small text file of the image."""
    return Entry(path, mode, content=content.encode(), uid=uid, gid=gid)


def file(path: str, source: Path, mode: int | None = None, *, capability: bytes | None = None) -> Entry:
    """A host file copied into the image; symlinks are followed. The mode is 0755 or 0644, as the file is executable."""
    real = source.resolve(strict=True)
    if mode is None:
        mode = 0o755 if real.stat().st_mode & 0o111 else 0o644
    return Entry(path, mode, source=real, capability=capability)


def link(path: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(path, 0o777, target=target)


def normalised(entries: Iterable[Entry], below: Collection[Entry] = ()) -> list[Entry]:
    """Sorted by path, with missing parent folders added and without what the layers `below` hold already.

    Raises ValueError when two different entries claim one path, or a path is not absolute and normal.
    """
    by_path: dict[str, Entry] = {}
    for entry in entries:
        if (
            not entry.path.startswith("/")
            or entry.path != str(PurePosixPath(entry.path))
            or ".." in entry.path.split("/")
        ):
            raise ValueError(f"image path {entry.path!r} must be absolute and normal, such as /usr/bin/x")
        other = by_path.setdefault(entry.path, entry)
        if other != entry:
            raise ValueError(f"two different entries for {entry.path}")
    present = {entry.path for entry in below}
    for known in set(below) & set(by_path.values()):
        del by_path[known.path]
    for path in list(by_path):
        for parent in PurePosixPath(path).parents:
            if str(parent) != "/" and str(parent) not in present:
                by_path.setdefault(str(parent), folder(str(parent)))
    return [by_path[path] for path in sorted(by_path)]


class _Digesting(io.RawIOBase):
    """A write-only stream that hands everything on and keeps digest and size."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self.digest = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]  # RawIOBase promises any buffer
        self.digest.update(view)
        self.size += view.nbytes
        self._out.write(view)
        return view.nbytes


def write_layer(entries: Sequence[Entry], out: IO[bytes]) -> Descriptor:
    """Write the layer tar of `normalised` entries and return its descriptor (its digest is the diff id as well)."""
    stream = _Digesting(out)
    with tarfile.open(fileobj=stream, mode="w|", bufsize=_STREAM_BYTES, format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry.path.lstrip("/"))
            info.mode, info.uid, info.gid, info.mtime = entry.mode, entry.uid, entry.gid, 0
            if entry.capability is not None:
                # PAX values are text in tarfile; surrogateescape carries the raw bytes through.
                info.pax_headers = {
                    "SCHILY.xattr.security.capability": entry.capability.decode("utf-8", "surrogateescape")
                }
            if entry.source is not None:
                with entry.source.open("rb") as content:
                    info.size = entry.source.stat().st_size
                    tar.addfile(info, content)
            elif entry.content is not None:
                info.size = len(entry.content)
                tar.addfile(info, io.BytesIO(entry.content))
            elif entry.target is not None:
                info.type, info.linkname = tarfile.SYMTYPE, entry.target
                tar.addfile(info)
            else:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
    return {"mediaType": LAYER_TYPE, "digest": "sha256:" + stream.digest.hexdigest(), "size": stream.size}


def encode(document: Mapping[str, object]) -> bytes:
    """JSON with sorted keys and no spaces: one document, one digest."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def descriptor(media_type: str, content: bytes) -> Descriptor:
    """The descriptor of a blob held in memory."""
    return {"mediaType": media_type, "digest": "sha256:" + hashlib.sha256(content).hexdigest(), "size": len(content)}


def _member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    return info


def write_archive(manifests: Mapping[str, Descriptor], blobs: Mapping[str, Path], out: IO[bytes]) -> None:
    """Stream an OCI image layout as tar, as `ctr images import -` reads it.

    `manifests` maps a reference to its manifest, `blobs` a digest to the file that holds it; a blob that several images
    use is written once, and one left out must be in the reader's store already.
    """
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX_TYPE,
        "manifests": [
            {
                **manifests[ref],
                "annotations": {"io.containerd.image.name": ref, "org.opencontainers.image.ref.name": ref},
            }
            for ref in sorted(manifests)
        ],
    }
    documents = {"index.json": encode(index), "oci-layout": encode({"imageLayoutVersion": "1.0.0"})}
    with tarfile.open(fileobj=out, mode="w|", bufsize=_STREAM_BYTES, format=tarfile.PAX_FORMAT) as tar:
        for name, content in documents.items():
            tar.addfile(_member(name, len(content)), io.BytesIO(content))
        for digest in sorted(blobs):
            with blobs[digest].open("rb") as content_file:
                tar.addfile(_member("blobs/" + digest.replace(":", "/"), blobs[digest].stat().st_size), content_file)


def read_layer(path: Path) -> Iterator[tarfile.TarInfo]:
    """The members of a layer tar, in order."""
    with tarfile.open(path, mode="r:") as tar:
        yield from tar
