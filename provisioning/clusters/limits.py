"""Limits of a tenant, as platform administrators set them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from django.db import transaction

from provisioning import tasks
from provisioning.engines.registry import ENGINES
from provisioning.models import Target
from tenants import quota
from tenants.models import Tenant
from tenants.quota import OVERALL, UNITS
from tenants.refusals import FieldError, Invalid

log = logging.getLogger(__name__)
LONGEST_CLASS = 253  # a storage class's name is a DNS subdomain


def set_limits(*, tenant: Tenant, limits: Sequence[tuple[str | None, str, int]]) -> None:
    """Replace all limits by these: (target or None for all targets together, resource, limit in its unit).

    The ResourceQuotas of the tenant's namespaces follow soon after. Raises Invalid naming every wrong entry.
    """
    targets = set(Target.objects.values_list("name", flat=True))
    wished: dict[tuple[str, str], int] = {}
    problems: list[FieldError] = []
    for index, (target, resource, limit) in enumerate(limits):
        at = f"/limits/{index}"
        if target is not None and target not in targets:
            there = ", ".join(sorted(targets)) or "none"
            message = f"There is no target {target[:60]!r}. There are: {there}."
            problems.append(FieldError(f"{at}/target", "unknown_target", message))
        if not _is_resource(resource):
            message = f"There is no resource {resource[:60]!r}. There are: {_resources()}."
            problems.append(FieldError(f"{at}/resource", "unknown_resource", message))
        if (target or OVERALL, resource) in wished:
            message = f"{resource[:60]} has two limits for the same target. Keep one."
            problems.append(FieldError(at, "duplicate", message))
        wished[target or OVERALL, resource] = limit
    if problems:
        raise Invalid("invalid", f"{problems[0].pointer}: {problems[0].message}", errors=problems)
    with transaction.atomic():
        quota.replace_limits(tenant_id=tenant.pk, limits=wished)
        transaction.on_commit(lambda: _hint(tenant.pk))


def _is_resource(resource: str) -> bool:
    kind, colon, of = resource.partition(":")
    if not colon:
        return kind in UNITS
    return (kind == "clusters" and of in ENGINES) or (kind == "storage" and 0 < len(of) <= LONGEST_CLASS)


def _resources() -> str:
    engines = ", ".join(f"clusters:{engine}" for engine in ENGINES)
    return f"{', '.join(UNITS)}, {engines}, storage:<storage class>"


def _hint(tenant_id: str) -> None:
    try:
        tasks.enforce_quota.delay(tenant_id)
    except tasks.BROKER_ERRORS as error:
        log.warning("no hint could be sent, beat will do it", extra={"why": str(error)})
