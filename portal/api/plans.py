"""/plans: named sets of plan-field values."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.base import ApiView
from portal.api.pagination import PageQuery, page
from portal.api.schema import described
from portal.api.serializers import read_query, wire_list
from provisioning.models import Plan, Target


class PlanQuery(PageQuery):
    engine = serializers.CharField(required=False, max_length=30, help_text="Only plans of this engine.")


class PlanOut(serializers.Serializer[Any]):
    name = serializers.CharField(help_text="Key, for requests.")
    engine = serializers.CharField()
    title = serializers.CharField()
    description = serializers.CharField()
    values = serializers.DictField(help_text="Plan-field values it sets; a request may replace each of them.")
    storage_classes = serializers.ListField(child=serializers.CharField(), help_text="Allowed ones; empty: any.")
    targets = serializers.SlugRelatedField(
        many=True, slug_field="name", queryset=Target.objects.none(), help_text="Allowed ones; empty: any."
    )


class PlanPage(serializers.Serializer[Any]):
    items = PlanOut(many=True)
    next = serializers.CharField(allow_null=True)


class PlansView(ApiView):
    @described("listPlans", tag="Catalogue", summary="List the plans", query=PlanQuery, answers={200: PlanPage},
               problems=(422,), about="In the order an administrator gave them.")  # fmt: skip
    def get(self, request: Request) -> Response:
        query = read_query(PlanQuery, request)
        plans = Plan.objects.prefetch_related("targets")
        if "engine" in query:
            plans = plans.filter(engine=query["engine"])
        return page(request, plans, query, lambda rows: wire_list(PlanOut, rows), order="position")
