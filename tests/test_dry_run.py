"""Dry runs over the API and a real API server: what they say is what would come, and nothing of it is there after."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks
from rest_framework.test import APIClient

from portal.models import IdempotencyKey
from provisioning.apply.client import FIELD_MANAGER
from provisioning.apply.door import KINDS, path_of
from provisioning.clusters.reconcile import reconcile
from provisioning.clusters.rehearsal import Rehearsal, ask_target
from provisioning.clusters.views import client_for, namespace_of
from provisioning.engines.base import LABEL_MANAGED_BY, MANAGED_BY
from provisioning.models import Cluster, Operation, Principal, Target
from tenants import quota
from tenants.models import Tenant
from tests.conftest import ORDER


def database() -> dict[str, list[Any]]:
    """Every row of every table."""
    return {
        model._meta.label: sorted(map(str, model._default_manager.values_list())) for model in apps.get_models()
    }  # fmt: skip


def kubernetes(target: Target, tenant: Tenant) -> dict[str, Any]:
    """Every object of Berth's in the tenant's namespace: which one it is, what Berth last wrote there and when, and
    whether it is being deleted. Not what controllers make of them meanwhile: pods, and claims that are just there.
    """
    client, namespace = client_for(target), namespace_of(tenant.slug)
    items = [
        (kind, item["metadata"])
        for kind in KINDS
        for item in client.get(path_of(kind, namespace), labelSelector=f"{LABEL_MANAGED_BY}={MANAGED_BY}")["items"]
    ]
    return {
        f"{kind}/{metadata['name']}": (metadata["uid"], _written(metadata), "deletionTimestamp" in metadata)
        for kind, metadata in items
        if kind not in CONTROLLED or "deletionTimestamp" in metadata
    }


CONTROLLED = ("Pod", "PersistentVolumeClaim")


def _written(metadata: dict[str, Any]) -> list[tuple[str, str]]:
    entries = metadata.get("managedFields", [])
    return [(one.get("time", ""), one["operation"]) for one in entries if one["manager"] == FIELD_MANAGER]


def kinds(objects: list[dict[str, Any]], **wanted: Any) -> set[tuple[str, str]]:
    """(kind, name) of the objects that have these values."""
    return {(one["kind"], one["name"]) for one in objects if all(one[key] == value for key, value in wanted.items())}


@pytest.mark.control_plane
def test_an_order_into_a_new_namespace_is_rehearsed_and_leaves_nothing(
    live: Target, acme: Tenant, api: APIClient, clusters: str
) -> None:
    before, there = database(), kubernetes(live, acme)
    answer = api.post(f"{clusters}?dry_run=true", ORDER, format="json", headers={"Idempotency-Key": "once"})
    assert answer.status_code == 200, answer.content
    told = answer.json()
    assert database() == before
    assert kubernetes(live, acme) == there
    assert told["target"] == {"asked": True, "namespace_exists": False, "takes_it": True, "problem": None}
    # The target was asked whether it takes the namespace; what would go into it is shown.
    assert kinds(told["objects"], checked=True) == {("Namespace", namespace_of(acme.slug))}
    assert ("ResourceQuota", "berth-quota") in kinds(told["objects"], action="create", checked=False)
    assert told["operation"]["kind"] == "create"
    assert told["cluster"]["spec"]["shards"] == 3
    assert not IdempotencyKey.objects.exists()


@pytest.mark.control_plane
def test_what_a_dry_run_says_is_what_the_order_makes(
    running: Cluster, live: Target, acme: Tenant, api: APIClient, clusters: str
) -> None:
    before, there = database(), kubernetes(live, acme)
    told = api.post(f"{clusters}?dry_run=true", ORDER, format="json").json()
    assert database() == before
    assert kubernetes(live, acme) == there
    assert told["target"]["takes_it"] is True
    assert {(one["action"], one["checked"], one["restarts"]) for one in told["objects"]} == {("create", True, False)}
    assert {one["kind"]: one["manifest"] for one in told["objects"]}["Secret"] is None

    api.post(clusters, ORDER, format="json", headers={"Idempotency-Key": "fresh"})
    made = Cluster.objects.get(name="fresh")
    assert told["cluster"]["spec"] == made.spec
    held = quota.held_by(made.pk)
    effects = {one["resource"]: one for one in told["quota"] if one["target"] is None}
    assert {name: one["after"] - one["before"] for name, one in effects.items()} == held
    standings = {one.resource: one.used + one.reserved for one in quota.standings(acme.pk) if not one.place}
    assert {name: one["after"] for name, one in effects.items()} == standings
    reconcile(made.pk)
    made.refresh_from_db()
    applied = {(entry["kind"], entry["name"]) for entry in made.inventory}
    assert kinds(told["objects"]) == applied | {("ConfigMap", "fresh-berth"), ("Secret", "fresh-auth")}
    client = client_for(live)
    for one in told["objects"]:
        found = client.get(path_of(one["kind"], namespace_of(acme.slug), one["name"]))
        assert found["metadata"]["name"] == one["name"]


@pytest.mark.control_plane
def test_an_object_the_target_refuses_is_named_with_the_reason(
    running: Cluster, live: Target, acme: Tenant, api: APIClient, clusters: str
) -> None:
    client, namespace = client_for(live), namespace_of(acme.slug)
    told = api.post(f"{clusters}?dry_run=true", ORDER, format="json").json()
    service = next(one["manifest"] for one in told["objects"] if one["kind"] == "Service")
    ports = [{"name": "other", "port": 1}]
    foreign = {**service, "spec": {**service["spec"], "clusterIP": "None", "ports": ports, "type": "ClusterIP"}}
    selector = {"somebody": "else"}
    foreign["spec"]["selector"] = selector
    client.request("POST", path_of("Service", namespace), foreign, query={"fieldManager": "somebody"})
    again = api.post(f"{clusters}?dry_run=true", ORDER, format="json").json()
    refused = [one for one in again["objects"] if one["refusal"]]
    assert [(one["kind"], one["name"]) for one in refused] == [("Service", service["metadata"]["name"])]
    assert refused[0]["refusal"]["code"] == "field_conflict"
    assert again["target"]["takes_it"] is False


@pytest.mark.control_plane
def test_without_the_object_that_owns_it_nothing_is_asked_for(
    running: Cluster, live: Target, acme: Tenant, api: APIClient, clusters: str
) -> None:
    foreign = {"metadata": {"name": "fresh-berth"}, "data": {"berth.yaml": "mine"}}
    path = path_of("ConfigMap", namespace_of(acme.slug))
    client_for(live).request("POST", path, foreign, query={"fieldManager": "somebody"})
    told = api.post(f"{clusters}?dry_run=true", ORDER, format="json").json()
    assert kinds(told["objects"], checked=True) == {("ConfigMap", "fresh-berth")}
    assert told["target"]["takes_it"] is False


@pytest.mark.control_plane
def test_a_namespace_of_somebody_else_is_in_the_way(
    live: Target, acme: Tenant, api: APIClient, clusters: str
) -> None:  # fmt: skip
    name = namespace_of(acme.slug)
    client_for(live).request("POST", path_of("Namespace", ""), {"metadata": {"name": name}})
    told = api.post(f"{clusters}?dry_run=true", ORDER, format="json").json()
    assert (told["target"]["takes_it"], told["target"]["problem"]["code"]) == (False, "namespace_taken")


@pytest.mark.control_plane
@pytest.mark.parametrize(("query", "claims"), [("", "keep"), ("&volumes=delete&confirm=running", "delete")])
def test_a_deletion_is_rehearsed_and_everything_stays(
    running: Cluster, live: Target, acme: Tenant, api: APIClient, clusters: str, query: str, claims: str
) -> None:
    Operation.objects.update(state="succeeded")
    _await_claims(live, acme, 6)
    before, there = database(), kubernetes(live, acme)
    answer = api.delete(f"{clusters}/running?dry_run=true{query}")
    assert answer.status_code == 200, answer.content
    told = answer.json()
    assert database() == before
    assert kubernetes(live, acme) == there
    assert len(kinds(told["objects"], kind="PersistentVolumeClaim", action=claims)) == 6
    assert len(kinds(told["objects"], kind="StatefulSet", action="delete")) == 3
    assert told["target"]["takes_it"] is True
    after = {one["resource"]: one["after"] for one in told["quota"] if one["target"] is None}
    assert after["pods"] == 0
    assert after.get("storage") == {"keep": None, "delete": 0}[claims]
    assert told["effects"][-1]["effect"] == {"keep": "live", "delete": "loss"}[claims]


def _await_claims(target: Target, tenant: Tenant, count: int) -> None:
    """Wait until the StatefulSet controller has made the volumes' claims."""
    client, path = client_for(target), path_of("PersistentVolumeClaim", namespace_of(tenant.slug))
    found = client.get(path)
    version, names = found["metadata"]["resourceVersion"], {item["metadata"]["name"] for item in found["items"]}
    events = client.watch(path, resource_version=version, selector="", seconds=30)
    while len(names) < count:
        names.add(next(events)["object"]["metadata"]["name"])


