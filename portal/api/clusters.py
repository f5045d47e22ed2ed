"""/tenants/{tenant}/clusters: order, list, show, label and delete clusters; their events and operations."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
from django.db.models import FilteredRelation, Model, Prefetch, Q, QuerySet
from drf_spectacular.utils import PolymorphicProxySerializer, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal import logs
from portal.api.base import ApiView
from portal.api.etags import etag, expected_revision
from portal.api.operations import OperationOut, OperationPage, OperationsQuery, operations_page
from portal.api.pagination import PageQuery, after, following, ordering, page, position
from portal.api.parsers import JsonParser, MergePatchParser
from portal.api.rehearsals import RehearsalOut, rehearsed
from portal.api.remembered import CLUSTERS, row_version
from portal.api.renderers import dumps
from portal.api.schema import ETAG, IF_MATCH, LOCATION, described
from portal.api.serializers import Body, DryRunQuery, Text, lookups, read_body, read_query, wire, wire_list
from portal.idempotency import idempotent
from portal.problems import invalid
from provisioning.clusters.rehearsal import (
    rehearse,
    rehearse_acceptance,
    rehearse_create,
    rehearse_delete,
    rehearse_edit,
    rehearse_restart,
)
from provisioning.clusters.services import (
    accept_loss,
    change_cluster,
    create_cluster,
    delete_cluster,
    edit_cluster,
    rebalance_cluster,
    restart_cluster,
)
from provisioning.models import OPEN_STATES, Cluster, ClusterQuerySet, Operation, Phase
from tenants.prepared import Prepared
from tenants.refusals import FieldError, Missing

ENDPOINT_SCOPES = [(scope, scope) for scope in ("cluster", "external")]
CONDITION_STATES = [(state, state) for state in ("True", "False", "Unknown")]
ORDERS = [(order, order) for order in ("created", "-created", "name", "-name")]


def _columns(model: type[Model], *unseen: str) -> list[str]:
    return [field.name for field in model._meta.concrete_fields if field.name not in unseen]


# Reading a column that nobody is shown costs a list of 200 as much as showing one.
CLUSTER_SHOWN = _columns(Cluster, "inventory", "applied_at", "next_look", "claimed_until", "fence", "wakes")
OPERATION_SHOWN = _columns(Operation)

FIXED = {
    "name": "A name never changes: delete the cluster and order a new one.",
    "engine": "An engine never changes: order a new cluster.",
    "target": "A cluster stays on its target: order a new one on the other target.",
    "plan": "The plan stays as a name; send the values you want to change as `spec`.",
}


class ClusterOrder(Body):
    """What to deliver."""

    name = Text(help_text="1 to 30 lower-case letters, digits and hyphens, unique in the tenant; never changes.")
    engine = Text(help_text="Key of an engine, see /engines.")
    plan = Text(required=False, allow_null=True, default=None, help_text="Key of a plan, see /plans. Default: none.")
    version = Text(required=False, allow_null=True, default=None, help_text="Default: the engine's first.")
    target = Text(required=False, allow_null=True, default=None, help_text="Where to run. Default: the only one.")
    spec = serializers.DictField(
        required=False, default=dict,
        help_text="Plan fields to set, see the engine's `fields`. What is left out comes from the plan, then from the "
        "engine's defaults.",
    )  # fmt: skip
    labels = serializers.DictField(
        child=Text(allow_blank=True), required=False, default=dict, help_text="Yours to use."
    )
    description = Text(required=False, default="", allow_blank=True, max_length=2000)


class ClusterPatch(Body):
    """A merge patch: what is absent stays."""

    labels = serializers.DictField(
        child=Text(allow_blank=True, allow_null=True), required=False, allow_null=True,
        help_text="Merged key by key; null removes a key; null for the whole removes all.",
    )  # fmt: skip
    description = Text(required=False, allow_null=True, allow_blank=True, max_length=2000, help_text="null empties it.")
    version = Text(
        required=False, max_length=30,
        help_text="Go to this version by a rolling restart; see the engine's `upgrades`. Not together with `spec`.",
    )  # fmt: skip
    spec = serializers.DictField(
        required=False,
        help_text="Plan fields to change; null takes a value back to the plan's or the engine's default. Maps are "
        "merged key by key.",
    )


class ClusterQuery(PageQuery):
    engine = serializers.CharField(required=False, max_length=30, help_text="Only this engine.")
    phase = serializers.ChoiceField(
        choices=Phase.choices,
        required=False,
        help_text="Only this phase. Deleted ones are shown for `deleted` only.",
    )
    target = serializers.CharField(required=False, max_length=30, help_text="Only on this target.")
    plan = serializers.CharField(required=False, max_length=40, help_text="Only ordered by this plan.")
    label = serializers.CharField(  # type: ignore[assignment]
        required=False, max_length=300,
        help_text="Only with this label: `key=value`, or `key` for those that have it whatever its value is.",
    )  # fmt: skip
    q = serializers.CharField(required=False, max_length=30, help_text="Only names that begin with this.")
    order = serializers.ChoiceField(
        choices=ORDERS, required=False, default="-created", help_text="A minus: descending."
    )


class ChangeQuery(DryRunQuery):
    """Of a change that can lose data."""

    confirm = serializers.CharField(
        required=False, max_length=30,
        help_text="The cluster's name, typed again; required for what can lose data.",
    )  # fmt: skip


class DeleteQuery(DryRunQuery):
    volumes = serializers.ChoiceField(
        choices=[("keep", "keep"), ("delete", "delete")], required=False, default="keep",
        help_text="Whether the data is deleted too. That cannot be undone.",
    )  # fmt: skip
    confirm = serializers.CharField(
        required=False, max_length=30, help_text="The cluster's name, typed again; required with volumes=delete."
    )


class ConditionOut(serializers.Serializer[Any]):
    type = serializers.CharField()
    status = serializers.ChoiceField(choices=CONDITION_STATES)
    reason = serializers.CharField(default="")
    message = serializers.CharField(default="")
    since = serializers.DateTimeField(default=None, allow_null=True)


class EndpointOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    host = serializers.CharField()
    port = serializers.IntegerField()
    scope = serializers.ChoiceField(
        choices=ENDPOINT_SCOPES, default="cluster", help_text="cluster: reachable inside the Kubernetes cluster."
    )


class MemberOut(serializers.Serializer[Any]):
    pod = serializers.CharField()
    role = serializers.CharField(default="")
    node = serializers.CharField(default="")
    zone = serializers.CharField(default="")
    shard = serializers.CharField(default="")
    healthy = serializers.BooleanField(default=True)
    detail = serializers.DictField(default=dict)


class CauseOut(serializers.Serializer[Any]):
    code = serializers.CharField(help_text="For programs, such as master-down; more will come.")
    message = serializers.CharField()
    remedy = serializers.CharField(help_text="What can be done, or that nothing need be.")
    object = serializers.CharField(help_text="Which thing it is about; may be empty.")


class InvariantOut(serializers.Serializer[Any]):
    key = serializers.CharField(help_text="replicas, apart or even.")
    holds = serializers.BooleanField(allow_null=True, help_text="null: not known now.")
    message = serializers.CharField(help_text="How it stands, for people.")


class NodeShareOut(serializers.Serializer[Any]):
    node = serializers.CharField()
    zone = serializers.CharField()
    masters = serializers.IntegerField(help_text="Members there that lead a shard.")
    members = serializers.IntegerField()


class SpreadOut(serializers.Serializer[Any]):
    invariants = InvariantOut(many=True)
    nodes = NodeShareOut(many=True)
    hand_overs = serializers.IntegerField(help_text="How many rebalance-masters would take.")


class LossOut(serializers.Serializer[Any]):
    extent = serializers.CharField(help_text="What exactly, such as the slots 0-5460; for programs.")
    message = serializers.CharField()


class PauseOut(serializers.Serializer[Any]):
    by = serializers.CharField(help_text="Who paused it.")
    reason = serializers.CharField()
    since = serializers.DateTimeField()


class ClusterOut(serializers.Serializer[Any]):
    id = serializers.CharField()
    tenant = serializers.CharField(source="tenant.slug")
    name = serializers.CharField()
    engine = serializers.CharField()
    version = serializers.CharField()
    plan = serializers.CharField(source="plan_id", allow_null=True)
    target = serializers.CharField(source="target_id")
    spec = serializers.DictField(help_text="Complete: the plan's values and the defaults are filled in.")
    labels = serializers.DictField(child=serializers.CharField())
    description = serializers.CharField()
    phase = serializers.ChoiceField(choices=Phase.choices)
    reason = serializers.CharField(help_text="Why it is degraded or failed, or what it waits for.")
    paused = PauseOut(allow_null=True, help_text="Berth only watches it, until it is resumed; null: it is reconciled.")
    causes = CauseOut(many=True, help_text="Why it is not well, the likeliest first; empty when it is.")
    conditions = ConditionOut(many=True)
    endpoints = EndpointOut(many=True)
    members = MemberOut(many=True, help_text="Its processes.")
    spread = SpreadOut(allow_null=True, help_text="How they stand on the nodes, at the last look; null: not known.")
    loss = LossOut(
        allow_null=True,
        help_text="Data that is gone: everybody who held it came back empty. Its place is served by nobody until the "
        "loss is accepted, see accept-loss. null: nothing, as far as is known now.",
    )
    generation = serializers.IntegerField(help_text="Counts changes of the spec.")
    observed_generation = serializers.IntegerField(help_text="The generation that has been brought about.")
    revision = serializers.IntegerField(help_text="Counts everything people change: the ETag.")
    operation = serializers.SerializerMethodField(help_text="The change under way, null when there is none.")
    created = serializers.DateTimeField()
    created_by = serializers.CharField(source="created_by.username", default=None, allow_null=True)
    ready_at = serializers.DateTimeField(allow_null=True, help_text="When it was proven ready for the first time.")
    volumes_kept = serializers.BooleanField(help_text="It was deleted and its data was kept.")
    deleted_at = serializers.DateTimeField(allow_null=True)

    @extend_schema_field(OperationOut(allow_null=True))
    def get_operation(self, cluster: Cluster) -> dict[str, Any] | None:
        found: list[Operation] = getattr(cluster, "open_operations", [])
        return wire(OperationOut, found[0]) if found else None


class ClusterPage(serializers.Serializer[Any]):
    items = ClusterOut(many=True)
    next = serializers.CharField(allow_null=True)


class AcceptedOut(serializers.Serializer[Any]):
    operation = OperationOut()
    cluster = ClusterOut()


class EventOut(serializers.Serializer[Any]):
    id = serializers.CharField()
    warning = serializers.BooleanField()
    reason = serializers.CharField(help_text="One word; for programs.")
    message = serializers.CharField()
    object = serializers.CharField(help_text="Which thing it is about; may be empty.")
    count = serializers.IntegerField(help_text="How often it happened in a row.")
    operation = serializers.CharField(source="operation_id", allow_null=True)
    created = serializers.DateTimeField()
    last_seen = serializers.DateTimeField()


class EventsQuery(PageQuery):
    warning = serializers.BooleanField(
        required=False, allow_null=True, default=None, help_text="Only warnings, or only what is none."
    )
    reason = serializers.CharField(required=False, max_length=60, help_text="Only of this reason.")
    operation = serializers.CharField(required=False, max_length=40, help_text="Only of this operation.")


class EventPage(serializers.Serializer[Any]):
    items = EventOut(many=True)
    next = serializers.CharField(allow_null=True)


def complete(clusters: ClusterQuerySet, *, versions: bool = False) -> ClusterQuerySet:
    """With everything the wire form needs, and no more, in a constant number of queries.

    `versions`: each cluster and its operation also with the version of its own row, as `row`.
    """
    # The prefetch gives each operation the cluster it was fetched for: no need to read that again.
    operations = Operation.objects.open().select_related("actor").only(*OPERATION_SHOWN, "actor__username")
    if versions:
        clusters = clusters.annotate(row=row_version(Cluster._meta.db_table))
        operations = operations.annotate(row=row_version(Operation._meta.db_table))
    return (
        clusters.select_related("tenant", "created_by")
        .only(*CLUSTER_SHOWN, "tenant__slug", "created_by__username")
        .prefetch_related(Prefetch("operations", queryset=operations, to_attr="open_operations"))
    )


class Line(NamedTuple):
    """What a list reads of a cluster: enough to know whether its wire form was written before."""

    id: str
    name: str
    revision: int
    # Of all that the wire form is made from: the cluster's row, its open operation's, and the two people's names.
    version: tuple[str | None, ...]


def lines(clusters: ClusterQuerySet) -> QuerySet[Cluster, Any]:
    """The lines of clusters, as tuples for `Line`: one query, no joins but by primary or unique keys."""
    under_way = FilteredRelation("operations", condition=Q(operations__state__in=OPEN_STATES))
    found: Any = clusters.annotate(under_way=under_way).annotate(
        row=row_version(Cluster._meta.db_table), operation_row=row_version("under_way")
    )
    return found.values_list(  # type: ignore[no-any-return]
        "id", "name", "revision", "row", "under_way__id", "operation_row", "created_by__username",
        "under_way__actor__username",
    )  # fmt: skip


def as_line(row: Sequence[Any]) -> Line:
    """A row of `lines`."""
    return Line(row[0], row[1], row[2], tuple(row[3:]))


class Shown(NamedTuple):
    """A cluster's wire form, as `wire` makes it or written already, and its revision."""

    form: Any
    revision: int


