"""Container images for the embedded target, made without a registry and without Docker.

    paths = ensure(["docker.io/library/redis:7.0.15"], progress=print)
    load([("ctr", "--address", "/run/n1/containerd.sock"), …], list(paths.values()))

table.py lists the images, README.md tells how to add one.
"""

from sandbox.images.build import ImageError, default_refs, ensure
from sandbox.images.load import LoadError, load

__all__ = ["ImageError", "LoadError", "default_refs", "ensure", "load"]
