"""Targets: registered, changed and removed by administrators; looked at now and then by the watcher and by beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from provisioning.apply import errors
from provisioning.apply.client import CLIENTS, KubeClient
from provisioning.apply.examination import Examination, Finding, cluster_uid, examine, facts
from provisioning.apply.kubeconfigs import SUFFIX, BadKubeconfig, Folder, Keeper, NotKept, Secret, client_of, reduced
from provisioning.models import CLUSTER_NAME_RULE, Cluster, Plan, Target
from tenants.models import QuotaLimit
from tenants.refusals import Conflict, FieldError, Invalid, Missing

# Columns of a target that a look fills.
Seen = dict[str, Any]
# Writes the row of the audit.
Note = Callable[[Target], None]


def targets_folder() -> Path:
    """Where kubeconfigs are mounted."""
    return settings.TARGETS_DIR


def another(name: str) -> errors.AnotherCluster:
    """The error for a target where another cluster answers than was registered."""
    return errors.AnotherCluster(f"Another Kubernetes cluster answers for the target {name} than was registered.")


def discover(target: Target) -> bool:
    """Look at one target and write down what it has; returns whether it answered, and is the one that was registered.

    Which cluster it is, is remembered from the first look.
    """
    return _write_down(target, _look(target))


def _look(target: Target) -> Seen:
    """What to write down about a target after asking it. Asks Kubernetes, so call it outside of transactions."""
    try:
        client = CLIENTS.get(target.name, source=target.source, folder=targets_folder())
        uid = cluster_uid(client)
        if target.uid and uid != target.uid:
            return {**_away(another(target.name)), "other_uid": uid}
        return {**_answered(facts(client)), **({} if target.uid else {"uid": uid})}
    except errors.DoorError as error:
        # What was known stays: a target that is away for a minute has not lost its nodes.
        return _away(error)


def _answered(found: Mapping[str, Any]) -> Seen:
    return {**found, "reachable": True, "reason": "", "other_uid": "", "checked": timezone.now()}


def _away(error: errors.DoorError) -> Seen:
    reason = f"{error.message} {error.remedy}".strip()
    return {"reachable": False, "reason": reason, "checked": timezone.now()}


def _write_down(target: Target, seen: Seen) -> bool:
    """Keep a look, in the caller's transaction if there is one; returns whether the target is there to be used."""
    seen = dict(seen)
    uid = seen.pop("uid", None)
    if uid is not None:
        try:
            with transaction.atomic():
                Target.objects.filter(pk=target.pk, uid="").update(uid=uid)
        except IntegrityError:
            owner = Target.objects.filter(uid=uid).values_list("name", flat=True).first()
            seen = _away(
                errors.AnotherCluster(
                    f"It is the same Kubernetes cluster as the target {owner}.",
                    remedy="Remove one of the two: their tenants' namespaces would be shared.",
                )
            )
    Target.objects.filter(pk=target.pk).update(**seen)
    return bool(seen["reachable"])


# --- what administrators do -------------------------------------------------------------------------------------------
#
# Each asks Kubernetes first, so it is called outside of transactions, and then changes the database in one transaction.
# In that it calls `note` with the target as it is then, to write the row of the audit: without the row, no change. A
# kubeconfig is kept or forgotten last, since that alone cannot be taken back; the only rows that are locked meanwhile
# are those of this target, which nobody but a look at it waits for.


def register(
    *, name: str, note: Note, title: str = "", kubeconfig: str | None = None, in_cluster: bool = False,
    reach: str = "direct",
) -> Target:  # fmt: skip
    """Register a Kubernetes cluster that answers, is new enough, and lets Berth do what it needs to.

    Its kubeconfig is `kubeconfig`, kept as settings say; without one, the file that is in TARGETS_DIR already; with
    `in_cluster`, the cluster Berth itself runs in. Raises Invalid, Conflict (name in use, cluster registered already,
    not usable, kubeconfig cannot be kept).
    """
    try:
        CLUSTER_NAME_RULE(name)
    except ValidationError as error:
        raise _wrong("/name", "bad_name", f"Name: {error.messages[0]}") from error
    if in_cluster and kubeconfig is not None:
        raise _wrong("/kubeconfig", "not_allowed", "With in_cluster there is no kubeconfig: leave one of them out.")
    if Target.objects.filter(pk=name).exists():
        raise _taken(name)
    source = "in-cluster" if in_cluster else "file"
    text = _accepted(kubeconfig) if kubeconfig is not None else None
    found = _usable(name, _client(name, source, text), reach)
    _refuse_known(name, found.uid)
    with transaction.atomic():
        try:
            # The name, and which cluster it is, are guarded by constraints: nobody else's kubeconfig is overwritten.
            with transaction.atomic():
                target = Target.objects.create(
                    name=name, title=title or name, source=source, reach=reach, uid=found.uid, **_answered(found.facts)
                )
        except IntegrityError as error:
            _refuse_known(name, found.uid)
            raise _taken(name) from error
        note(target)
        if text is not None:
            _keep(name, text)
    return target