def _version(cluster: Cluster, operation: Operation | None) -> tuple[str | None, ...]:
    """As in `Line`, of rows read by `complete(…, versions=True)`."""
    by, actor = cluster.created_by, operation.actor if operation else None
    return (
        vars(cluster)["row"], operation.pk if operation else None, vars(operation)["row"] if operation else None,
        by.username if by else None, actor.username if actor else None,
    )  # fmt: skip


def shown(found: Sequence[Line]) -> list[Shown]:
    """The wire forms of lines, in their order, written anew for what has changed. What is gone meanwhile is left out.

    What is written is what is read now, which may be newer than the line.
    """
    forms: dict[str, Shown | None] = {}
    for line in found:
        text = CLUSTERS.get(line.id, line.version)
        forms[line.id] = Shown(orjson.Fragment(text), line.revision) if text is not None else None
    fresh = [key for key, form in forms.items() if form is None]
    if fresh:
        for cluster in complete(Cluster.objects.filter(pk__in=fresh), versions=True):
            form = wire(ClusterOut, cluster)
            open_ones: list[Operation] = vars(cluster)["open_operations"]
            try:
                text = dumps(form)
            except orjson.JSONEncodeError:
                # A number beyond 64 bits: the renderer knows how to write it.
                forms[cluster.pk] = Shown(form, cluster.revision)
                continue
            CLUSTERS.put(cluster.pk, _version(cluster, open_ones[0] if open_ones else None), text)
            forms[cluster.pk] = Shown(orjson.Fragment(text), cluster.revision)
    return [form for form in forms.values() if form is not None]


