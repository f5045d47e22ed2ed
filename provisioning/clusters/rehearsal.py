"""Dry runs: what an order, a change or a deletion would do. Nothing of it stays.

In two parts, since nothing may wait for Kubernetes inside a transaction:

1. `rehearse_…` does the real thing (the same service functions, checks, constraints and ledger) in a transaction that
   is always rolled back, and notes what there was to see. Hints to workers go out on commit, so none does.
2. `ask_target`, after that, has the target check every object by a server-side dry run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from django.conf import settings
from django.db import transaction

from provisioning.apply import door, errors
from provisioning.apply.client import KubeClient
from provisioning.apply.link import KubeLink
from provisioning.apply.rehearsal import (
    Rehearsed,
    rehearse_apply,
    rehearse_certificates,
    rehearse_deletes,
    rehearse_removal,
    rehearse_secrets,
    shown,
)
from provisioning.clusters import services
from provisioning.clusters.quota import hard_limits
from provisioning.clusters.views import client_for, cluster_view
from provisioning.engines.base import Blocked, ClusterView, LinkError, Manifest
from provisioning.engines.registry import ENGINES
from provisioning.models import Cluster, Operation, Target
from tenants import quota
from tenants.models import Tenant, User
from tenants.quota import Standing

EffectName = Literal["live", "roll", "move", "fixed", "loss", "stop"]
# What the owner object and the manifests say in place of the uid it will get.
UNMADE = {"metadata": {"name": "unmade", "uid": ""}}


@dataclass(frozen=True)
class QuotaEffect:
    """One number of the tenant's quota that would change: `before` and `after` are used and reserved together."""

    resource: str
    place: str
    limit: int | None
    before: int
    after: int


@dataclass(frozen=True)
class Impact:
    """What people would notice. `pointer` (RFC 6901, into the request's body) is "" when it is not about one field."""

    effect: EffectName
    message: str
    pointer: str = ""
    before: Any = None
    after: Any = None


@dataclass(frozen=True)
class Rehearsal:
    """What a change would do, as far as the database knows.

    `cluster` is how it would be; `operation` the one that would bring it about, None where none is needed. `hard` is
    what the namespace's ResourceQuota would allow. `touches`: what would be done on the target.
    """

    cluster: Cluster
    operation: Operation | None
    quota: tuple[QuotaEffect, ...]
    impacts: tuple[Impact, ...]
    touches: Literal["nothing", "apply", "delete"]
    hard: Mapping[str, str]

    @property
    def deletes_volumes(self) -> bool:
        """Whether the data would go too."""
        return self.operation is not None and self.operation.params.get("volumes") == "delete"


@dataclass(frozen=True)
class TargetAnswer:
    """What the target said. `problem` is why it could not be asked, or would take none of it."""

    asked: bool
    namespace_exists: bool | None
    objects: tuple[Rehearsed, ...]
    problem: errors.DoorError | Blocked | None = None

    @property
    def takes_it(self) -> bool | None:
        """Whether it would take every object; None when it could not be asked."""
        if not self.asked:
            return None
        return self.problem is None and not any(one.refusal for one in self.objects)


@contextmanager
def _undone() -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def rehearse_create(*, tenant: Tenant, by: User, **order: Any) -> Rehearsal:
    """What `create_cluster` would do. Raises what that raises, but wants no loss confirmed."""
    with _undone():
        before = quota.standings(tenant.pk)
        cluster, operation = services.create_cluster(tenant=tenant, by=by, confirm=order["name"], **order)
        after = quota.standings(tenant.pk)
    impacts = _impacts(operation, "/spec")
    return Rehearsal(
        cluster, operation, _effects(before, after), impacts, "apply", hard_limits(after, cluster.target_id)
    )  # fmt: skip


def rehearse_edit(
    *, cluster: Cluster, by: User, spec: Mapping[str, Any] | None = None, version: str | None = None, **changes: Any
) -> Rehearsal:  # fmt: skip
    """What `edit_cluster` would do, or `change_cluster` with a `spec` or `version`; raises what they raise, but wants
    no loss confirmed: that is what it tells about.
    """
    with _undone():
        before = quota.standings(cluster.tenant_id)
        operation = None
        if spec is None and version is None:
            edited = services.edit_cluster(cluster=cluster, by=by, **changes)
        else:
            operation = services.change_cluster(
                cluster=cluster, by=by, spec=spec, version=version, confirm=cluster.name, **changes
            )
            edited = Cluster.objects.select_related("tenant", "target").get(pk=cluster.pk)
        after = quota.standings(cluster.tenant_id)
    impacts = [*_impacts(operation, "/spec" if version is None else "/version")]
    for field in ("labels", "description"):
        was, will = getattr(cluster, field), getattr(edited, field)
        if was != will:
            impacts.append(Impact("live", "Takes effect at once; nothing restarts.", f"/{field}", was, will))
    grows = edited.generation != cluster.generation
    return Rehearsal(
        edited, operation if grows else None, _effects(before, after), tuple(impacts), "apply" if grows else "nothing",
        hard_limits(after, cluster.target_id),
    )  # fmt: skip


