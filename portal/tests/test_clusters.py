"""Reading, labelling and listing clusters and operations."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from portal.api import remembered
from portal.tests.conftest import Client, World, make_cluster, make_operation
from provisioning.models import Cluster, ClusterEvent, Operation, OperationState, Phase, Plan, Principal, Target
from tenants.models import ApiToken, AuditEvent
from tenants.quota import replace_limits

CLUSTERS = "/api/v1/tenants/acme/clusters"
ORDERS = f"{CLUSTERS}/orders"


@pytest.fixture
def alice(world: World, client_of: Client) -> APIClient:
    return client_of(world.alice)


def names(answer: Any) -> list[str]:
    return [item["name"] for item in answer.json()["items"]]


def test_a_cluster_is_shown_with_its_etag(alice: APIClient) -> None:
    answer = alice.get(ORDERS)
    assert answer["ETag"] == '"1"'
    shown = answer.json()
    assert (shown["tenant"], shown["name"], shown["phase"], shown["operation"]) == ("acme", "orders", "ready", None)


def test_the_change_under_way_is_shown_with_the_cluster(alice: APIClient, world: World) -> None:
    running = make_operation(world.orders, kind="update", state=OperationState.RUNNING)
    assert alice.get(ORDERS).json()["operation"]["id"] == running.id
    assert alice.get(CLUSTERS).json()["items"][0]["operation"]["id"] == running.id


def test_the_answer_of_an_order_is_what_reading_shows(alice: APIClient) -> None:
    order = {"engine": "redis", "name": "fresh", "labels": {"team": "a"}, "description": "mine"}
    answered = alice.post(CLUSTERS, order, format="json", headers={"Idempotency-Key": "fresh"})
    assert answered.status_code == 202, answered.data
    assert answered.json()["cluster"] == alice.get(f"{CLUSTERS}/fresh").json()
    assert answered.json()["operation"] == alice.get(answered.headers["Location"]).json()


def test_deleted_clusters_are_gone_unless_asked_for(alice: APIClient, world: World) -> None:
    make_cluster(world.acme, world.target, "former", phase=Phase.DELETED)
    assert names(alice.get(CLUSTERS)) == ["orders"]
    assert names(alice.get(f"{CLUSTERS}?phase=deleted")) == ["former"]
    assert alice.get(f"{CLUSTERS}/former").status_code == 404


def test_lists_filter_by_engine_phase_and_beginning_of_the_name(alice: APIClient, world: World) -> None:
    make_cluster(world.acme, world.target, "keeper", engine="zookeeper", phase=Phase.PENDING)
    make_cluster(world.acme, world.target, "ordeal")
    assert names(alice.get(f"{CLUSTERS}?engine=zookeeper")) == ["keeper"]
    assert names(alice.get(f"{CLUSTERS}?phase=pending")) == ["keeper"]
    assert names(alice.get(f"{CLUSTERS}?q=ord&order=name")) == ["ordeal", "orders"]
    assert names(alice.get(f"{CLUSTERS}?q=%25")) == []


def test_lists_filter_by_target_plan_and_label(alice: APIClient, world: World) -> None:
    paris = Target.objects.create(name="paris", title="Paris")
    plan = Plan.objects.get(name="plan-small")
    make_cluster(world.acme, paris, "carts", plan=plan, labels={"team": "shop", "a=b": "c"})
    make_cluster(world.acme, world.target, "mail", labels={"team": "post"})
    assert names(alice.get(f"{CLUSTERS}?target=paris")) == ["carts"]
    assert names(alice.get(f"{CLUSTERS}?plan=plan-small&engine=redis")) == ["carts"]
    assert names(alice.get(f"{CLUSTERS}?label=team%3Dshop&order=name")) == ["carts", "orders"]
    assert names(alice.get(f"{CLUSTERS}?label=team&order=name&limit=2")) == ["carts", "mail"]
    assert names(alice.get(f"{CLUSTERS}?label=team%3Dshop&target=berlin")) == ["orders"]
    assert names(alice.get(f"{CLUSTERS}?label=team%3D")) == []


def test_events_filter_by_reason_warning_and_operation(alice: APIClient, world: World) -> None:
    ClusterEvent.objects.create(cluster=world.orders, warning=True, reason="Away", operation=world.operation)

    def reasons(query: str) -> list[str]:
        return [one["reason"] for one in alice.get(f"{ORDERS}/events?{query}").json()["items"]]

    assert reasons("") == ["Away", "Applied"]
    assert reasons("warning=true") == reasons(f"operation={world.operation.pk}") == ["Away"]
    assert reasons("warning=false") == reasons("reason=Applied") == ["Applied"]


@pytest.mark.parametrize("order", ["created", "-created", "name", "-name"])
def test_pages_join_to_the_whole_list_even_when_rows_come_and_go(alice: APIClient, world: World, order: str) -> None:
    for number in range(7):
        make_cluster(world.acme, world.target, f"c{number * 7 % 5}-{number}")
    whole = names(alice.get(f"{CLUSTERS}?order={order}"))
    found: list[str] = []
    cursor = ""
    while cursor is not None:
        answer = alice.get(CLUSTERS, {"order": order, "limit": "3", "cursor": cursor})
        found += names(answer)
        cursor = answer.json()["next"]
        Cluster.objects.filter(name=found[-1]).update(phase=Phase.DELETED)
    assert found == whole


def test_a_cursor_of_another_ordering_is_refused(alice: APIClient, world: World) -> None:
    make_cluster(world.acme, world.target, "second")
    cursor = alice.get(f"{CLUSTERS}?limit=1&order=name").json()["next"]
    answer = alice.get(CLUSTERS, {"order": "-name", "cursor": cursor})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "?cursor")


LISTS = [
    "/api/v1/tokens",
    "/api/v1/tenants",
    "/api/v1/plans",
    "/api/v1/targets",
    CLUSTERS,
    f"{ORDERS}/events",
    f"{ORDERS}/operations",
    f"{ORDERS}/credentials",
    "/api/v1/tenants/acme/operations",
]


@pytest.mark.parametrize("path", LISTS)
def test_a_long_list_takes_as_many_queries_as_a_short_one(alice: APIClient, world: World, path: str) -> None:
    alice.get(path)  # last_used is written now, not while we count
    remembered.CLUSTERS.clear()
    with CaptureQueriesContext(connection) as short:
        assert alice.get(path).status_code == 200
    for number in range(50):
        more = make_cluster(world.acme, world.target, f"more-{number}", created_by=world.alice)
        make_operation(more, state=OperationState.RUNNING, actor=world.bob)
        make_operation(world.orders, actor=world.bob)
        ClusterEvent.objects.create(cluster=world.orders, reason="Again", message="and again")
        Principal.objects.create(cluster=world.orders, name=f"p{number}", secret_name="s")
    remembered.CLUSTERS.clear()
    with CaptureQueriesContext(connection) as long:
        assert alice.get(path).status_code == 200
    assert len(long) == len(short), [query["sql"][:200] for query in long]


def test_an_operation_shows_its_steps_and_proof(alice: APIClient, world: World) -> None:
    shown = alice.get(f"/api/v1/operations/{world.operation.id}").json()
    assert shown["steps"][0] == {
        "key": "apply", "title": "Apply", "state": "done", "started": "2026-01-01T00:00:00Z", "ended": None,
        "reason": "", "object": "",
    }  # fmt: skip
    assert shown["proof"]["summary"] == "wrote and read"
    assert (shown["actor"], shown["cluster"]["name"], shown["error"]) == ("alice", "orders", None)


def test_waiting_for_an_operation_that_has_ended_answers_at_once(alice: APIClient, world: World) -> None:
    answer = alice.get(f"/api/v1/operations/{world.operation.id}?wait=60&revision=99")
    assert answer.json()["state"] == "succeeded"


def test_waiting_with_an_old_revision_answers_at_once(alice: APIClient, world: World) -> None:
    running = make_operation(world.orders, state=OperationState.RUNNING, revision=5)
    answer = alice.get(f"/api/v1/operations/{running.id}?wait=60&revision=4")
    assert answer.json()["revision"] == 5


def test_a_wait_that_is_no_number_of_seconds_is_refused(alice: APIClient, world: World) -> None:
    """A "nan" is neither below the least nor above the most: waiting for so long would never end."""
    running = make_operation(world.orders, state=OperationState.RUNNING)
    answer = alice.get(f"/api/v1/operations/{running.id}?wait=nan")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "?wait")


def test_a_token_that_is_revoked_while_it_waits_gets_no_answer(
    alice: APIClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = make_operation(world.orders, state=OperationState.RUNNING)
    monkeypatch.setattr(
        "portal.api.operations.wait_for_operation", lambda *_, **__: ApiToken.objects.update(revoked=timezone.now())
    )
    answer = alice.get(f"/api/v1/operations/{running.id}?wait=60")
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


def test_operations_are_listed_newest_first_and_by_state(alice: APIClient, world: World) -> None:
    running = make_operation(world.orders, state=OperationState.RUNNING)
    path = "/api/v1/tenants/acme/operations"
    assert [item["id"] for item in alice.get(path).json()["items"]] == [running.id, world.operation.id]
    assert [item["id"] for item in alice.get(f"{path}?open=true").json()["items"]] == [running.id]
    assert [item["id"] for item in alice.get(f"{path}?open=false").json()["items"]] == [world.operation.id]


def test_the_target_counts_nodes_that_take_pods(alice: APIClient, world: World) -> None:
    world.target.nodes[0]["schedulable"] = False
    world.target.save(update_fields=["nodes"])
    (shown,) = alice.get("/api/v1/targets").json()["items"]
    assert (shown["nodes"], shown["zones"], shown["storage_classes"][0]["name"]) == (2, 2, "standard")


def test_plans_filter_by_engine_in_the_administrators_order(alice: APIClient) -> None:
    assert names(alice.get("/api/v1/plans")) == ["plan-small", "plan-keeper"]
    assert names(alice.get("/api/v1/plans?engine=zookeeper")) == ["plan-keeper"]


def test_the_catalogue_describes_every_field_of_the_form(alice: APIClient) -> None:
    engines = alice.get("/api/v1/engines").json()["items"]
    fields = [field for engine in engines for field in engine["fields"]]
    assert fields
    assert all(field["key"] and field["title"] and field["effect"] for field in fields)


# --- changing ---------------------------------------------------------------------------------------------------------


def test_labels_are_merged_and_null_removes(alice: APIClient) -> None:
    answer = alice.patch(ORDERS, {"labels": {"team": None, "tier": "gold"}, "description": "Shop"}, format="json")
    assert answer.status_code == 200, answer.content
    assert (answer.json()["labels"], answer.json()["description"]) == ({"tier": "gold"}, "Shop")
    assert answer["ETag"] == '"2"'


def test_a_merge_patch_has_its_own_media_type(alice: APIClient) -> None:
    answer = alice.patch(ORDERS, '{"description": null}', content_type="application/merge-patch+json")
    assert (answer.status_code, answer.json()["description"]) == (200, "")


@pytest.mark.parametrize("field", ["name", "engine", "target", "plan"])
def test_what_cannot_be_changed_is_named_with_the_way_out(alice: APIClient, field: str) -> None:
    answer = alice.patch(ORDERS, {field: {}}, format="json")
    error = answer.json()["errors"][0]
    assert (answer.status_code, error["pointer"], error["code"]) == (422, f"/{field}", "not_changeable")


@pytest.mark.parametrize("tag", ['"1"', "*", '"7", "1"'])
def test_if_match_with_the_present_etag_lets_the_change_through(alice: APIClient, tag: str) -> None:
    assert alice.patch(ORDERS, {"description": "x"}, format="json", headers={"If-Match": tag}).status_code == 200


@pytest.mark.parametrize("tag", ['"2"', 'W/"1"', "1", ""])
@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_if_match_with_another_etag_is_412_with_the_present_one(alice: APIClient, tag: str, method: str) -> None:
    answer = alice.generic(method, ORDERS, "{}", "application/json", headers={"If-Match": tag})
    assert (answer.status_code, answer.json()["code"], answer["ETag"]) == (412, "stale_revision", '"1"')
    assert Cluster.objects.get(name="orders").phase == Phase.READY


# --- changing what runs -----------------------------------------------------------------------------------------------


def change(client: APIClient, spec: dict[str, Any], query: str = "", **headers: str) -> Any:
    return client.patch(f"{ORDERS}{query}", {"spec": spec}, format="json", headers=headers)


def test_a_change_of_the_spec_is_an_operation_that_tells_each_effect(alice: APIClient, world: World) -> None:
    answer = change(alice, {"memoryGiB": 3, "config": {"hz": "20"}})
    assert answer.status_code == 202, answer.content
    body = answer.json()
    assert answer["Location"] == f"/api/v1/operations/{body['operation']['id']}"
    assert (body["operation"]["kind"], body["cluster"]["generation"], body["cluster"]["revision"]) == ("update", 2, 2)
    effects = {one["pointer"]: (one["effect"], one["before"], one["after"]) for one in body["operation"]["changes"]}
    assert effects == {"/memoryGiB": ("roll", 2, 3), "/config/hz": ("live", 10, 20)}
    assert [step["key"] for step in body["operation"]["steps"]] == [
        "apply", "schedule", "start", "config", "restart", "proof",
    ]  # fmt: skip
    assert (body["cluster"]["spec"]["memoryGiB"], body["cluster"]["spec"]["config"]) == (3, {"hz": 20})


def test_what_plan_and_target_no_longer_allow_is_kept_and_hinders_no_other_change(
    alice: APIClient, world: World
) -> None:
    orders = world.orders
    plan = Plan.objects.create(name="plan-fast", engine="redis", title="Fast", storage_classes=["fast-ssd"], position=3)
    Cluster.objects.filter(pk=orders.pk).update(plan=plan)
    orders.target.checked = timezone.now()
    orders.target.storage_classes = [{"name": "fast-ssd", "default": True, "expandable": True}]
    for node in orders.target.nodes[1:]:
        node["schedulable"] = False
    orders.target.save()
    (error,) = change(alice, {"replicasPerShard": 2}).json()["errors"]
    assert (error["pointer"], error["code"]) == ("/spec/replicasPerShard", "too_few_nodes")
    (error,) = change(alice, {"storageClass": "slow"}).json()["errors"]
    assert (error["pointer"], error["code"]) == ("/spec/storageClass", "not_allowed")
    answer = change(alice, {"config": {"hz": "20"}, "replicasPerShard": 0}, "?confirm=orders")
    assert answer.status_code == 202, answer.content
    assert answer.json()["cluster"]["spec"]["storageClass"] not in plan.storage_classes


def test_a_change_that_changes_nothing_is_no_operation(alice: APIClient, world: World) -> None:
    answer = change(alice, {"shards": 3})
    assert (answer.status_code, answer["ETag"]) == (200, '"1"')
    assert world.orders.operations.count() == 1


@pytest.mark.parametrize(
    ("spec", "pointer", "code", "words"),
    [
        ({"storageClass": "fast-ssd"}, "/spec/storageClass", "unknown_storage_class", "has no class"),
        ({"storageGiB": 4}, "/spec/storageGiB", "not_changeable", "never shrink"),
        ({"shards": 4, "replicasPerShard": 0, "memoryGiB": 3}, "/spec/replicasPerShard", "not_changeable", "growth"),
        ({"shards": 6, "replicasPerShard": 0}, "/spec/replicasPerShard", "not_changeable", "growth (shards)"),
        ({"memoryGiB": 4}, "/spec/memoryGiB", "storage_too_small", "Choose storageGiB 6 or more (it is 5)"),
        ({"config": {"min-replicas-to-write": 2}}, "/spec/config/min-replicas-to-write", "refuses_writes",
         "Choose at most 1, or replicasPerShard 2"),
        ({"config": {"maxmemory": "1gb"}}, "/spec/config/maxmemory", "not_allowed", "memoryGiB"),
        ({"config": {"cluster-port": 1}}, "/spec/config/cluster-port", "not_allowed", "Berth shapes"),
        ({"config": {"hzz": 1}}, "/spec/config/hzz", "unknown_field", "Did you mean hz?"),
        ({"config": {"hz": 501}}, "/spec/config/hz", "out_of_range", "1 to 500"),
        ({"config": {"hz": "fast"}}, "/spec/config/hz", "wrong_type", "whole number"),
        ({"config": ["hz"]}, "/spec/config", "wrong_type", "an object"),
    ],
)  # fmt: skip
def test_a_change_that_is_refused_names_field_rule_and_remedy(
    alice: APIClient, world: World, spec: dict[str, Any], pointer: str, code: str, words: str
) -> None:
    answer = change(alice, spec)
    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["pointer"], error["code"]) == (422, pointer, code)
    assert words in error["message"]
    assert Cluster.objects.get(name="orders").generation == 1


def test_a_cluster_whose_storage_is_too_small_by_a_newer_rule_keeps_it_until_its_memory_grows(
    alice: APIClient, world: World
) -> None:
    Cluster.objects.filter(pk=world.orders.pk).update(spec={"shards": 3, "memoryGiB": 4, "storageGiB": 4})
    (error,) = change(alice, {"memoryGiB": 5}).json()["errors"]
    assert (error["pointer"], error["code"]) == ("/spec/memoryGiB", "storage_too_small")
    assert change(alice, {"config": {"hz": 20}}).status_code == 202


def test_settings_that_refuse_writes_by_a_newer_rule_stay_and_may_be_lowered_and_no_replica_leaves_below_them(
    alice: APIClient, world: World
) -> None:
    pointer = "/spec/config/min-replicas-to-write"
    Cluster.objects.filter(pk=world.orders.pk).update(
        spec={"shards": 3, "memoryGiB": 2, "replicasPerShard": 2, "config": {"min-replicas-to-write": 2}}
    )
    (error,) = change(alice, {"replicasPerShard": 1}).json()["errors"]
    assert (error["pointer"], error["code"]) == (pointer, "refuses_writes")
    Cluster.objects.filter(pk=world.orders.pk).update(
        spec={"shards": 3, "memoryGiB": 2, "replicasPerShard": 1, "config": {"min-replicas-to-write": 3}}
    )
    answer = change(alice, {"config": {"min-replicas-to-write": 2, "hz": 20}})
    assert answer.status_code == 202, answer.content


@pytest.mark.parametrize("ending", ["s0", "s12", "nodes", "auth", "config", "tls", "tls-authority", "berth"])
def test_a_name_that_objects_of_another_cluster_have_is_refused(alice: APIClient, world: World, ending: str) -> None:
    def order(name: str) -> Any:
        return alice.post(
            "/api/v1/tenants/acme/clusters", {"engine": "redis", "name": name}, format="json",
            headers={"Idempotency-Key": name},
        )  # fmt: skip

    (error,) = order(f"other-{ending}").json()["errors"]
    assert (error["pointer"], error["code"]) == ("/name", "bad_name")
    assert f"other-{ending} is what an object of a cluster other is called. Choose a name" in error["message"]
    assert order(f"other-{ending}x").status_code == 202


def test_an_order_without_replicas_or_persistence_wants_the_name_typed_unless_its_plan_says_so(
    alice: APIClient, world: World
) -> None:
    values = {"shards": 3, "replicasPerShard": 0}
    Plan.objects.create(name="plan-single", engine="redis", title="One copy", values=values, position=4)
    spec = {"replicasPerShard": 0}
    path = "/api/v1/tenants/acme/clusters"

    def order(name: str, query: str = "", **more: Any) -> Any:
        body = {"engine": "redis", "name": name, **more}
        return alice.post(f"{path}{query}", body, format="json", headers={"Idempotency-Key": name + query})

    refused = order("single", spec=spec)
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "confirm_name")
    assert "outage" in refused.json()["detail"]
    told = order("single", "?dry_run=true", spec=spec).json()["effects"]
    assert [(one["effect"], one["pointer"]) for one in told] == [("loss", "/spec/replicasPerShard")]
    made = order("single", "?confirm=single", spec=spec)
    assert made.status_code == 202, made.content
    assert [one["effect"] for one in made.json()["operation"]["changes"]] == ["loss"]
    assert order("planned", plan="plan-single").status_code == 202
    refused = order("cache", plan="plan-single", spec={"persistence": "none"})
    assert refused.json()["errors"][0]["pointer"] == "?confirm"
    assert "outage" not in refused.json()["detail"]


def test_what_can_lose_data_wants_the_name_typed(alice: APIClient, world: World) -> None:
    refused = change(alice, {"replicasPerShard": 0})
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "confirm_name")
    assert "outage" in refused.json()["detail"]
    assert change(alice, {"replicasPerShard": 0}, "?confirm=orders").status_code == 202


def test_one_change_at_a_time(alice: APIClient, world: World) -> None:
    first = change(alice, {"shards": 4}).json()["operation"]["id"]
    for answer in (change(alice, {"shards": 5}), alice.post(f"{ORDERS}/restart")):
        assert (answer.status_code, answer.json()["code"]) == (409, "operation_in_progress")
        assert first in answer.json()["suggestion"]


def test_a_change_on_an_old_etag_is_refused(alice: APIClient, world: World) -> None:
    assert alice.patch(ORDERS, {"description": "x"}, format="json").status_code == 200
    answer = change(alice, {"shards": 4}, **{"If-Match": '"1"'})
    assert (answer.status_code, answer["ETag"]) == (412, '"2"')


def test_taking_a_value_back_gives_the_plans_or_the_default(alice: APIClient, world: World) -> None:
    Cluster.objects.filter(name="orders").update(
        # As left by an older version, with a field there is no more.
        spec={**world.orders.spec, "relic": 1, "config": {"hz": 20, "timeout": 5}}
    )
    body = change(alice, {"config": {"hz": None}}).json()
    assert body["cluster"]["spec"]["config"] == {"timeout": 5}
    assert [(one["pointer"], one["after"]) for one in body["operation"]["changes"]] == [("/config/hz", 10)]


def test_the_forecast_tells_the_effects_before(alice: APIClient, world: World) -> None:
    draft = {"cluster": "orders", "spec": {"shards": 4, "storageGiB": 4}}
    body = alice.post("/api/v1/tenants/acme/quota/forecast", draft, format="json").json()
    assert {one["pointer"]: one["effect"] for one in body["changes"]} == {"/shards": "move", "/storageGiB": "fixed"}
    assert Cluster.objects.get(name="orders").generation == 1


def test_a_restart_is_an_operation_of_its_own(alice: APIClient, world: World) -> None:
    answer = alice.post(f"{ORDERS}/restart", headers={"Idempotency-Key": "r"})
    assert (answer.status_code, answer.json()["operation"]["kind"]) == (202, "restart")
    assert [one["effect"] for one in answer.json()["operation"]["changes"]] == ["roll"]
    again = alice.post(f"{ORDERS}/restart", headers={"Idempotency-Key": "r"})
    assert again.json()["operation"]["id"] == answer.json()["operation"]["id"]


def test_masters_are_made_even_by_an_operation_that_changes_no_spec(alice: APIClient, world: World) -> None:
    answer = alice.post(f"{ORDERS}/rebalance-masters", headers={"Idempotency-Key": "e"})
    operation = answer.json()["operation"]
    assert (answer.status_code, operation["kind"]) == (202, "rebalance-masters")
    assert [step["key"] for step in operation["steps"]] == ["replicas", "rebalance", "proof"]
    assert Cluster.objects.get(name="orders").generation == 1
    again = alice.post(f"{ORDERS}/rebalance-masters", headers={"Idempotency-Key": "e"})
    assert again.json()["operation"]["id"] == operation["id"]
    assert alice.post(f"{ORDERS}/rebalance-masters").json()["code"] == "operation_in_progress"
    assert alice.post(f"/api/v1/operations/{operation['id']}/cancel").json()["state"] == "canceled"


def test_without_replicas_nothing_can_take_over_and_the_remedy_is_named(alice: APIClient, world: World) -> None:
    Cluster.objects.filter(name="orders").update(spec={**world.orders.spec, "replicasPerShard": 0})
    answer = alice.post(f"{ORDERS}/rebalance-masters")
    assert (answer.status_code, answer.json()["code"]) == (409, "cannot_rebalance")
    assert "replicasPerShard" in answer.json()["detail"]


LOSS = {"extent": "0-5460", "message": "The data of shard 0 is gone: no member holds slots 0-5460 (5461 of 16384)."}


def test_a_loss_is_accepted_only_under_the_name_of_the_cluster_and_for_what_was_seen(
    alice: APIClient, world: World
) -> None:
    Cluster.objects.filter(name="orders").update(loss=LOSS)
    assert alice.get(ORDERS).json()["loss"] == LOSS
    for confirm in ("", "?confirm=order"):
        refused = alice.post(f"{ORDERS}/accept-loss{confirm}").json()
        assert [(one["pointer"], one["code"]) for one in refused["errors"]] == [("?confirm", "confirm_name")]
    answer = alice.post(f"{ORDERS}/accept-loss?confirm=orders", headers={"Idempotency-Key": "l"})
    operation = answer.json()["operation"]
    assert (answer.status_code, operation["kind"]) == (202, "accept-loss")
    assert [(one["effect"], one["after"]) for one in operation["changes"]] == [("loss", "0-5460")]
    assert [step["key"] for step in operation["steps"]] == ["meet", "slots", "replicas", "proof"]
    row = Operation.objects.get(pk=operation["id"])
    # More that is lost before a worker comes to it is not accepted with it.
    assert (row.params["extent"], row.cluster.generation) == ("0-5460", 1)
    (event,) = row.cluster.events.filter(reason="LossAccepted")
    assert event.message.startswith("alice accepts a loss: The data of shard 0 is gone")
    noted = AuditEvent.objects.filter(action="acceptLoss").values_list("actor", "result")
    assert sorted(noted) == [("alice", "refused"), ("alice", "refused"), ("alice", "success")]


def test_a_dry_run_of_accepting_a_loss_says_which_slots_are_given_up_and_gives_up_none(
    alice: APIClient, world: World
) -> None:
    Cluster.objects.filter(name="orders").update(loss=LOSS)
    told = alice.post(f"{ORDERS}/accept-loss?dry_run=true").json()
    (impact,) = told["effects"]
    assert (impact["effect"], "slots 0-5460 (5461 of 16384)" in impact["message"]) == ("loss", True)
    assert not Operation.objects.filter(kind="accept-loss").exists()


def test_nothing_is_given_up_of_a_cluster_whose_data_may_still_come_back(alice: APIClient, world: World) -> None:
    answer = alice.post(f"{ORDERS}/accept-loss?confirm=orders")
    assert (answer.status_code, answer.json()["code"]) == (409, "nothing_lost")
    Cluster.objects.filter(name="orders").update(loss=LOSS)
    stale = alice.post(f"{ORDERS}/accept-loss?confirm=orders", headers={"If-Match": '"7"'})
    assert stale.status_code == 412


def test_growth_beyond_the_quota_is_refused_and_nothing_changes(alice: APIClient, world: World) -> None:
    replace_limits(tenant_id=world.acme.pk, limits={("", "pods"): 6})
    answer = change(alice, {"shards": 4})
    assert (answer.status_code, answer.json()["code"]) == (409, "quota_exceeded")
    assert Cluster.objects.get(name="orders").spec == world.orders.spec


def test_the_order_of_a_cluster_makes_another_like_it(alice: APIClient, world: World) -> None:
    order = {"engine": "redis", "name": "first", "labels": {"team": "a"}, "description": "mine",
             "spec": {"shards": 4, "config": {"hz": 20}}}  # fmt: skip
    assert alice.post(CLUSTERS, order, format="json", headers={"Idempotency-Key": "1"}).status_code == 202
    copy = alice.get(f"{CLUSTERS}/first/order").json()
    assert copy["left_out"] == []
    answer = alice.post(CLUSTERS, {**copy["order"], "name": "second"}, format="json", headers={"Idempotency-Key": "2"})
    assert answer.status_code == 202, answer.content
    first, second = (alice.get(f"{CLUSTERS}/{name}").json() for name in ("first", "second"))
    for key in ("engine", "version", "plan", "target", "spec", "labels", "description"):
        assert first[key] == second[key]
    secrets = [Principal.objects.get(cluster__name=name).secret_name for name in ("first", "second")]
    assert len(set(secrets)) == 2


def test_what_is_no_longer_offered_is_left_out_of_the_order_and_said(alice: APIClient, world: World) -> None:
    Plan.objects.create(name="old", engine="redis", title="Old", values={"shards": 5}, offered=False)
    Cluster.objects.filter(name="orders").update(plan="old", version="6.2.0")
    Target.objects.filter(pk=world.target.pk).update(enabled=False)
    copy = alice.get(f"{ORDERS}/order").json()
    assert [one["pointer"] for one in copy["left_out"]] == ["/plan", "/version", "/target"]
    assert (copy["order"]["plan"], copy["order"]["target"]) == (None, None)
    assert copy["order"]["spec"]["shards"] == world.orders.spec["shards"]


def test_another_version_is_an_operation_whose_effect_is_said_before(alice: APIClient, world: World) -> None:
    rehearsed = alice.patch(f"{ORDERS}?dry_run=true", {"version": "8.0.2"}, format="json").json()
    assert [(one["pointer"], one["effect"], one["before"], one["after"]) for one in rehearsed["effects"]] == [
        ("/version", "roll", "7.0.15", "8.0.2")
    ]
    assert Cluster.objects.get(name="orders").version == "7.0.15"
    answer = alice.patch(ORDERS, {"version": "8.0.2", "description": "newer"}, format="json")
    operation = answer.json()["operation"]
    assert (answer.status_code, operation["kind"]) == (202, "upgrade")
    assert [step["key"] for step in operation["steps"]] == ["apply", "schedule", "start", "config", "restart", "proof"]
    assert (answer.json()["cluster"]["version"], answer.json()["cluster"]["description"]) == ("8.0.2", "newer")
    assert Cluster.objects.get(name="orders").generation == 2


@pytest.mark.parametrize(
    ("running", "sent", "code", "text"),
    [
        ("7.0.15", {"version": "6.2"}, "unknown_version", "7.0.15, 8.0.2"),
        ("8.0.2", {"version": "7.0.15"}, "no_upgrade_path", "never goes back"),
        ("7.0.15", {"version": "8.0.2", "spec": {"shards": 4}}, "not_together", "one, then the other"),
    ],
)
def test_versions_that_cannot_be_gone_to_are_refused_with_the_rule(
    alice: APIClient, world: World, running: str, sent: dict[str, Any], code: str, text: str
) -> None:
    Cluster.objects.filter(name="orders").update(version=running)
    answer = alice.patch(ORDERS, sent, format="json")
    [error] = answer.json()["errors"]
    assert (answer.status_code, error["pointer"], error["code"]) == (422, "/version", code)
    assert text in error["message"]
    assert not world.orders.operations.open().exists()


def test_the_version_a_cluster_has_is_no_change(alice: APIClient, world: World) -> None:
    assert alice.patch(ORDERS, {"version": "7.0.15"}, format="json").status_code == 200
    assert not world.orders.operations.open().exists()
