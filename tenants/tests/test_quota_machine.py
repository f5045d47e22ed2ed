"""The ledger against a model of it, on PostgreSQL: hypothesis looks for an order of movements that breaks a rule."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tenants import quota
from tenants.models import Tenant
from tenants.quota import OVERALL, QuotaExceeded, Violation

NUMBER = itertools.count()
PLACES = {"a": "berlin", "b": "berlin", "c": "paris"}
RESOURCES = ("pods", "cpu", "storage:fast")
HOLDERS = st.sampled_from(sorted(PLACES))
AMOUNTS = st.dictionaries(st.sampled_from(RESOURCES), st.integers(0, 8), min_size=1)
LIMITS = st.dictionaries(
    st.tuples(st.sampled_from([OVERALL, "berlin", "paris"]), st.sampled_from(RESOURCES)), st.integers(0, 16)
)


class Ledger(RuleBasedStateMachine):
    """`used` and `reserved`: (holder, resource) to amount, as they should be."""

    @initialize(limits=LIMITS)
    def start(self, limits: dict[tuple[str, str], int]) -> None:
        self.run = next(NUMBER)
        self.tenant = Tenant.objects.create(slug=f"t{self.run}", name="T")
        self.used: dict[tuple[str, str], int] = {}
        self.reserved: dict[tuple[str, str], int] = {}
        self.set_limits(limits)

    @rule(limits=LIMITS)
    def set_limits(self, limits: dict[tuple[str, str], int]) -> None:
        quota.replace_limits(tenant_id=self.tenant.pk, limits=limits)
        self.limits = limits

    @rule(holder=HOLDERS, wanted=AMOUNTS)
    def reserve(self, holder: str, wanted: dict[str, int]) -> None:
        growth = {
            resource: amount - self.held(holder, resource)
            for resource, amount in wanted.items()
            if amount > self.held(holder, resource)
        }
        passed = {
            (place, resource)
            for (place, resource), most in self.limits.items()
            if place in (OVERALL, PLACES[holder]) and resource in growth
            and self.total(place, resource) + growth[resource] > most
        }  # fmt: skip
        try:
            quota.reserve(
                tenant_id=self.tenant.pk, holder=self.id(holder), place=PLACES[holder], wanted=wanted, cause="op"
            )
            violations: tuple[Violation, ...] = ()
        except QuotaExceeded as refused:
            violations = refused.violations
        assert {(one.place, one.resource) for one in violations} == passed
        for one in violations:
            assert one.short_by == self.total(one.place, one.resource) + one.requested - one.limit
        if violations:
            return
        for resource, amount in growth.items():
            self.reserved[holder, resource] = self.reserved.get((holder, resource), 0) + amount

    @rule(holder=HOLDERS)
    def commit(self, holder: str) -> None:
        quota.commit(tenant_id=self.tenant.pk, holder=self.id(holder), cause="op")
        self.take_up(holder)

    @rule(holder=HOLDERS, kept=AMOUNTS | st.just({}))
    def settle(self, holder: str, kept: dict[str, int]) -> None:
        quota.settle(tenant_id=self.tenant.pk, holder=self.id(holder), cause="op", kept=kept)
        self.take_up(holder)
        for resource in RESOURCES:
            used = self.used.get((holder, resource), 0)
            self.used[holder, resource] = min(used, kept.get(resource, 0))

    def take_up(self, holder: str) -> None:
        for resource in RESOURCES:
            promised = self.reserved.pop((holder, resource), 0)
            self.used[holder, resource] = self.used.get((holder, resource), 0) + promised

    def id(self, holder: str) -> str:
        return f"clu_{self.run}_{holder}"

    def held(self, holder: str, resource: str) -> int:
        return self.used.get((holder, resource), 0) + self.reserved.get((holder, resource), 0)

    def total(self, place: str, resource: str) -> int:
        return sum(self.held(holder, resource) for holder, at in PLACES.items() if place in (OVERALL, at))

    @invariant()
    def every_number_is_the_models(self) -> None:
        found = {(one.place, one.resource): one.used + one.reserved for one in quota.standings(self.tenant.pk)}
        for place in (OVERALL, "berlin", "paris"):
            for resource in RESOURCES:
                assert found.get((place, resource), 0) == self.total(place, resource)

    @invariant()
    def every_number_is_the_sum_of_its_entries(self) -> None:
        assert quota.unexplained(self.tenant.pk) == []


@pytest.mark.django_db
def test_no_order_of_movements_breaks_the_ledger() -> None:
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    options = settings(max_examples=40, stateful_step_count=15, deadline=None, suppress_health_check=checks)
    run_state_machine_as_test(Ledger, settings=options)