def rehearse(
    *, cluster: Cluster, act: Callable[[], Operation | None], touches: Literal["nothing", "apply"] = "nothing"
) -> Rehearsal:  # fmt: skip
    """What `act`, a change of a running cluster that leaves its size as it is, would do; raises what that raises.

    `touches`: "apply" where objects are rendered anew.
    """
    with _undone():
        operation = act()
        changed = Cluster.objects.select_related("tenant", "target").get(pk=cluster.pk)
        hard = hard_limits(quota.standings(cluster.tenant_id), cluster.target_id) if touches == "apply" else {}
    return Rehearsal(changed, operation, (), _impacts(operation), touches if operation is not None else "nothing", hard)


def _impacts(operation: Operation | None, below: str = "") -> tuple[Impact, ...]:
    """What an operation says of its changes; `below`: where their pointers begin in the request's body."""
    found = operation.params["changes"] if operation is not None else ()
    return tuple(
        Impact(one["effect"], one["message"], below + one["pointer"], one["before"], one["after"]) for one in found
    )


def rehearse_restart(*, cluster: Cluster, by: User, expected_revision: int | None = None) -> Rehearsal:
    """What `restart_cluster` would do; raises what it raises, but wants no loss confirmed."""
    return rehearse(
        cluster=cluster, touches="apply",
        act=lambda: services.restart_cluster(
            cluster=cluster, by=by, confirm=cluster.name, expected_revision=expected_revision
        ),
    )  # fmt: skip


def rehearse_acceptance(*, cluster: Cluster, by: User, expected_revision: int | None = None) -> Rehearsal:
    """What `accept_loss` would do; raises what it raises, but wants nothing confirmed."""
    return rehearse(
        cluster=cluster,
        act=lambda: services.accept_loss(
            cluster=cluster, by=by, confirm=cluster.name, expected_revision=expected_revision
        ),
    )  # fmt: skip


def rehearse_delete(
    *, cluster: Cluster, by: User, volumes: Literal["keep", "delete"] = "keep", confirm: str | None = None,
    expected_revision: int | None = None,
) -> Rehearsal:  # fmt: skip
    """What `delete_cluster` would do, and what its end would give back. Raises what that raises."""
    with _undone():
        before = quota.standings(cluster.tenant_id)
        running = cluster.operations.open().first()
        operation = services.delete_cluster(
            cluster=cluster, by=by, volumes=volumes, confirm=confirm, expected_revision=expected_revision
        )
        again = running is not None and running.pk == operation.pk
        keeps = operation.params.get("volumes") != "delete"
        held = quota.held_by(cluster.pk)
        stays = {name: amount for name, amount in held.items() if name.partition(":")[0] == "storage"}
        quota.settle(
            tenant_id=cluster.tenant_id, holder=cluster.pk, cause=operation.pk, kept=stays if keeps else {}
        )  # fmt: skip
        after = quota.standings(cluster.tenant_id)
    impacts = [Impact("stop", "The cluster ends: its addresses answer no more.")]
    if again:
        impacts = [Impact("stop", "It is being deleted already: this would change nothing.")]
    elif running is not None:
        impacts.append(Impact("stop", f"The {running.kind} that is under way is canceled."))
    if not keeps:
        impacts.append(Impact("loss", "Its volumes are deleted: all data is lost."))
    else:
        impacts.append(Impact("live", "Its volumes stay, and go on counting as storage."))
    return Rehearsal(
        operation.cluster, operation, _effects(before, after), tuple(impacts), "delete",
        hard_limits(after, cluster.target_id),
    )  # fmt: skip


def _effects(before: Sequence[Standing], after: Sequence[Standing]) -> tuple[QuotaEffect, ...]:
    """Where the two differ, in the order of the quota."""
    was = {(one.place, one.resource): one for one in before}
    will = {(one.place, one.resource): one for one in after}
    found = []
    for key, one in {**was, **will}.items():
        old, new = (
            side[key].used + side[key].reserved if key in side else 0 for side in (was, will)
        )  # fmt: skip
        if old != new:
            found.append(QuotaEffect(one.resource, one.place, one.limit, old, new))
    return tuple(sorted(found, key=lambda one: (one.place, list(quota.UNITS).index(one.resource.partition(":")[0]))))