@functools.lru_cache(maxsize=256)
def _list_query(
    deleted: bool, filters: tuple[str, ...], order: str, begun: bool, limit: int
) -> Prepared[Cluster, Sequence[Any]]:
    """The lines of a page of one tenant's clusters; `begun`: after a cursor."""

    def make(tenant: str, value: str = "", key: str = "", **filtered: str) -> QuerySet[Cluster, Any]:
        clusters = Cluster.objects.filter(tenant=tenant, **filtered)
        if not deleted:
            clusters = clusters.present()
        if begun:
            clusters = clusters.filter(after(order, value, key))
        return lines(clusters).order_by(*ordering(order))[: limit + 1]

    return Prepared(make)


@functools.cache
def _one_query() -> Prepared[Cluster, Sequence[Any]]:
    """The line of a tenant's cluster."""
    return Prepared(lambda tenant, name: lines(Cluster.objects.filter(tenant=tenant, name=name).present()))


def show_cluster(view: ApiView, cluster_id: str) -> dict[str, Any]:
    """The wire form of one cluster, read afresh through the caller's sight. Raises Missing."""
    cluster = complete(view.clusters()).filter(pk=cluster_id).first()
    if cluster is None:
        raise Missing("not_found", "The cluster is gone.")
    return wire(ClusterOut, cluster)