@pytest.mark.control_plane
def test_a_change_of_the_spec_shows_what_differs_from_what_runs_and_what_restarts(
    running: Cluster, live: Target
) -> None:  # fmt: skip
    same = Rehearsal(running, None, (), (), "apply", {})
    answer = ask_target(same)
    assert answer.takes_it is True
    assert {one.action for one in answer.objects} == {"none"}
    changed = Cluster.objects.select_related("tenant", "target").get(pk=running.pk)
    changed.spec, changed.generation = {**running.spec, "cpu": 0.2}, 2
    answer = ask_target(Rehearsal(changed, None, (), (), "apply", {}))
    sets = [one for one in answer.objects if one.kind == "StatefulSet"]
    assert [(one.action, one.restarts) for one in sets] == [("change", True)] * 3
    cpu = [one for one in sets[0].changes if one.pointer.endswith("/requests/cpu")]
    assert [(one.before, one.after) for one in cpu] == [("100m", "200m")]
    assert {one.action for one in answer.objects if one.kind == "Service"} == {"none"}


@pytest.mark.control_plane
def test_a_change_of_the_spec_is_rehearsed_over_the_api_and_leaves_nothing(
    running: Cluster, live: Target, acme: Tenant, api: APIClient, clusters: str
) -> None:
    Operation.objects.update(state="succeeded")
    before, there = database(), kubernetes(live, acme)
    answer = api.patch(f"{clusters}/running?dry_run=true", {"spec": {"cpu": 0.2}}, format="json")
    assert answer.status_code == 200, answer.content
    told = answer.json()
    assert database() == before
    assert kubernetes(live, acme) == there
    assert [(one["pointer"], one["effect"], one["after"]) for one in told["effects"]] == [("/spec/cpu", "roll", 0.2)]
    assert {one["resource"]: one["after"] - one["before"] for one in told["quota"] if not one["target"]} == {"cpu": 600}
    assert told["operation"]["kind"] == "update"
    assert len(kinds(told["objects"], kind="StatefulSet", action="change", restarts=True)) == 3
    assert told["target"]["takes_it"] is True


