"""From references to images in the cache, built or pulled."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sandbox import programs
from sandbox.errors import SandboxError
from sandbox.images import oci
from sandbox.images.maven import JarUnavailable
from sandbox.images.recipes import Recipe, architecture
from sandbox.images.registry import PullError, Registries, configured, place
from sandbox.images.sources import MissingInput, Workshop
from sandbox.images.store import Store
from sandbox.images.table import IMAGES
from sandbox.layout import cache_home

_SLOW_SECONDS = 1.0


class ImageError(SandboxError):
    """An image can neither be pulled nor built; the message names the image, the reason and the remedy."""


def default_refs() -> list[str]:
    """The references `sandbox up` loads without being asked."""
    return [ref for ref, image in IMAGES.items() if image.default]


def _found_or_built(name: str, progress: Callable[[str], None]) -> Path:
    """A program that is no system package. Raises MissingInput."""
    if name == "coredns":
        return programs.coredns(progress)
    raise MissingInput(f"nothing in sandbox/programs.py makes the program {name}")


def build(ref: str, recipe: Recipe, workshop: Workshop, store: Store) -> Path:
    """Build one image into the store; layers whose inputs did not change are taken from it."""
    layers: list[oci.Descriptor] = []
    below: set[oci.Entry] = set()
    for parts in recipe.layers:
        entries = oci.normalised((entry for part in parts for entry in part(workshop)), below)
        if entries:
            layers.append(store.layer(entries))
            below.update(entries)
    config = {
        "architecture": architecture(),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": recipe.config(),
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "berth sandbox"} for _ in layers],
    }
    config_descriptor = store.add(oci.CONFIG_TYPE, oci.encode(config))
    manifest = {"schemaVersion": 2, "mediaType": oci.MANIFEST_TYPE, "config": config_descriptor, "layers": layers}
    return store.keep(ref, "built", store.add(oci.MANIFEST_TYPE, oci.encode(manifest)), [config_descriptor, *layers])


def _pulled(ref: str, workshop: Workshop, store: Store, registries: Registries) -> Path | None:
    """The image from a registry, or None when it has to be built."""
    kept = store.kept(ref, "pulled")
    registry = configured()
    # A machine without a registry built the image before: it is not asked for again at every start.
    if kept or registry == "off" or (registry is None and store.kept(ref, "built")):
        return kept
    where = place(ref, registry)
    if not registries.answers(where.base):
        if registry is not None:
            workshop.progress(f"image {ref}: {where.base} (BERTH_REGISTRY) does not answer; building it")
        return None
    workshop.progress(f"image {ref}: pulling from {where.base}")
    try:
        return registries.pull(ref, where, architecture(), store)
    except (PullError, OSError, ValueError, KeyError) as error:
        workshop.progress(f"image {ref}: not pulled ({error}); building it")
        return None


def _ensure_one(ref: str, workshop: Workshop, store: Store, registries: Registries) -> Path:
    pulled = _pulled(ref, workshop, store, registries)
    if pulled is not None:
        return pulled
    started = time.monotonic()
    try:
        path = build(ref, IMAGES[ref].recipe(), workshop, store)
    except (SandboxError, MissingInput, JarUnavailable, OSError, ValueError) as error:
        raise ImageError(f"image {ref}: {error}") from error
    if time.monotonic() - started > _SLOW_SECONDS:
        workshop.progress(f"image {ref}: ready")
    return path


def ensure(
    refs: Sequence[str] | None = None,
    *,
    progress: Callable[[str], None],
    program: Callable[[str], Path] | None = None,
    cache: Path | None = None,
) -> dict[str, Path]:
    """The images, from the cache, a registry or made now, side by side; the default ones when `refs` is None.

    `program` finds binaries that are not system packages by name ("coredns"); when it is None, sandbox.programs does.
    The result maps each reference to a file that `load` takes. Raises ImageError for an unknown reference or one that
    cannot be made.
    """
    wanted = list(dict.fromkeys(default_refs() if refs is None else refs))
    for ref in wanted:
        if ref not in IMAGES:
            raise ImageError(
                f"image {ref} is not in sandbox/images/table.py: add an entry, or use one of {', '.join(IMAGES)}"
            )
    store = Store(cache or cache_home() / "images")
    workshop = Workshop(store.root, progress, program or (lambda name: _found_or_built(name, progress)))
    registries = Registries()

    def one(ref: str) -> Path | None:
        try:
            return _ensure_one(ref, workshop, store, registries)
        except ImageError as error:
            if refs is not None or not IMAGES[ref].dispensable:
                raise
            progress(f"going on without an image that nothing needs at once: {error}")
            return None

    with ThreadPoolExecutor(max_workers=4) as pool:
        paths = list(pool.map(one, wanted))
    return {ref: path for ref, path in zip(wanted, paths, strict=True) if path is not None}