def accepted(view: ApiView, operation: Operation, made: Cluster | None = None) -> Response:
    """The answer to a change: 202 with the operation's address.

    `made` is a cluster that this request has made in the caller's own tenant: there is nothing to read again. The
    caller waits for this, and so does the worker, which is told when the request's transaction ends.
    """
    cluster = made or complete(view.clusters()).filter(pk=operation.cluster_id).first()
    if cluster is None:
        raise Missing("not_found", "The cluster is gone.")
    if made is not None:
        setattr(made, "open_operations", [operation])  # noqa: B010  # as `complete` would fill it
    view.audit_object = f"clusters/{cluster.name}"
    shown = wire(ClusterOut, cluster)
    # The operation was just opened, so it usually is the cluster's open one, which need not be written out twice.
    under_way = shown["operation"]
    same = under_way is not None and under_way["id"] == operation.id
    body = {"operation": under_way if same else wire(OperationOut, operation), "cluster": shown}
    return Response(body, status=202, headers={"Location": f"/api/v1/operations/{operation.id}"})


# What PATCH answers: the cluster as it is now, or what a dry run found.
EDITED = PolymorphicProxySerializer(
    component_name="Edited", serializers=[ClusterOut, RehearsalOut], resource_type_field_name=None
)


def _labelled(label: str) -> Q:
    key, equals, value = label.partition("=")
    return Q(labels__contains={key: value}) if equals else Q(labels__has_key=key)


