"""The images the sandbox can make, by the reference a production cluster would pull.

To add one, add an entry. If no recipe of recipes.py fits, write a function there that returns a Recipe (layers of
parts: `tools`, `runtime`, `java`, `programs`, `jars`, `script` …). Jars need a list in jars/, written by
`python -m sandbox.images lock group:artifact:version …`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sandbox.images import recipes
from sandbox.images.recipes import Recipe


@dataclass(frozen=True)
class Image:
    """A recipe and whether `sandbox up` loads the image without being asked.

    `dispensable`: where it cannot be made (its packages are fetched), `up` says so and goes on without.
    """

    recipe: Callable[[], Recipe]
    default: bool = True
    dispensable: bool = False


PAUSE = "registry.k8s.io/pause:3.10"
COREDNS = "registry.k8s.io/coredns/coredns:v1.15.0"
REDIS = "docker.io/library/redis:7.0.15"
REDIS_NEW = "docker.io/library/redis:8.0.2"
REDIS_EXPORTER = "quay.io/oliver006/redis_exporter:v1.45.0"
ZOOKEEPER = "docker.io/library/zookeeper:3.9.4"
ZOOKEEPER_OLD = "docker.io/library/zookeeper:3.8.6"
BUSYBOX = "docker.io/library/busybox:1.35"

IMAGES: Mapping[str, Image] = {
    PAUSE: Image(recipes.pause_only),
    COREDNS: Image(recipes.coredns),
    REDIS: Image(lambda: recipes.redis("7.0.15")),
    REDIS_NEW: Image(lambda: recipes.redis_of("8.0.2", "trixie"), dispensable=True),
    REDIS_EXPORTER: Image(lambda: recipes.redis_exporter("1.45.0")),
    ZOOKEEPER: Image(lambda: recipes.zookeeper("3.9.4")),
    ZOOKEEPER_OLD: Image(lambda: recipes.zookeeper("3.8.6"), default=False),
    BUSYBOX: Image(recipes.busybox, default=False),
}
