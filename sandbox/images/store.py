"""The image cache: blobs by digest, layers by what they are made of, and per image the list of its blobs.

    <cache>/blobs/sha256/<hex>      layers, configurations, manifests
    <cache>/layers/<key>.json       descriptor of the layer made from the inputs hashed in <key>
    <cache>/images/<name>.json      one image: reference, manifest, blobs; what `ensure` hands out and `load` takes
Everything is written aside and renamed: a file that exists is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypedDict

from sandbox.images import oci
from sandbox.images.oci import Descriptor, Entry
from sandbox.images.sources import locked

# Part of every layer key: raise it when the same entries become other bytes.
_FORMAT = 1


class Record(TypedDict):
    """The JSON of one cached image; `blobs` holds manifest, configuration and layers."""

    ref: str
    manifest: Descriptor
    blobs: list[Descriptor]


@dataclass(frozen=True)
class Store:
    """The cache below one folder."""

    root: Path

    def blob(self, digest: str) -> Path:
        """Where the blob is, or would be."""
        return self.root / "blobs" / digest.replace(":", "/")

    def write(self, path: Path, content: bytes) -> None:
        """Write a file whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as out:
            out.write(content)
        os.replace(out.name, path)

    def add(self, media_type: str, content: bytes) -> Descriptor:
        """Keep a blob held in memory."""
        described = oci.descriptor(media_type, content)
        if not self.blob(described["digest"]).exists():
            self.write(self.blob(described["digest"]), content)
        return described

    def scratch(self) -> IO[bytes]:
        """A file to write a blob to, on the cache's file system, for `adopt`."""
        folder = self.root / "blobs" / "sha256"
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.NamedTemporaryFile(dir=folder, prefix=".", delete=False)

    def adopt(self, scratch: IO[bytes], digest: str) -> None:
        """Give a finished scratch file its name."""
        scratch.close()
        os.replace(scratch.name, self.blob(digest))

    def layer(self, entries: Sequence[Entry]) -> Descriptor:
        """The layer of these entries, written when the same inputs were not seen before."""
        identity = json.dumps([_FORMAT, [entry.identity() for entry in entries]]).encode()
        key = hashlib.sha256(identity).hexdigest()
        index = self.root / "layers" / f"{key}.json"
        with locked(self.root / "locks" / f"layer-{key[:16]}"):
            if index.exists():
                known: Descriptor = json.loads(index.read_text())
                if self.blob(known["digest"]).exists():
                    return known
            with self.scratch() as out:
                described = oci.write_layer(entries, out)
                self.adopt(out, described["digest"])
            self.write(index, oci.encode(dict(described)))
            return described

    def _record_path(self, ref: str, kind: str) -> Path:
        return self.root / "images" / f"{re.sub(r'[^A-Za-z0-9.]+', '-', ref)}.{kind}.json"

    def keep(self, ref: str, kind: str, manifest: Descriptor, parts: Sequence[Descriptor]) -> Path:
        """Note an image whose blobs are all there. `kind` says where it is from: "built" or "pulled"."""
        record: Record = {"ref": ref, "manifest": manifest, "blobs": [manifest, *parts]}
        path = self._record_path(ref, kind)
        content = oci.encode(dict(record))
        if not path.exists() or path.read_bytes() != content:
            self.write(path, content)
        return path

    def kept(self, ref: str, kind: str) -> Path | None:
        """The image's file if it and all its blobs are in the cache."""
        path = self._record_path(ref, kind)
        if not path.exists():
            return None
        complete = all(self.blob(blob["digest"]).exists() for blob in read_record(path)["blobs"])
        return path if complete else None


def read_record(path: Path) -> Record:
    """The image a file of images/ describes."""
    record: Record = json.loads(path.read_text())
    return record


def blobs_of(paths: Sequence[Path]) -> tuple[Mapping[str, Descriptor], Mapping[str, Path]]:
    """Manifests by reference, and blob files by digest, of the images in the given files of images/."""
    manifests, files = {}, {}
    for path in paths:
        record = read_record(path)
        store = Store(path.parent.parent)
        manifests[record["ref"]] = record["manifest"]
        files.update({blob["digest"]: store.blob(blob["digest"]) for blob in record["blobs"]})
    return manifests, files