class ClustersView(ApiView):
    @described("listClusters", tag="Clusters", summary="List a tenant's clusters", query=ClusterQuery,
               answers={200: ClusterPage}, problems=(404, 422))  # fmt: skip
    def get(self, request: Request, tenant: str) -> Response:
        query = read_query(ClusterQuery, request)
        # Ids grow with time, so they order by creation without ties.
        order = query["order"].replace("created", "id")
        begin = position(query, order)
        deleted, limit = query.get("phase") == Phase.DELETED, query["limit"]
        filters = tuple(name for name in ("engine", "phase", "target", "plan") if name in query)
        if query.keys() & {"q", "label"}:
            # Django makes patterns and JSON of these, so they cannot be put into a query composed before.
            clusters = self.clusters() if deleted else self.clusters().present()
            clusters = clusters.filter(**{name: query[name] for name in filters})
            if "q" in query:
                clusters = clusters.filter(name__startswith=query["q"])
            if "label" in query:
                clusters = clusters.filter(_labelled(query["label"]))
            if begin is not None:
                clusters = clusters.filter(after(order, *begin))
            rows = list(lines(clusters).order_by(*ordering(order))[: limit + 1])
        else:
            values: dict[str, str] = {"tenant": self.tenant.pk}
            values |= {name: str(query[name]) for name in filters}
            if begin is not None:
                values["key"] = str(begin[1])
                if not order.endswith("id"):
                    values["value"] = begin[0]
            rows = _list_query(deleted, filters, order, begin is not None, limit).all(**values)
        found = [as_line(row) for row in rows]
        more, found = len(found) > limit, found[:limit]
        next_page = following(order, found[-1].name, found[-1].id) if more else None
        return Response({"items": [one.form for one in shown(found)], "next": next_page})

    @described("createCluster", tag="Clusters", summary="Order a cluster", request=ClusterOrder,
               answers={200: RehearsalOut, 202: AcceptedOut}, problems=(400, 403, 404, 409, 415, 422, 503),
               parameters=[LOCATION], query=ChangeQuery, rehearses=True,
               about="Needs the role developer or owner. Everything that can be known at once is checked before "
               "anything is written; follow the operation for the rest. 200 answers a dry run. What can lose data, "
               "and is not said by the plan, wants `confirm`.")  # fmt: skip
    @idempotent(required_from_tokens=True)
    def post(self, request: Request, tenant: str) -> Response:
        sent = read_body(ClusterOrder, request)
        if self.rehearsal:
            return rehearsed(self, rehearse_create(tenant=self.tenant, by=self.user, **sent))
        made, operation = create_cluster(
            tenant=self.tenant, by=self.user, confirm=read_query(ChangeQuery, request).get("confirm"),
            request_id=logs.request_id.get(), **sent,
        )  # fmt: skip
        return accepted(self, operation, made)


