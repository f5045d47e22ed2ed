"""The ledger on PostgreSQL: limits hold, every number is explained by its entries, nothing is rewritten."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import Sum

from tenants import quota
from tenants.models import LedgerEntry, QuotaHold, QuotaTotal, Tenant
from tenants.quota import OVERALL, QuotaExceeded


@pytest.fixture
def acme(db: None) -> Tenant:
    return Tenant.objects.create(slug="acme", name="Acme")


def limit(tenant: Tenant, **limits: int) -> None:
    quota.replace_limits(tenant_id=tenant.pk, limits={(OVERALL, name): amount for name, amount in limits.items()})


def reserve(tenant: Tenant, holder: str, cause: str = "op_1", place: str = "berlin", **wanted: int) -> None:
    quota.reserve(tenant_id=tenant.pk, holder=holder, place=place, wanted=wanted, cause=cause)


def settle(tenant: Tenant, holder: str, cause: str = "op_1", **kept: int) -> None:
    quota.settle(tenant_id=tenant.pk, holder=holder, cause=cause, kept=kept)


def standing(tenant: Tenant, resource: str, place: str = OVERALL) -> tuple[int | None, int, int]:
    found = {(one.place, one.resource): one for one in quota.standings(tenant.pk)}
    one = found.get((place, resource), quota.Standing(resource, place, None, 0, 0))
    return one.limit, one.used, one.reserved


def test_a_reservation_counts_at_once_and_becomes_used_at_the_end_of_its_operation(acme: Tenant) -> None:
    limit(acme, pods=10)
    reserve(acme, "clu_a", pods=6)
    assert standing(acme, "pods") == (10, 0, 6)
    settle(acme, "clu_a", pods=6)
    assert standing(acme, "pods") == (10, 6, 0)


def test_what_does_not_fit_is_refused_with_every_limit_it_would_pass_and_nothing_is_written(acme: Tenant) -> None:
    quota.replace_limits(
        tenant_id=acme.pk,
        limits={(OVERALL, "pods"): 10, ("berlin", "cpu"): 1000, (OVERALL, "memory"): 99, ("paris", "pods"): 0},
    )
    reserve(acme, "clu_a", pods=6, cpu=600)
    with pytest.raises(QuotaExceeded) as refused:
        reserve(acme, "clu_b", pods=5, cpu=500, memory=99)
    assert [(one.resource, one.place, one.limit, one.reserved, one.short_by) for one in refused.value.violations] == [
        ("pods", "", 10, 6, 1),
        ("cpu", "berlin", 1000, 600, 100),
    ]
    assert "5 pods more do not fit: acme has 4 pods left of 10 pods. 1 more in violations." in refused.value.detail
    assert "platform administrator" in refused.value.suggestion
    assert not QuotaHold.objects.filter(holder="clu_b").exists()


def test_a_change_reserves_its_growth_only_and_gives_shrinkage_back_at_its_end(acme: Tenant) -> None:
    limit(acme, pods=10, cpu=1000)
    reserve(acme, "clu_a", pods=6, cpu=1000)
    settle(acme, "clu_a", pods=6, cpu=1000)
    reserve(acme, "clu_a", cause="op_2", pods=10, cpu=400)
    assert standing(acme, "pods") == (10, 6, 4)
    assert standing(acme, "cpu") == (1000, 1000, 0)
    with pytest.raises(QuotaExceeded):
        reserve(acme, "clu_b", cpu=1)
    settle(acme, "clu_a", cause="op_2", pods=10, cpu=400)
    assert standing(acme, "pods") == (10, 10, 0)
    assert standing(acme, "cpu") == (1000, 400, 0)
    hold = QuotaHold.objects.get(holder="clu_a", resource="pods")
    assert (hold.used_by, hold.reserved_by) == ("op_2", "")


def test_a_failed_change_gives_nothing_back(acme: Tenant) -> None:
    reserve(acme, "clu_a", pods=6, cpu=1000)
    settle(acme, "clu_a", pods=6, cpu=1000)
    reserve(acme, "clu_a", cause="op_2", pods=9, cpu=400)
    quota.commit(tenant_id=acme.pk, holder="clu_a", cause="op_2")
    assert standing(acme, "pods") == (None, 9, 0)
    assert standing(acme, "cpu") == (None, 1000, 0)


def test_a_limit_lowered_under_use_shows_as_over_and_blocks_growth_of_that_resource_only(acme: Tenant) -> None:
    reserve(acme, "clu_a", pods=6, cpu=1000)
    settle(acme, "clu_a", pods=6, cpu=1000)
    limit(acme, pods=4, cpu=2000)
    over = next(one for one in quota.standings(acme.pk) if one.resource == "pods")
    assert over.left == -2
    reserve(acme, "clu_a", cause="op_2", pods=6, cpu=2000)
    reserve(acme, "clu_a", cause="op_3", pods=3)
    with pytest.raises(QuotaExceeded):
        reserve(acme, "clu_a", cause="op_4", pods=7)


def test_a_limit_of_one_place_leaves_others_alone_and_the_overall_limit_sums_them(acme: Tenant) -> None:
    quota.replace_limits(tenant_id=acme.pk, limits={("berlin", "pods"): 3, (OVERALL, "pods"): 8})
    reserve(acme, "clu_a", pods=3)
    with pytest.raises(QuotaExceeded, match="left on berlin"):
        reserve(acme, "clu_b", pods=1)
    reserve(acme, "clu_b", place="paris", pods=5)
    with pytest.raises(QuotaExceeded):
        reserve(acme, "clu_c", place="paris", pods=1)
    assert standing(acme, "pods") == (8, 0, 8)
    assert standing(acme, "pods", "paris") == (None, 0, 5)


def test_settling_twice_changes_nothing_and_settling_more_than_is_held_takes_nothing(acme: Tenant) -> None:
    reserve(acme, "clu_a", pods=6)
    settle(acme, "clu_a", pods=9, storage=7)
    entries = LedgerEntry.objects.count()
    settle(acme, "clu_a", pods=9, storage=7)
    assert standing(acme, "pods") == (None, 6, 0)
    assert standing(acme, "storage") == (None, 0, 0)
    assert LedgerEntry.objects.count() == entries


def test_a_released_holder_leaves_only_its_entries_and_they_sum_to_nothing(acme: Tenant) -> None:
    reserve(acme, "clu_a", pods=6, storage=100)
    settle(acme, "clu_a", pods=6, storage=100)
    settle(acme, "clu_a", cause="op_2", storage=100)
    assert quota.held_by("clu_a") == {"storage": 100}
    settle(acme, "clu_a", cause="op_3")
    assert not QuotaHold.objects.exists()
    sums = LedgerEntry.objects.aggregate(used=Sum("used_change"), reserved=Sum("reserved_change"))
    assert sums == {"used": 0, "reserved": 0}


@pytest.mark.parametrize(
    "statement",
    ["UPDATE tenants_ledgerentry SET cause = 'x'", "DELETE FROM tenants_ledgerentry", "TRUNCATE tenants_ledgerentry"],
)
def test_the_database_refuses_to_rewrite_the_ledger(acme: Tenant, statement: str) -> None:
    reserve(acme, "clu_a", pods=6)
    with connection.cursor() as cursor:
        # Off in tests otherwise, see the root conftest.py. What waits for the end of the transaction is in its way.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE tenants_ledgerentry ENABLE TRIGGER tenants_ledger_keep_table")
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            cursor.execute(statement)
    assert LedgerEntry.objects.get().cause == "op_1"


def test_the_database_refuses_a_negative_hold(acme: Tenant) -> None:
    reserve(acme, "clu_a", pods=6)
    with pytest.raises(IntegrityError), transaction.atomic():
        QuotaHold.objects.update(reserved=-1)


@pytest.mark.parametrize(
    ("resource", "amount", "words"),
    [
        ("cpu", 1500, "1.5 CPU"),
        ("memory", 512, "512 MiB memory"),
        ("storage", 2048, "2 GiB storage"),
        ("storage:fast", 1024, "1 GiB storage of class fast"),
        ("clusters:redis", 2, "2 redis clusters"),
        ("pods", 3, "3 pods"),
    ],
)
def test_amounts_are_spoken_in_units_of_people(resource: str, amount: int, words: str) -> None:
    assert quota.spoken(resource, amount) == words


def test_a_total_that_is_not_the_sum_of_its_entries_is_told(acme: Tenant) -> None:
    reserve(acme, "clu_a", pods=6)
    reserve(acme, "clu_b", pods=1, place="paris")
    assert quota.unexplained(acme.pk) == []
    QuotaTotal.objects.filter(place="paris").update(reserved=4)
    assert quota.unexplained(acme.pk) == [("paris", "", "pods", 4, 1)]