@pytest.mark.control_plane
def test_a_restart_is_rehearsed_with_what_it_restarts_and_leaves_nothing(
    running: Cluster, live: Target, acme: Tenant, api: APIClient, clusters: str
) -> None:
    Operation.objects.update(state="succeeded")
    before, there = database(), kubernetes(live, acme)
    answer = api.post(f"{clusters}/running/restart?dry_run=true")
    assert answer.status_code == 200, answer.content
    told = answer.json()
    assert database() == before
    assert kubernetes(live, acme) == there
    assert [(one["pointer"], one["effect"]) for one in told["effects"]] == [("", "roll")]
    assert "one at a time" in told["effects"][0]["message"]
    assert (told["operation"]["kind"], told["quota"]) == ("restart", [])
    assert len(kinds(told["objects"], kind="StatefulSet", action="change", restarts=True)) == 3
    assert told["target"]["takes_it"] is True


@pytest.mark.control_plane
def test_what_a_smaller_spec_no_longer_needs_is_said_to_go(
    live: Target, acme: Tenant, api: APIClient, clusters: str
) -> None:  # fmt: skip
    api.post(clusters, {**ORDER, "spec": {"shards": 4}}, format="json", headers={"Idempotency-Key": "four"})
    reconcile(Cluster.objects.get(name="fresh").pk)
    cluster = Cluster.objects.select_related("tenant", "target").get(name="fresh")
    before = kubernetes(live, acme)
    cluster.spec, cluster.generation = {**cluster.spec, "shards": 3}, 2
    answer = ask_target(Rehearsal(cluster, None, (), (), "apply", {}))
    assert kubernetes(live, acme) == before
    gone = {(one.kind, one.name) for one in answer.objects if one.action == "delete"}
    assert gone == {("StatefulSet", "fresh-s3"), ("PodDisruptionBudget", "fresh-s3")}
    assert answer.takes_it is True


