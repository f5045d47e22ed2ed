"""A redis-py client that believes no server without a certificate for the name it dials, and writes numbered keys.

Run as a program inside the cluster's network: `python -m tests.e2e.verifying_client HOST CA_FILE`, the password as the
first line of its input. Prints "ready" after the first writes; when its input ends, reads back what was acknowledged
and prints one line of JSON. `reconnected` are masters whose connection was not the first one any more.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from redis.backoff import ConstantBackoff
from redis.cluster import RedisCluster
from redis.exceptions import RedisError
from redis.retry import Retry

PAUSE_SECONDS = 0.005


def main() -> None:
    """See above."""
    client: Any = RedisCluster(
        host=sys.argv[1], password=sys.stdin.readline().strip(), socket_timeout=2, socket_connect_timeout=2,
        retry=Retry(ConstantBackoff(0.05), 3), ssl=True, ssl_ca_certs=sys.argv[2], ssl_cert_reqs="required",
        ssl_check_hostname=True,
    )  # fmt: skip
    ended = threading.Event()

    def connections() -> dict[str, int]:
        return {node.name: client.client_id(target_nodes=node) for node in client.get_primaries()}

    first = connections()

    def await_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=await_end, daemon=True).start()
    acknowledged: list[int] = []
    number, refused, longest, last = 0, 0, 0.0, time.monotonic()
    # Paced, so that the machine has something left for what is tested.
    while not ended.wait(PAUSE_SECONDS):
        number += 1
        try:
            client.set(f"key-{number}", number)
        except (RedisError, OSError):
            refused += 1
            continue
        acknowledged.append(number)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
        if len(acknowledged) == 100:
            print("ready", flush=True)
    reconnected = sorted(name for name, number in connections().items() if first.get(name) != number)
    lost = [number for number in acknowledged if client.get(f"key-{number}") != str(number).encode()]
    said = {"acknowledged": len(acknowledged), "refused": refused, "lost": lost, "longest_gap": longest}
    print(json.dumps({**said, "reconnected": reconnected}))


if __name__ == "__main__":
    main()
