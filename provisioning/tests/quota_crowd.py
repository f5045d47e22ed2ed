"""Processes that order, change, delete and finish clusters of one tenant as fast as they can, and are killed doing it.

Started by test_quota_processes.py: `python -m provisioning.tests.quota_crowd <moves> <tenant> <user> <count file>`,
with a class of quota_moves.py. It has Django loaded and no connection to anything; it forks the workers, kills one
of them now and then, and forks another (milliseconds instead of the seconds a fresh start takes). Ends, with its
workers, when its standard input does.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
from collections.abc import Sequence

import django

WORKERS = 4
KILL_EVERY_SECONDS = 0.5


def main(arguments: Sequence[str]) -> None:
    """Until standard input ends; prints how many were killed."""
    moves, tenant_id, user_id, count = arguments
    os.environ["DJANGO_SETTINGS_MODULE"] = "portal.settings"
    django.setup()
    seeds = iter(range(1, 1_000_000))
    workers = [fork(moves, tenant_id, int(user_id), next(seeds), count) for _ in range(WORKERS)]
    killed = 0
    try:
        while not select.select([sys.stdin], [], [], KILL_EVERY_SECONDS)[0]:
            end(workers.pop(random.randrange(WORKERS)))
            killed += 1
            workers.append(fork(moves, tenant_id, int(user_id), next(seeds), count))
    finally:
        for pid in workers:
            end(pid)
    print(killed)


def end(pid: int) -> None:
    """Kill a worker in the middle of whatever it does. Fails when it had ended by itself: it never should."""
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        raise SystemExit(f"worker {pid} ended by itself")


def fork(kind: str, tenant_id: str, user_id: int, seed: int, count: str) -> int:
    """Start a worker; returns its process id."""
    # Django's models can be imported only after django.setup().
    from provisioning.tests import quota_moves  # noqa: PLC0415

    pid = os.fork()
    if pid:
        return pid
    try:
        file = os.open(count, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        choose = random.Random(seed)
        moves: quota_moves.Crowd = getattr(quota_moves, kind)(tenant_id, user_id, choose)
        for number in range(1_000_000_000):
            os.write(file, b".")
            moves.attempt(f"c-{seed}-{number}")
            moves.finish_one()
    finally:
        # Whatever it was is a fault, and shown; the parent's own ending must not run here.
        sys.excepthook(*sys.exc_info())
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