def add(*, name: str, title: str, source: str, reach: str, note: Note) -> Target:
    """Register a target, or change it, whether it answers or not, with its kubeconfig in place: `manage.py add_target`.

    What was found is in `reachable` and `reason` of the target that is returned. `name` has been checked.
    """
    fields = {"title": title or name, "source": source, "reach": reach}
    known = Target.objects.filter(pk=name).first()
    seen = _look(Target(name=name, uid=known.uid if known else "", **fields))
    with transaction.atomic():
        target, _ = Target.objects.update_or_create(name=name, defaults=fields)
        _write_down(target, seen)
        target = _again(target)
        note(target)
    return target


def change(
    *, target: Target, note: Note, expect: Note, title: str | None = None, enabled: bool | None = None,
    reach: str | None = None, kubeconfig: str | None = None, uid: str | None = None,
) -> Target:  # fmt: skip
    """Change a target. A new kubeconfig must lead to the same cluster, or to the one whose `uid` is accepted by this.

    `expect` is called before Kubernetes is asked and again with the row locked, and raises when the target is no longer
    what the caller read. Raises that, Invalid, Conflict, Missing.
    """
    expect(target)
    if kubeconfig is not None and target.source == "in-cluster":
        raise _wrong("/kubeconfig", "not_allowed", "It is the cluster Berth runs in, which has no kubeconfig.")
    text = _accepted(kubeconfig) if kubeconfig is not None else None
    fields: dict[str, Any] = {
        key: value for key, value in (("title", title), ("enabled", enabled), ("reach", reach)) if value is not None
    }
    if text is not None or uid is not None or (reach is not None and reach != target.reach):
        found = _usable(target.name, _client(target.name, target.source, text), reach or target.reach)
        accepted = uid if uid is not None else target.uid
        if found.uid != accepted:
            pointer = "/uid" if uid is not None else "/kubeconfig"
            raise Conflict(
                "another_cluster",
                f"The cluster that answers has the UID {found.uid}, not {accepted[:64]}.",
                suggestion="Send the kubeconfig of the target's own cluster. If that was built anew and what ran in it "
                "is gone, accept it by sending its UID as `uid`.",
                errors=[FieldError(pointer, "another_cluster", "It is another Kubernetes cluster.")],
            )
        if found.uid != target.uid:
            _refuse_known(target.name, found.uid)
        fields |= {**_answered(found.facts), "uid": found.uid}
    with transaction.atomic():
        locked = _locked(target)
        expect(locked)
        if (locked.uid, locked.reach) != (target.uid, target.reach):
            raise Conflict(
                "changed_meanwhile", f"{target.name} was changed by somebody else while Kubernetes was asked.",
                suggestion="Read it again, and repeat the change if it is still wanted.",
            )  # fmt: skip
        if fields:
            _set(target, fields)
        changed = _again(target)
        note(changed)
        if text is not None:
            _keep(target.name, text)
    return changed


def remove(*, target: Target, note: Note, expect: Note) -> None:
    """Remove a target that holds nothing and never did, its limits, and its kubeconfig where Berth keeps it.

    `expect` is called with the row locked, and raises when the target is no longer what the caller read. Raises that;
    Missing; Conflict while clusters, the history of deleted ones, or plans refer to it, or when its kubeconfig
    cannot be removed.
    """
    with transaction.atomic():
        locked = _locked(target)
        expect(locked)
        clusters = Cluster.objects.filter(target=locked)
        if clusters.exists():
            there = clusters.present().count()
            text = f"It has {there} clusters." if there else "It has the history of deleted clusters."
            raise Conflict("target_in_use", text, suggestion="Disable it instead: it takes no new orders then.")
        plans = list(Plan.objects.filter(targets=locked).values_list("name", flat=True)[:10])
        if plans:
            # Without its last target such a plan would be offered everywhere.
            raise Conflict(
                "target_in_use", f"Plans are offered on it: {', '.join(plans)}.",
                suggestion="Take it out of these plans first.",
            )  # fmt: skip
        QuotaLimit.objects.filter(place=locked.name).delete()
        locked.delete()
        note(target)
        if target.source == "file":
            _keeper_call(lambda keeper: keeper.forget(target.name))
    CLIENTS.drop(target.name)


