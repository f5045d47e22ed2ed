"""The embedded target: upstream Kubernetes on one Linux machine, without Docker.

    from sandbox import Sandbox
    sandbox = Sandbox("demo")
    sandbox.up(progress=print)
    sandbox.kubectl("get", "nodes")
    sandbox.down(wipe=True)

The package needs the standard library only and knows nothing of the portal. README.md is for people in a hurry.
"""

from sandbox.cluster import Sandbox
from sandbox.errors import SandboxError

__all__ = ["Sandbox", "SandboxError"]
