"""A client of a Redis Cluster that writes numbered keys until its input ends, then reads back what was acknowledged.

Run as a program inside the cluster's network: `python -m tests.e2e.writer HOST`, the password as the first line of
its input. Prints "ready" after the first writes, and at the end one line of JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from redis.backoff import ConstantBackoff
from redis.cluster import RedisCluster
from redis.exceptions import RedisError
from redis.retry import Retry

PAUSE_SECONDS = 0.005


def main() -> None:
    """See above."""
    password = sys.stdin.readline().strip()
    client: RedisCluster = RedisCluster(
        host=sys.argv[1], password=password, socket_timeout=2, socket_connect_timeout=2,
        retry=Retry(ConstantBackoff(0.05), 3),
    )  # fmt: skip
    ended = threading.Event()

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
    lost = [number for number in acknowledged if client.get(f"key-{number}") != str(number).encode()]
    print(json.dumps({"acknowledged": len(acknowledged), "refused": refused, "lost": lost, "longest_gap": longest}))


if __name__ == "__main__":
    main()