def check(*, target: Target, note: Note) -> tuple[Target, tuple[Finding, ...]]:
    """Look at a target now, at everything; returns it as it is written down after that, and every finding.

    Raises Missing.
    """
    findings = _findings(target)
    seen = _look(target)
    with transaction.atomic():
        _write_down(target, seen)
        looked_at = _again(target)
        note(looked_at)
    return looked_at, findings


def _findings(target: Target) -> tuple[Finding, ...]:
    try:
        client = CLIENTS.get(target.name, source=target.source, folder=targets_folder())
    except errors.DoorError as error:
        return (Finding("answers", False, error.message, error.remedy),)
    found = examine(client, reach=target.reach)
    findings = list(found.findings)
    if found.uid:
        same = not target.uid or found.uid == target.uid
        text = "It is the cluster that was registered." if same else f"Another cluster answers, UID {found.uid}."
        findings.insert(1, Finding("identity", same, text, "" if same else errors.AnotherCluster.remedy))
    return tuple(findings)


def _locked(target: Target) -> Target:
    return _again(target, Target.objects.select_for_update())


def _again(target: Target, rows: QuerySet[Target] | None = None) -> Target:
    found = (Target.objects.all() if rows is None else rows).filter(pk=target.pk).first()
    if found is None:
        raise Missing("not_found", f"There is no target {target.name}.")
    return found


def _accepted(kubeconfig: str) -> str:
    try:
        return reduced(kubeconfig)
    except BadKubeconfig as error:
        raise _wrong("/kubeconfig", "bad_kubeconfig", f"Kubeconfig: {error}") from None


def _client(name: str, source: str, text: str | None) -> KubeClient:
    try:
        if text is not None:
            return client_of(text)
        if source == "file" and not (targets_folder() / f"{name}{SUFFIX}").exists():
            raise _wrong(
                "/kubeconfig",
                "required",
                f"Send the kubeconfig, or put it into BERTH_TARGETS_DIR as {name}{SUFFIX} first.",
            )
        return CLIENTS.get(name, source=source, folder=targets_folder())
    except errors.DoorError as error:
        raise Conflict("target_not_usable", error.message, suggestion=error.remedy) from error


def _usable(name: str, client: KubeClient, reach: str) -> Examination:
    found = examine(client, reach=reach)
    if found.obstacle is not None:
        raise Conflict(
            "target_not_usable",
            f"{name[:30]} cannot be used: {found.obstacle.message}",
            suggestion=found.obstacle.remedy,
        )
    return found


def _refuse_known(name: str, uid: str) -> None:
    other = Target.objects.filter(uid=uid).exclude(pk=name).values_list("name", flat=True).first()
    if other is not None:
        raise Conflict(
            "target_known", f"This Kubernetes cluster is registered already, as {other}.",
            suggestion=f"Use {other}, or change its kubeconfig: PATCH /api/v1/targets/{other}.",
        )  # fmt: skip


def _set(target: Target, fields: Mapping[str, Any]) -> None:
    try:
        with transaction.atomic():
            Target.objects.filter(pk=target.pk).update(**fields)
    except IntegrityError:
        # Registered by another name since it was asked.
        _refuse_known(target.name, str(fields.get("uid")))
        raise


def _keep(name: str, text: str) -> None:
    _keeper_call(lambda keeper: keeper.keep(name, text))
    CLIENTS.drop(name)


def _keeper_call(call: Any) -> None:
    try:
        call(_keeper())
    except NotKept as error:
        raise Conflict("kubeconfig_not_kept", error.message, suggestion=error.remedy) from error
    except errors.NoKubeconfig as error:
        raise Conflict("kubeconfig_not_kept", error.message, suggestion=NotKept.remedy) from error


def _keeper() -> Keeper:
    """Where kubeconfigs go: the Secret of settings.TARGETS_SECRET ("namespace/name"), or else the folder itself."""
    if settings.TARGETS_SECRET:
        namespace, _, name = settings.TARGETS_SECRET.partition("/")
        return Secret(KubeClient.in_cluster(), namespace, name)
    return Folder(targets_folder())


def _taken(name: str) -> Conflict:
    return Conflict(
        "target_taken", f"There is a target {name}.",
        suggestion="Choose another name, or change the target: PATCH.",
        errors=[FieldError("/name", "name_taken", f"The name {name} is in use.")],
    )  # fmt: skip


def _wrong(pointer: str, code: str, message: str) -> Invalid:
    return Invalid(
        "invalid", message, suggestion="Change the fields named in errors.", errors=[FieldError(pointer, code, message)]
    )