class ClusterView(ApiView):
    guest_rights = {"GET": "read"}

    parser_classes = [JsonParser, MergePatchParser]

    @described("getCluster", tag="Clusters", summary="Show a cluster", answers={200: ClusterOut}, problems=(404,),
               parameters=[ETAG])  # fmt: skip
    def get(self, request: Request, tenant: str, name: str) -> Response:
        # The base has settled that the caller may see this tenant, or this cluster of it.
        rows = _one_query().all(tenant=self.tenant.pk, name=name)
        for one in shown([as_line(row) for row in rows]):
            return Response(one.form, headers={"ETag": etag(one.revision)})
        raise Missing("not_found", f"There is no cluster {name} in {self.tenant.slug}.")

    @described("editCluster", tag="Clusters", summary="Change a cluster", request=ClusterPatch, query=ChangeQuery,
               rehearses=True, answers={200: EDITED, 202: AcceptedOut}, problems=(400, 403, 404, 409, 412, 415, 422),
               parameters=[IF_MATCH, ETAG, LOCATION],
               about="A JSON merge patch (RFC 7396). `labels` and `description` take effect at once: 200. A change of "
               "`spec` is brought about by an operation of the kind update, another `version` by one of the kind "
               "upgrade: 202; its `changes` say what each changed field does. A dry run is answered "
               "with a rehearsal: 200. What can lose data wants `confirm`. One "
               "operation at a time: 409 `operation_in_progress`.")  # fmt: skip
    def patch(self, request: Request, tenant: str, name: str) -> Response:
        fixed = [key for key in FIXED if isinstance(request.data, dict) and key in request.data]
        if fixed:
            raise invalid([FieldError(f"/{key}", "not_changeable", FIXED[key]) for key in fixed])
        query = read_query(ChangeQuery, request)
        sent = read_body(ClusterPatch, request)
        expected = expected_revision(request, self.cluster.revision)
        changes: dict[str, Any] = {}
        if "description" in sent:
            changes["description"] = sent["description"] or ""
        if "labels" in sent:
            changes["labels"] = sent["labels"]
        if self.rehearsal:
            wished = {key: sent[key] for key in ("spec", "version") if key in sent}
            return rehearsed(
                self, rehearse_edit(cluster=self.cluster, by=self.user, expected_revision=expected, **wished, **changes)
            )  # fmt: skip
        if "spec" in sent or "version" in sent:
            operation = change_cluster(
                cluster=self.cluster, by=self.user, spec=sent.get("spec"), version=sent.get("version"),
                confirm=query.get("confirm"), expected_revision=expected, request_id=logs.request_id.get(), **changes,
            )  # fmt: skip
            if operation is not None:
                return accepted(self, operation)
        else:
            edit_cluster(cluster=self.cluster, by=self.user, expected_revision=expected, **changes)
        shown = show_cluster(self, self.cluster.id)
        return Response(shown, headers={"ETag": etag(shown["revision"])})

    @described("deleteCluster", tag="Clusters", summary="Delete a cluster", query=DeleteQuery,
               answers={200: RehearsalOut, 202: AcceptedOut}, problems=(403, 404, 409, 412, 422), rehearses=True,
               parameters=[IF_MATCH, LOCATION],
               about="Volumes are kept unless `volumes=delete` and the name is typed again in `confirm`. 200 answers a "
               "dry run.")  # fmt: skip
    def delete(self, request: Request, tenant: str, name: str) -> Response:
        query = read_query(DeleteQuery, request)
        wish = {
            "cluster": self.cluster, "by": self.user, "volumes": query["volumes"], "confirm": query.get("confirm"),
            "expected_revision": expected_revision(request, self.cluster.revision),
        }  # fmt: skip
        if self.rehearsal:
            return rehearsed(self, rehearse_delete(**wish))
        operation = delete_cluster(**wish, request_id=logs.request_id.get())
        return accepted(self, operation)


