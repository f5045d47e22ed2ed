"""Images from the cache into containerd, one stream per node, all nodes at once."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sandbox.errors import SandboxError
from sandbox.images import oci
from sandbox.images.store import blobs_of

_NAMESPACE = ("-n", "k8s.io")
_LIST_TIMEOUT_SECONDS = 30.0


class LoadError(SandboxError):
    """containerd refused an image; the message holds what ctr said."""


def _ctr(ctr: Sequence[str], *arguments: str) -> str:
    argv = [*ctr, *_NAMESPACE, *arguments]
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_LIST_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise LoadError(f"{' '.join(argv)} failed: {done.stderr.strip()[-1000:]}")
    return done.stdout


def _load_one(ctr: Sequence[str], paths: Sequence[Path]) -> list[str]:
    manifests, blobs = blobs_of(paths)
    # Columns of `ctr images ls`: REF TYPE DIGEST …
    rows = [line.split() for line in _ctr(ctr, "images", "ls").splitlines()[1:]]
    present = {(row[0], row[2]) for row in rows if len(row) > 2}
    missing = {ref: manifest for ref, manifest in manifests.items() if (ref, manifest["digest"]) not in present}
    if not missing:
        return []
    wanted = {digest for path in paths for ref, files in [_digests(path)] if ref in missing for digest in files}
    held = set(_ctr(ctr, "content", "ls", "-q").split())
    argv = [*ctr, *_NAMESPACE, "images", "import", "-"]
    with tempfile.TemporaryFile() as said:
        # Standard input, because a tool joined to a node's mount namespace does not see the cache.
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=said, stderr=subprocess.STDOUT)
        assert process.stdin is not None
        try:
            oci.write_archive(missing, {digest: blobs[digest] for digest in wanted - held}, process.stdin)
            process.stdin.close()
        except BrokenPipeError:
            pass  # ctr gave up; what it said is the reason
        status = process.wait()
        if status != 0:
            said.seek(0)
            raise LoadError(
                f"{' '.join(argv)} failed with status {status}: {said.read().decode(errors='replace').strip()[-1000:]}"
            )
    return sorted(missing)


def _digests(path: Path) -> tuple[str, set[str]]:
    manifests, blobs = blobs_of([path])
    return next(iter(manifests)), set(blobs)


def load(
    ctrs: Sequence[Sequence[str]], paths: Sequence[Path], *, progress: Callable[[str], None] = lambda line: None
) -> list[list[str]]:
    """Import images into several containerd instances in parallel.

    `ctrs` holds one command prefix per instance, such as ("nsenter", …, "ctr", "--address", "/run/x/containerd.sock");
    `paths` are values of `ensure`'s result. Images an instance has with the same digest are skipped. Returns, per
    instance, the references imported. Raises LoadError.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(ctrs))) as pool:
        loaded = list(pool.map(lambda ctr: _load_one(ctr, paths), ctrs))
    progress(f"images: {sum(map(len, loaded))} imported into {len(ctrs)} nodes")
    return loaded