def ask_target(rehearsal: Rehearsal) -> TargetAnswer:
    """Have the target check what would be done to it; stores nothing there. Never raises: a target that cannot be asked
    is an answer, since the real change would be accepted too, and wait for it.
    """
    if rehearsal.touches == "nothing":
        return TargetAnswer(asked=False, namespace_exists=None, objects=())
    view = cluster_view(rehearsal.cluster)
    try:
        client = client_for(rehearsal.cluster.target)
        look = door.look_at_namespace(client, view.namespace)()
        if rehearsal.touches == "delete":
            there = rehearse_removal(client, view, volumes=rehearsal.deletes_volumes) if look.namespace else []
            return TargetAnswer(asked=True, namespace_exists=look.namespace is not None, objects=tuple(there))
        answer = _with_pruned(client, view, rehearsal.cluster, _apply(client, look, view, rehearsal))
        changes = rehearsal.operation is not None and rehearsal.operation.kind == "update"
        if changes and answer.takes_it:
            return replace(answer, problem=_foreseen(client, view, rehearsal.cluster.target))
        return answer
    except errors.DoorError as error:
        # Without the target, what Berth would send can still be shown.
        unchecked = _unchecked(view) if rehearsal.touches == "apply" else ()
        return TargetAnswer(asked=False, namespace_exists=None, objects=unchecked, problem=error)


def _foreseen(client: KubeClient, view: ClusterView, target: Target) -> Blocked | None:
    """What the members that run now say is in the way; None also where they cannot be asked."""
    link = KubeLink(client, view.namespace, target.reach)  # type: ignore[arg-type]
    try:
        return ENGINES[view.engine].foresee(view, door.observe(client, view), link)
    except LinkError:
        return None


def _apply(client: KubeClient, look: door.NamespaceLook, view: ClusterView, rehearsal: Rehearsal) -> TargetAnswer:
    tenant = rehearsal.cluster.tenant
    if look.namespace is None:
        # Objects can be checked only in a namespace that exists; that one can be made can be checked.
        wished = door.namespace_manifest(view.namespace, tenant.slug, tenant.pk)
        guards = [*door.network_policies(view.namespace), *door.quota_manifests(view.namespace, rehearsal.hard)]
        made = rehearse_apply(client, [wished])
        return TargetAnswer(
            asked=True, namespace_exists=False, objects=(*made, *map(_plain, guards), *_unchecked(view))
        )
    try:
        door.require_namespace(look, namespace=view.namespace, tenant_id=tenant.pk)
    except (errors.NamespaceTaken, errors.Throttled) as error:
        return TargetAnswer(asked=True, namespace_exists=True, objects=_unchecked(view), problem=error)
    engine = ENGINES[view.engine]
    wish = door.owner_manifest(view)
    owned = rehearse_apply(client, [wish])
    if owned[0].refusal is not None:
        # Nothing is applied without the object that owns it.
        return TargetAnswer(asked=True, namespace_exists=True, objects=(*owned, *_unchecked(view, owner=False)))
    owner = client.apply(door.path_of("ConfigMap", view.namespace, wish["metadata"]["name"]), wish, dry_run=True)
    secrets = rehearse_secrets(client, view, engine.secrets(view), owner)
    secrets += rehearse_certificates(client, view, engine.certificates(view))
    # Volume templates are changed by making the StatefulSet anew, which no dry run can try.
    manifests = door.with_present_claims(manifests_of(view, owner), door.observe(client, view))
    objects = rehearse_apply(client, manifests)
    return TargetAnswer(asked=True, namespace_exists=True, objects=(*owned, *secrets, *objects))


def _with_pruned(client: KubeClient, view: ClusterView, cluster: Cluster, answer: TargetAnswer) -> TargetAnswer:
    """With what was applied for the cluster and would be no longer."""
    wished = {(one.kind, one.name) for one in answer.objects}
    gone = [key for entry in cluster.inventory if (key := (entry["kind"], entry["name"])) not in wished]
    if not gone or not answer.namespace_exists or not answer.takes_it:
        # Nothing is removed before all that is wished was taken.
        return answer
    return replace(answer, objects=(*answer.objects, *rehearse_deletes(client, view.namespace, gone)))


def manifests_of(view: ClusterView, owner: Mapping[str, Any]) -> list[Manifest]:
    """Everything a cluster consists of but its Secrets and its owner object, as it is applied."""
    engine = ENGINES[view.engine]
    return door.dressed(
        view, engine.render(view), owner, settings.IMAGE_REGISTRY, reserves_addresses=engine.reserves_addresses
    )


def _unchecked(view: ClusterView, *, owner: bool = True) -> tuple[Rehearsed, ...]:
    """What would be sent, when the target cannot check it."""
    engine = ENGINES[view.engine]
    names = [spec.name for spec in engine.secrets(view)]
    names += [name for spec in engine.certificates(view) for name in (spec.authority, spec.name)]
    secrets = [Rehearsed("Secret", name, "create", checked=False) for name in names]
    manifests = [*([door.owner_manifest(view)] if owner else []), *manifests_of(view, UNMADE)]
    return (*secrets, *map(_plain, manifests))


def _plain(manifest: Manifest) -> Rehearsed:
    return Rehearsed(manifest["kind"], manifest["metadata"]["name"], "create", shown(manifest), checked=False)
