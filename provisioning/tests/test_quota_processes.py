"""Many processes against small limits, killed at any moment: nothing is given out twice, nothing is kept for nobody.

10,000 attempts on the ledger itself, always. By way of whole orders, changes and deletions, as many as the machine does
in BOUND_SECONDS; `make test-ledger` takes the time for 10,000 of those, too. The numbers are printed.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.db import connection

from provisioning.clusters.quota import amounts_of
from provisioning.models import Cluster, Operation, Phase, Target
from provisioning.tests.quota_moves import Crowd, LedgerMoves, Moves
from tenants import quota
from tenants.models import QuotaHold, Tenant, User
from tenants.quota import OVERALL

ATTEMPTS = 10_000
LEAST_ATTEMPTS = 300
ALL = "BERTH_TEST_LEDGER_SECONDS" in os.environ
BOUND_SECONDS = float(os.environ.get("BERTH_TEST_LEDGER_SECONDS", "20"))
LOOK_EVERY_SECONDS = 0.05
LIMITS = {"clusters": 6, "pods": 40, "cpu": 4500, "memory": 7000, "storage": 50 * 1024}


def crowd(moves: type[Crowd], tenant: Tenant, user: User, counts: Path) -> subprocess.Popen[str]:
    """Start the processes on this test's database."""
    url = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
    return subprocess.Popen(
        [sys.executable, "-m", "provisioning.tests.quota_crowd", moves.__name__, tenant.pk, str(user.pk), str(counts)],
        env={**os.environ, "DATABASE_URL": url, "BERTH_LOG_LEVEL": "ERROR"}, cwd=settings.BASE_DIR, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def is_worth_going_on(attempts: int, seconds: float) -> bool:
    """All attempts if time allows; on a slow machine at least so many that a race would show."""
    return attempts < LEAST_ATTEMPTS or (attempts < ATTEMPTS and seconds < BOUND_SECONDS)


def keep_at_it(
    moves: type[Crowd], tenant: Tenant, user: User, folder: Path, capsys: pytest.CaptureFixture[str],
    goes_on: Callable[[int, float], bool],
) -> int:  # fmt: skip
    """Let a crowd loose on small limits, and look at the standings while `goes_on` says so of attempts and seconds;
    returns the attempts made.
    """
    quota.replace_limits(tenant_id=tenant.pk, limits={(OVERALL, name): most for name, most in LIMITS.items()})
    counts = folder / "counts"
    counts.touch()
    running = crowd(moves, tenant, user, counts)
    looks, began = 0, time.monotonic()
    try:
        while goes_on(counts.stat().st_size, time.monotonic() - began):
            if running.poll() is not None:
                break  # by itself, which it should not: what it said is shown below
            assert over(tenant) == []
            looks += 1
            time.sleep(LOOK_EVERY_SECONDS)
    finally:
        # The end of its input ends it, and its workers with it.
        kills, complaints = running.communicate(timeout=60)
    seconds, attempts = time.monotonic() - began, counts.stat().st_size
    assert (running.returncode, complaints) == (0, "")
    with capsys.disabled():
        print(f"\n{attempts} attempts in {seconds:.0f} s, {kills.strip()} kills, {looks} looks, 0 over-allocations")
    assert int(kills) > 0
    assert over(tenant) == []
    assert quota.unexplained(tenant.pk) == []
    return attempts


@pytest.mark.django_db(transaction=True)
def test_ten_thousand_attempts_on_the_ledger_by_killed_processes_neither_overspend_nor_leak(
    acme: Tenant, alice: User, target: Target, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attempts = keep_at_it(LedgerMoves, acme, alice, tmp_path, capsys, lambda attempts, seconds: attempts < ATTEMPTS)
    assert attempts >= ATTEMPTS
    for holder in QuotaHold.objects.values_list("holder", flat=True).distinct():
        quota.settle(tenant_id=acme.pk, holder=holder, cause="end", kept={})
    assert not QuotaHold.objects.exists()
    assert all((one.used, one.reserved) == (0, 0) for one in quota.standings(acme.pk))
    assert quota.unexplained(acme.pk) == []


def over(tenant: Tenant) -> list[quota.Standing]:
    return [one for one in quota.standings(tenant.pk) if one.left is not None and one.left < 0]


@pytest.mark.django_db(transaction=True)
def test_killed_processes_neither_overspend_nor_leak(
    acme: Tenant, alice: User, target: Target, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attempts = keep_at_it(Moves, acme, alice, tmp_path, capsys, is_worth_going_on)
    assert attempts >= (ATTEMPTS if ALL else LEAST_ATTEMPTS)
    nothing_is_held_for_nobody(acme)
    # Whoever comes after the killed ends what they left open; then everything is deleted, and nothing may stay.
    moves = Moves(acme.pk, alice.pk, random.Random(0))
    for pk in list(Operation.objects.open().values_list("pk", flat=True)):
        moves.finish(pk, well=True)
    nothing_is_held_for_nobody(acme)
    while Cluster.objects.present().exists():
        moves.delete()
        moves.finish(Operation.objects.open().values_list("pk", flat=True)[0], well=True)
    assert not QuotaHold.objects.exists()
    assert quota.unexplained(acme.pk) == []


def nothing_is_held_for_nobody(tenant: Tenant) -> None:
    """Deleted clusters hold nothing, those at rest exactly what their spec says, the others at least that."""
    holders = set(QuotaHold.objects.filter(tenant=tenant).values_list("holder", flat=True))
    present = {cluster.pk: cluster for cluster in Cluster.objects.present()}
    assert holders == set(present)
    for pk, cluster in present.items():
        held, wished = quota.held_by(pk), amounts_of(cluster.engine, cluster.spec)
        assert all(held.get(resource, 0) >= amount for resource, amount in wished.items())
        assert held == wished or cluster.phase != Phase.READY
