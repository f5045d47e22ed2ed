"""/operations: how a change is going."""

from __future__ import annotations

import math
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.base import ApiView
from portal.api.pagination import PageQuery, page
from portal.api.schema import described
from portal.api.serializers import EFFECTS, AnyValue, Query, lookups, read_query, wire, wire_list
from provisioning.clusters.interventions import is_cancelable
from provisioning.models import TERMINAL_STATES, Operation, OperationState
from provisioning.operations.waiting import wait_for_operation
from tenants.refusals import Missing

# Less than the idle time-outs of usual proxies.
LONGEST_WAIT_SECONDS = 60
STEP_STATES = [(state, state) for state in ("waiting", "running", "done", "failed")]


class StepOut(serializers.Serializer[Any]):
    key = serializers.CharField(help_text="Stable; for programs.")
    title = serializers.CharField()
    state = serializers.ChoiceField(choices=STEP_STATES)
    started = serializers.DateTimeField(default=None, allow_null=True)
    ended = serializers.DateTimeField(default=None, allow_null=True)
    reason = serializers.CharField(default="", help_text="What it waits for, in plain words.")
    object = serializers.CharField(default="", help_text="Which thing that is.")


class OperationErrorOut(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField()
    remedy = serializers.CharField(default="", help_text="What the reader can do.")


class ChangeOut(serializers.Serializer[Any]):
    pointer = serializers.CharField(
        help_text="JSON pointer below `spec`, of a change of users below the request's body; empty where it is about "
        "no field, such as for a restart or another version."
    )
    before = AnyValue()
    after = AnyValue()
    effect = serializers.ChoiceField(
        choices=EFFECTS,
        help_text="live (no restart), roll (pods restart, one at a time), move (data moves between nodes), loss (can "
        "lose data), fixed (refused).",
    )
    message = serializers.CharField(help_text="What it does, in plain words.")


class GateOut(serializers.Serializer[Any]):
    key = serializers.CharField(help_text="Which gate; sent back to override it.")
    message = serializers.CharField(help_text="What is waited for.")
    risk = serializers.CharField(help_text="What it costs to go on without.")
    refusal = serializers.CharField(help_text="Why it cannot be overridden; empty when it can.")
    since = serializers.DateTimeField()


class ProofOut(serializers.Serializer[Any]):
    ok = serializers.BooleanField(default=True)
    summary = serializers.CharField(help_text="What was written and read back, and how long it took.")
    detail = serializers.DictField(default=dict)


class ClusterRef(serializers.Serializer[Any]):
    id = serializers.CharField()
    tenant = serializers.CharField(source="tenant.slug")
    name = serializers.CharField()
    engine = serializers.CharField()


class EstimateOut(serializers.Serializer[Any]):
    seconds = serializers.FloatField(help_text="From its start to its end.")
    based_on = serializers.IntegerField(help_text="How many past operations that is the median of.")


class OperationOut(serializers.Serializer[Any]):
    id = serializers.CharField()
    kind = serializers.CharField(
        help_text="create, update, upgrade, restart, rebalance-masters, accept-loss, change-users or delete; more will "
        "come."
    )
    cluster = ClusterRef()
    state = serializers.ChoiceField(choices=OperationState.choices)
    percent = serializers.IntegerField(help_text="0 to 100.")
    reason = serializers.CharField(help_text="What it waits for right now; empty when it waits for nothing.")
    steps = StepOut(many=True)
    changes = serializers.SerializerMethodField(help_text="What a change does, field by field; empty for others.")
    estimate = serializers.SerializerMethodField(
        help_text="How long it takes, from past ones of the same steps; null: there was none to tell from."
    )
    proof = ProofOut(allow_null=True, help_text="The write and read that showed the cluster works.")
    gate = GateOut(
        allow_null=True, help_text="The health gate a change of a running cluster waits at; null when at none."
    )
    error = OperationErrorOut(allow_null=True, help_text="Why it failed; null unless `state` is failed.")
    cancelable = serializers.SerializerMethodField()
    actor = serializers.CharField(source="actor.username", default=None, allow_null=True, help_text="Who asked for it.")
    generation = serializers.IntegerField(help_text="Of the cluster's spec that it brings about.")
    revision = serializers.IntegerField(help_text="Grows with every visible change; pass it as ?revision=.")
    request_id = serializers.CharField(help_text="Of the request that asked for it.")
    created = serializers.DateTimeField()
    started = serializers.DateTimeField(allow_null=True)
    ended = serializers.DateTimeField(allow_null=True)
    deadline = serializers.DateTimeField(help_text="By then it has ended, one way or the other.")

    @extend_schema_field(ChangeOut(many=True))
    def get_changes(self, operation: Operation) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = operation.params.get("changes", [])
        return found

    @extend_schema_field(EstimateOut(allow_null=True))
    def get_estimate(self, operation: Operation) -> dict[str, Any] | None:
        found: dict[str, Any] | None = operation.params.get("estimate")
        return found

    def get_cancelable(self, operation: Operation) -> bool:
        return is_cancelable(operation)


class OperationPage(serializers.Serializer[Any]):
    items = OperationOut(many=True)
    next = serializers.CharField(allow_null=True)


class OperationsQuery(PageQuery):
    open = serializers.BooleanField(
        required=False, default=None, allow_null=True, help_text="Only open, or only ended."
    )
    state = serializers.ChoiceField(choices=OperationState.choices, required=False, help_text="Only this state.")
    kind = serializers.CharField(required=False, max_length=30, help_text="Only this kind, such as create.")


class AllOperationsQuery(OperationsQuery):
    tenant = serializers.CharField(required=False, max_length=30, help_text="Only on clusters of this tenant.")
    target = serializers.CharField(required=False, max_length=30, help_text="Only on this target.")
    engine = serializers.CharField(required=False, max_length=30, help_text="Only on clusters of this engine.")


# Filter to the column it compares with.
FILTERS = {
    "state": "state", "kind": "kind", "tenant": "cluster__tenant__slug", "target": "cluster__target",
    "engine": "cluster__engine",
}  # fmt: skip


class WaitQuery(Query):
    wait = serializers.FloatField(
        required=False, default=0, min_value=0, max_value=3600,
        help_text=f"Seconds to wait for news; more than {LONGEST_WAIT_SECONDS} counts as {LONGEST_WAIT_SECONDS}.",
    )  # fmt: skip
    revision = serializers.IntegerField(
        required=False, min_value=0, max_value=2**31 - 1,
        help_text="What you have seen: answers as soon as the operation's revision is above it, or it has ended. "
        "Default: its revision when the request arrives.",
    )  # fmt: skip

    def validate_wait(self, value: float) -> float:
        """Not "nan", which is neither below the least nor above the most."""
        if math.isnan(value):
            raise serializers.ValidationError("A number of seconds is wanted.", code="invalid")
        return value


def show_operations(rows: list[Operation]) -> list[Any]:
    """The wire form of operations, read with cluster, tenant and actor."""
    return wire_list(OperationOut, rows)


def operations_page(
    view: ApiView, request: Request, *, cluster_id: str | None = None, kind: type[OperationsQuery] = OperationsQuery
) -> Response:  # fmt: skip
    """A page of the operations the call may see, newest first, of one cluster if given."""
    query = read_query(kind, request)
    rows = view.operations()
    if cluster_id is not None:
        rows = rows.filter(cluster=cluster_id)
    if query["open"] is not None:
        rows = rows.open() if query["open"] else rows.filter(state__in=TERMINAL_STATES)
    rows = rows.filter(**lookups(query, FILTERS))
    return page(request, rows, query, show_operations, order="-id")


class OperationsView(ApiView):
    @described("listAllOperations", tag="Operations", summary="List operations of all tenants you may see",
               query=AllOperationsQuery, answers={200: OperationPage}, problems=(422,),
               about="Newest first. A platform administrator sees those of every tenant.")  # fmt: skip
    def get(self, request: Request) -> Response:
        return operations_page(self, request, kind=AllOperationsQuery)


class OperationView(ApiView):
    @described("getOperation", tag="Operations", summary="Show an operation, or wait for news of it", query=WaitQuery,
               answers={200: OperationOut}, problems=(404, 422),
               about="With `wait` the answer comes as soon as there is news (see `revision`), at the latest after that "
               "many seconds with the state as it is. An operation that has ended is answered at once.")  # fmt: skip
    def get(self, request: Request, operation: str) -> Response:
        query = read_query(WaitQuery, request)
        found = self._find(operation)
        self.count_for(found.cluster.tenant)
        seen = query.get("revision", found.revision)
        if query["wait"] and found.revision <= seen and found.state not in TERMINAL_STATES:
            wait_for_operation(found.id, revision=seen, timeout=min(query["wait"], LONGEST_WAIT_SECONDS))
            # What was true of the caller a minute ago may not be now.
            if not self.may_still_ask():
                raise AuthenticationFailed("The token or session has ended while waiting.")
            found = self._find(operation)
        return Response(wire(OperationOut, found))

    def _find(self, operation: str) -> Operation:
        found = self.operations().filter(pk=operation).first()
        if found is None:
            raise Missing("not_found", f"There is no operation {operation} that you may see.")
        return found


class TenantOperationsView(ApiView):
    @described("listOperations", tag="Operations", summary="List a tenant's operations", query=OperationsQuery,
               answers={200: OperationPage}, problems=(404, 422),
               about="Newest first, those on deleted clusters included.")  # fmt: skip
    def get(self, request: Request, tenant: str) -> Response:
        return operations_page(self, request)