class RestartView(ApiView):
    @described("restartCluster", tag="Clusters", summary="Restart every pod of a cluster", query=ChangeQuery,
               rehearses=True, answers={200: RehearsalOut, 202: AcceptedOut}, problems=(400, 403, 404, 409, 412, 422),
               parameters=[IF_MATCH, LOCATION],
               about="One pod at a time, replicas first, as gently as the engine can. Pods that are outdated are "
               "brought up to date by it. Where it loses data, such as without persistence, it wants "
               "`confirm`. 200 answers a dry run.")  # fmt: skip
    @idempotent(required_from_tokens=False)
    def post(self, request: Request, tenant: str, name: str) -> Response:
        query = read_query(ChangeQuery, request)
        expected = expected_revision(request, self.cluster.revision)
        if self.rehearsal:
            return rehearsed(self, rehearse_restart(cluster=self.cluster, by=self.user, expected_revision=expected))
        operation = restart_cluster(
            cluster=self.cluster, by=self.user, confirm=query.get("confirm"), expected_revision=expected,
            request_id=logs.request_id.get(),
        )  # fmt: skip
        return accepted(self, operation)


class RebalanceView(ApiView):
    @described("rebalanceMasters", tag="Clusters", summary="Make masters even over the nodes", query=DryRunQuery,
               rehearses=True, answers={200: RehearsalOut, 202: AcceptedOut}, problems=(400, 403, 404, 409, 412, 422),
               parameters=[IF_MATCH, LOCATION],
               about="Replicas that are in step take over, one shard at a time, until masters per node are as even as "
               "their places allow (see `spread`). Waits while the cluster is not well; can be canceled between two. "
               "409 `cannot_rebalance` where nothing could take over. 200 answers a dry run.")  # fmt: skip
    @idempotent(required_from_tokens=False)
    def post(self, request: Request, tenant: str, name: str) -> Response:
        act = functools.partial(
            rebalance_cluster, cluster=self.cluster, by=self.user, request_id=logs.request_id.get(),
            expected_revision=expected_revision(request, self.cluster.revision),
        )  # fmt: skip
        if self.rehearsal:
            return rehearsed(self, rehearse(cluster=self.cluster, act=act))
        return accepted(self, act())


class AcceptLossView(ApiView):
    @described("acceptLoss", tag="Clusters", summary="Accept that data is gone", query=ChangeQuery,
               rehearses=True, answers={200: RehearsalOut, 202: AcceptedOut}, problems=(400, 403, 404, 409, 412, 422),
               parameters=[IF_MATCH, LOCATION],
               about="Gives up for good what `loss` of the cluster names, and no more: what held it is served again, "
               "empty. Never done without being asked for, since old disks may turn up again. Wants `confirm`. 409 "
               "`nothing_lost` while the data may still come back: a member is away, or another has a copy. 200 "
               "answers a dry run.")  # fmt: skip
    @idempotent(required_from_tokens=False)
    def post(self, request: Request, tenant: str, name: str) -> Response:
        query = read_query(ChangeQuery, request)
        expected = expected_revision(request, self.cluster.revision)
        if self.rehearsal:
            return rehearsed(self, rehearse_acceptance(cluster=self.cluster, by=self.user, expected_revision=expected))
        operation = accept_loss(
            cluster=self.cluster, by=self.user, confirm=query.get("confirm"), expected_revision=expected,
            request_id=logs.request_id.get(),
        )  # fmt: skip
        return accepted(self, operation)


class EventsView(ApiView):
    guest_rights = {"GET": "read"}

    @described("listClusterEvents", tag="Clusters", summary="List a cluster's events", query=EventsQuery,
               answers={200: EventPage}, problems=(404, 422), about="Newest first.")  # fmt: skip
    def get(self, request: Request, tenant: str, name: str) -> Response:
        query = read_query(EventsQuery, request)
        rows = self.cluster.events.filter(**lookups(query, {"reason": "reason", "operation": "operation"}))
        if query["warning"] is not None:
            rows = rows.filter(warning=query["warning"])
        return page(request, rows, query, lambda found: wire_list(EventOut, found), order="-id")


class ClusterOperationsView(ApiView):
    guest_rights = {"GET": "read"}

    @described("listClusterOperations", tag="Operations", summary="List a cluster's operations", query=OperationsQuery,
               answers={200: OperationPage}, problems=(404, 422), about="Newest first.")  # fmt: skip
    def get(self, request: Request, tenant: str, name: str) -> Response:
        return operations_page(self, request, cluster_id=self.cluster.id)
