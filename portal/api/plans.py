"""/plans: named sets of plan-field values; made, changed and deleted by platform administrators."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.etags import content_revision, etag, expected_revision
from portal.api.pagination import PageQuery, page
from portal.api.parsers import JsonParser, MergePatchParser
from portal.api.schema import ETAG, IF_MATCH, described
from portal.api.serializers import Body, Text, Whole, read_body, read_query, wire, wire_list
from portal.api.tenants import AdminView
from portal.idempotency import idempotent
from provisioning.catalog.plans import create_plan, delete_plan, edit_plan, lock_plan
from provisioning.models import Plan
from tenants.refusals import Missing

FIRST, LAST = -32_768, 32_767


class PlanQuery(PageQuery):
    engine = serializers.CharField(required=False, max_length=30, help_text="Only plans of this engine.")
    offered = serializers.BooleanField(
        required=False, allow_null=True, default=None,
        help_text="Only plans that are, or are not, offered. Only platform administrators see those that are not.",
    )  # fmt: skip


class PlanOut(serializers.Serializer[Any]):
    name = serializers.CharField(help_text="Key, for requests.")
    engine = serializers.CharField()
    title = serializers.CharField()
    description = serializers.CharField()
    values = serializers.DictField(help_text="Plan-field values it sets; a request may replace each of them.")
    storage_classes = serializers.ListField(child=serializers.CharField(), help_text="Allowed ones; empty: any.")
    targets = serializers.SerializerMethodField(help_text="Allowed ones, by name; empty: any.")
    position = serializers.IntegerField(help_text="Its place in lists, lowest first.")
    offered = serializers.BooleanField(help_text="New clusters may be ordered by it.")

    def get_targets(self, plan: Plan) -> list[str]:
        # In one order, which the ETag is made of.
        return sorted(target.name for target in plan.targets.all())


class PlanPage(serializers.Serializer[Any]):
    items = PlanOut(many=True)
    next = serializers.CharField(allow_null=True)


class PlanPatch(Body):
    """A merge patch: what is absent stays; a value of `values` that is null goes back to the engine's default."""

    title = Text(required=False, max_length=100)
    description = Text(required=False, allow_blank=True, max_length=2000)
    values = serializers.DictField(required=False, help_text="Plan-field values, see the engine's `fields`.")
    storage_classes = serializers.ListField(
        child=Text(max_length=253), required=False, max_length=100, help_text="Allowed ones; empty: any."
    )
    targets = serializers.ListField(
        child=Text(max_length=30), required=False, max_length=1000, help_text="Allowed ones; empty: any."
    )
    position = Whole(required=False, min_value=FIRST, max_value=LAST, help_text="Its place in lists, lowest first.")
    offered = serializers.BooleanField(required=False, help_text="false: nobody can order by it any more.")


class PlanOrder(PlanPatch):
    """A new plan."""

    name = Text(max_length=30, help_text="Key, for requests: lower-case letters, digits, hyphens.")
    engine = Text(max_length=30)
    title = Text(max_length=100)


def _told(plan: Plan, status: int = 200) -> Response:
    """A plan with its ETag. All of a plan can be changed, so the tag is of all of it."""
    shown = wire(PlanOut, plan)
    return Response(shown, status=status, headers={"ETag": etag(content_revision(shown))})


class PlansView(AdminView):
    @described("listPlans", tag="Catalogue", summary="List the plans", query=PlanQuery, answers={200: PlanPage},
               problems=(422,), about="In the order an administrator gave them.")  # fmt: skip
    def get(self, request: Request) -> Response:
        query = read_query(PlanQuery, request)
        plans = Plan.objects.prefetch_related("targets")
        if not self.user.is_superuser:
            plans = plans.filter(offered=True)
        if "engine" in query:
            plans = plans.filter(engine=query["engine"])
        if query["offered"] is not None:
            plans = plans.filter(offered=query["offered"])
        return page(request, plans, query, lambda rows: wire_list(PlanOut, rows), order="position")

    @described("createPlan", tag="Catalogue", summary="Make a plan", request=PlanOrder, answers={201: PlanOut},
               problems=(400, 403, 409, 415, 422), parameters=[ETAG],
               about="For platform administrators. Its values are checked like those of an order.")  # fmt: skip
    @idempotent(required_from_tokens=False)
    def post(self, request: Request) -> Response:
        made = create_plan(**read_body(PlanOrder, request))
        self.audit_object = f"plans/{made.name}"
        self.audit_detail = {"engine": made.engine, "offered": made.offered}
        return _told(made, 201)


class PlanView(AdminView):
    parser_classes = [JsonParser, MergePatchParser]

    @described("getPlan", tag="Catalogue", summary="Show a plan", answers={200: PlanOut}, problems=(404,),
               parameters=[ETAG])  # fmt: skip
    def get(self, request: Request, plan: str) -> Response:
        return _told(self._found(plan))

    @described("editPlan", tag="Catalogue", summary="Change a plan", request=PlanPatch, answers={200: PlanOut},
               problems=(400, 403, 404, 412, 415, 422), parameters=[IF_MATCH, ETAG],
               about="For platform administrators. A JSON merge patch (RFC 7396). "
               "Clusters keep the values they were ordered with.")  # fmt: skip
    def patch(self, request: Request, plan: str) -> Response:
        changes = read_body(PlanPatch, request)
        self._require_unchanged(plan)
        changed = edit_plan(name=plan, **changes)
        self.audit_detail = {"changed": sorted(changes), "offered": changed.offered}
        return _told(changed)

    @described("deletePlan", tag="Catalogue", summary="Delete a plan", answers={204: None},
               problems=(403, 404, 409, 412), parameters=[IF_MATCH],
               about="For platform administrators. Only a plan that no cluster is of, deleted ones aside; set "
               "`offered` to false for others.")  # fmt: skip
    def delete(self, request: Request, plan: str) -> Response:
        self._require_unchanged(plan)
        delete_plan(name=plan)
        return Response(status=204)

    def _require_unchanged(self, name: str) -> None:
        """Lock the plan and refuse when it is not as If-Match says. Raises Missing, Stale."""
        plan = lock_plan(name)
        if "If-Match" in self.request.headers:
            expected_revision(self.request, content_revision(wire(PlanOut, plan)))

    def _found(self, name: str) -> Plan:
        plan = Plan.objects.filter(name=name).first()
        if plan is None or not (plan.offered or self.user.is_superuser):
            raise Missing("not_found", f"There is no plan {name[:60]}.")
        return plan
