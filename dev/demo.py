"""`make demo`: bring Berth up on the embedded target, order a Redis Cluster through the API, use it, go on serving.

Exit status 0 only when the delivered cluster was written to and read from.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Mapping
from typing import Any

from dev.portal import ApiError, PortalError
from dev.services import ServiceError
from dev.stack import Stack, interruptible, running_stack
from sandbox import SandboxError

TENANT = "demo"
CLUSTER = "orders"
ORDER = {"engine": "redis", "name": CLUSTER, "plan": "redis-dev", "spec": {"shards": 3, "replicasPerShard": 1}}


class DemoError(Exception):
    """The demo did not hold; the message says what."""


class Clock:
    """Prints lines with the seconds since the start."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def say(self, line: str) -> None:
        print(f"{time.monotonic() - self.start:6.1f} s  {line}", flush=True)


def order(stack: Stack, clock: Clock) -> Mapping[str, Any]:
    """Order the cluster and print the steps as they happen; returns the cluster. Raises DemoError when it failed."""
    api = stack.api()
    clock.say(f"Ordering: POST /api/v1/tenants/{TENANT}/clusters {ORDER}")
    asked = time.monotonic()
    path = f"/api/v1/tenants/{TENANT}/clusters"
    answer = api.request("POST", path, ORDER, headers={"Idempotency-Key": secrets.token_hex(16)})
    shown: dict[str, str] = {}

    def show(operation: Mapping[str, Any]) -> None:
        for step in operation["steps"]:
            line = step["state"] if step["state"] in ("done", "failed") else step["reason"]
            if line and shown.get(step["key"]) != line and shown.get(step["key"]) != "done":
                shown[step["key"]] = line
                mark = {"done": "✓", "failed": "✗"}.get(step["state"], "…")
                clock.say(f"  {mark} {step['title']}" + (f": {step['reason']}" if step["state"] == "running" else ""))

    show(answer["operation"])
    operation = api.follow(answer["operation"], show)
    if operation["state"] != "succeeded":
        error = operation.get("error") or {}
        raise DemoError(
            f"The order ended as {operation['state']}: {error.get('message', '')} {error.get('remedy', '')}"
        )
    clock.say(f"Ready {time.monotonic() - asked:.1f} s after the request. Proof: {operation['proof']['summary']}")
    cluster: Mapping[str, Any] = api.request("GET", f"{path}/{CLUSTER}")
    return cluster


def use(stack: Stack, clock: Clock) -> None:
    """Print the connection snippet, run it as printed, and write and read a key of our own. Raises DemoError."""
    api = stack.api()
    base = f"/api/v1/tenants/{TENANT}/clusters/{CLUSTER}"
    snippets = api.request("GET", f"{base}/snippets")["items"]
    shell = next(snippet for snippet in snippets if snippet["language"] == "shell")
    principal = api.request("GET", f"{base}/credentials")["items"][0]["name"]
    revealed = api.request("POST", f"{base}/credentials/{principal}/reveal")
    code = shell["code"].replace("{password}", revealed["password"])
    clock.say("Connection snippet (works inside the target's network):")
    print("\n" + "\n".join(f"    {line}" for line in code.splitlines()) + "\n", flush=True)
    if stack.sandbox is None:
        clock.say("Not run from here: this host is outside the cluster's network. The proof above went through it.")
        return
    ran = stack.run_inside(["bash", "-euo", "pipefail", "-c", code], timeout=60)
    if ran.returncode != 0:
        raise DemoError(f"The snippet failed: {ran.stdout.strip()} {ran.stderr.strip()}")
    clock.say("Ran it as printed; it answered:")
    print("\n".join(f"    {line}" for line in ran.stdout.strip().splitlines()), flush=True)
    clock.say(f"To run it yourself: python -m sandbox exec --name {stack.sandbox.name} -- bash -c '…'")


def main() -> int:
    """Parse the command line, run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="port of 127.0.0.1 the portal is served on")
    parser.add_argument("--once", action="store_true", help="stop after the proof")
    parser.add_argument("--no-order", action="store_true", help="only serve")
    arguments = parser.parse_args()
    clock = Clock()
    with interruptible() as stopped:
        try:
            with running_stack(name="demo", port=arguments.port, progress=clock.say) as stack:
                if not arguments.no_order:
                    order(stack, clock)
                    use(stack, clock)
                if arguments.once:
                    clock.say("The proof held. Taking everything down.")
                    return 0
                clock.say(f"Serving at {stack.url}: sign in as alice with the password {stack.password}")
                clock.say("Ctrl-C ends it and leaves nothing behind.")
                stopped.wait()
        except KeyboardInterrupt:
            clock.say("Stopped. Everything was taken down.")
            return 0 if not arguments.once else 130
        except (ApiError, DemoError, PortalError, SandboxError, ServiceError) as error:
            print(f"\nThe demo did not hold: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