def test_a_target_that_cannot_be_asked_is_said_and_the_rest_is_told(
    absent: Target, acme: Tenant, api: APIClient, clusters: str,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:  # fmt: skip
    before = database()
    with django_capture_on_commit_callbacks() as hints:
        told = api.post(f"{clusters}?dry_run=true", ORDER, format="json").json()
    assert database() == before
    assert hints == []
    assert (told["target"]["asked"], told["target"]["takes_it"]) == (False, None)
    assert told["target"]["problem"]["code"] == "kubeconfig_missing"
    assert {one["checked"] for one in told["objects"]} == {False}
    assert told["quota"]


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"spec": {"shards": 2}}, 422, "invalid"),
        ({"name": "Fresh!"}, 422, "invalid"),
        ({"name": "running"}, 409, "name_taken"),
        ({"name": "old"}, 409, "volumes_kept"),
        ({"spec": {"shards": 32}}, 409, "quota_exceeded"),
    ],
)
def test_what_the_order_would_be_refused_for_its_dry_run_is_refused_for(
    absent: Target, acme: Tenant, api: APIClient, clusters: str, changes: dict[str, Any], status: int, code: str
) -> None:
    for name, more in (("running", {}), ("old", {"phase": "deleted", "volumes_kept": True})):
        Cluster.objects.create(
            tenant=acme, target=absent, name=name, engine="redis", version="7.0.15", spec={}, **more
        )  # fmt: skip
    quota.replace_limits(tenant_id=acme.pk, limits={("", "pods"): 20})
    before = database()
    answer = api.post(f"{clusters}?dry_run=true", {**ORDER, **changes}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert database() == before
    real = api.post(clusters, {**ORDER, **changes}, format="json", headers={"Idempotency-Key": "k"})
    ignored = {"request_id": "", "instance": ""}
    assert {**real.json(), **ignored} == {**answer.json(), **ignored}


def test_refusals_of_dry_runs_of_changes_and_deletions_are_the_real_ones(
    absent: Target, acme: Tenant, api: APIClient, clusters: str
) -> None:
    Cluster.objects.create(tenant=acme, target=absent, name="running", engine="redis", version="7.0.15", spec={})
    before = database()
    one = f"{clusters}/running?dry_run=true"
    assert api.patch(one, {"description": "x"}, format="json", headers={"If-Match": '"7"'}).status_code == 412
    assert api.delete(one, headers={"If-Match": '"7"'}).status_code == 412
    assert api.delete(f"{one}&volumes=delete&confirm=runing").status_code == 422
    assert api.patch(one, {"name": "other"}, format="json").status_code == 422
    acme.suspended = True
    acme.save()
    assert api.delete(one).json()["code"] == "tenant_suspended"
    acme.suspended = False
    acme.save()
    assert database() == before


def test_a_dry_run_of_labels_shows_them_merged_and_needs_no_target(
    absent: Target, acme: Tenant, api: APIClient, clusters: str
) -> None:
    Cluster.objects.create(
        tenant=acme, target=absent, name="running", engine="redis", version="7.0.15", spec={}, labels={"a": "1"}
    )
    before = database()
    told = api.patch(f"{clusters}/running?dry_run=true", {"labels": {"b": "2"}}, format="json").json()
    assert database() == before
    assert told["cluster"]["labels"] == {"a": "1", "b": "2"}
    assert [(one["pointer"], one["effect"], one["after"]) for one in told["effects"]] == [
        ("/labels", "live", {"a": "1", "b": "2"})
    ]
    assert (told["operation"], told["objects"], told["quota"]) == (None, [], [])


def test_a_restart_that_loses_data_says_so_before_and_only_then_wants_the_name(
    absent: Target, acme: Tenant, api: APIClient, clusters: str
) -> None:
    spec = {"persistence": "none", "replicasPerShard": 0}
    Cluster.objects.create(tenant=acme, target=absent, name="running", engine="redis", version="7.0.15", spec=spec)
    told = api.post(f"{clusters}/running/restart?dry_run=true").json()
    assert told["effects"][0]["effect"] == "loss"
    real = api.post(f"{clusters}/running/restart")
    assert (real.status_code, real.json()["errors"][0]["code"]) == (422, "confirm_name")


def test_evening_out_the_masters_is_rehearsed_with_what_it_takes(
    absent: Target, acme: Tenant, api: APIClient, clusters: str
) -> None:
    spread = {"invariants": [], "nodes": [], "hand_overs": 2}
    Cluster.objects.create(
        tenant=acme, target=absent, name="running", engine="redis", version="7.0.15", spec={}, spread=spread
    )
    before = database()
    answer = api.post(f"{clusters}/running/rebalance-masters?dry_run=true")
    assert answer.status_code == 200, answer.content
    told = answer.json()
    assert database() == before
    assert [one["effect"] for one in told["effects"]] == ["live"]
    assert "2 hand-overs make masters even" in told["effects"][0]["message"]
    assert (told["operation"]["kind"], told["operation"]["estimate"]) == ("rebalance-masters", None)
    assert (told["objects"], told["target"]["asked"]) == ([], False)
    stale = api.post(f"{clusters}/running/rebalance-masters?dry_run=true", headers={"If-Match": '"7"'})
    assert stale.status_code == 412


APP = {"name": "app", "key_prefixes": ["orders:"], "commands": ["read"]}


@pytest.mark.parametrize(
    ("method", "path", "body", "told"),
    [
        ("POST", "users", {**APP, "name": "more"}, [("/name", None, "more", "password of its own")]),
        ("PATCH", "users/app", {"commands": ["write"], "enabled": False}, [
            ("/commands", ["read"], ["write"], "at once on"), ("/enabled", True, False, "Nobody can sign in"),
        ]),
        ("PATCH", "users/default", {"key_prefixes": ["*"], "commands": ["read"]}, [
            ("/key_prefixes", None, ["*"], "at once"), ("/channel_prefixes", None, [], "at once"),
            ("/commands", None, ["read"], "at once"),
        ]),
        ("DELETE", "users/app", None, [("", "app", None, "connections are cut")]),
        ("POST", "users/app/rotate", {"overlap_seconds": 60}, [("/overlap_seconds", None, 60, "works beside it")]),
        ("POST", "users/app/rotate", {"overlap_seconds": 0}, [("/overlap_seconds", None, 0, "ends at once")]),
        ("POST", "users/old/revoke-old", None, [("", None, None, "ends at once")]),
    ],
)  # fmt: skip
def test_what_a_change_of_users_does_is_rehearsed_and_leaves_nothing(
    absent: Target, acme: Tenant, api: APIClient, clusters: str, method: str, path: str, body: Any, told: Any
) -> None:
    cluster = Cluster.objects.create(
        tenant=acme, target=absent, name="running", engine="redis", version="7.0.15", spec={}, phase="ready"
    )
    access = {"key_prefixes": ["orders:"], "channel_prefixes": [], "commands": ["read"]}
    later = timezone.now() + timedelta(hours=1)
    for name, more in (
        ("default", {}),
        ("app", {"access": access}),
        ("old", {"access": access, "old_version": 1, "old_until": later}),
    ):
        Principal.objects.create(cluster=cluster, name=name, secret_name="running-auth", version=2, **more)
    before = database()
    answer = api.generic(method, f"{clusters}/running/{path}?dry_run=true", json.dumps(body), "application/json")
    assert answer.status_code == 200, answer.content
    said = answer.json()
    assert database() == before
    assert [(one["pointer"], one["before"], one["after"]) for one in said["effects"]] == [one[:3] for one in told]
    assert all(words in one["message"] for one, (*_, words) in zip(said["effects"], told, strict=True))
    assert {one["effect"] for one in said["effects"]} == {"live"}
    assert (said["operation"]["kind"], said["objects"], said["quota"]) == ("change-users", [], [])


def test_an_edit_of_a_user_that_changes_nothing_is_rehearsed_as_that(
    absent: Target, acme: Tenant, api: APIClient, clusters: str
) -> None:
    cluster = Cluster.objects.create(
        tenant=acme, target=absent, name="running", engine="redis", version="7.0.15", spec={}
    )
    Principal.objects.create(cluster=cluster, name="default", secret_name="running-auth")
    told = api.patch(f"{clusters}/running/users/default?dry_run=true", {"enabled": True}, format="json").json()
    assert (told["dry_run"], told["operation"], told["effects"]) == (True, None, [])


def test_a_deletion_that_is_under_way_is_told_as_that(
    absent: Target, acme: Tenant, api: APIClient, clusters: str
) -> None:  # fmt: skip
    cluster = Cluster.objects.create(
        tenant=acme, target=absent, name="running", engine="redis", version="7.0.15", spec={}, phase="deleting"
    )
    Operation.objects.create(cluster=cluster, kind="delete", generation=1, deadline=timezone.now())
    before = database()
    told = api.delete(f"{clusters}/running?dry_run=true").json()
    assert database() == before
    assert "already" in told["effects"][0]["message"]
