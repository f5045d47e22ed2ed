"""/engines: what can be ordered, with every plan field described well enough to draw the form."""

from __future__ import annotations

from typing import Any, get_args

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.base import ApiView
from portal.api.schema import described
from portal.api.serializers import EFFECTS, AnyValue, wire
from provisioning.engines.base import Engine, FieldKind
from provisioning.engines.registry import ENGINES
from tenants.refusals import Missing

KINDS = [(kind, kind) for kind in get_args(FieldKind)]


class SettingOut(serializers.Serializer[Any]):
    key = serializers.CharField(help_text="Key in `spec`, or in the map.")
    title = serializers.CharField()
    kind = serializers.ChoiceField(
        choices=KINDS,
        help_text="storage-class: one of the target's classes. map: an object of texts; with `entries`, of these keys "
        "only, whose values are of the entries' kinds or texts of them.",
    )
    default = AnyValue(help_text="Used when neither the request nor the plan names a value.")
    effect = serializers.ChoiceField(
        choices=EFFECTS,
        help_text="What a later change does: live (no restart), roll (one pod at a time), move (data moves between "
        "nodes), fixed (needs a new cluster), loss (can lose data).",
    )
    help = serializers.CharField()
    unit = serializers.CharField(help_text="Empty when it has none.")
    minimum = serializers.FloatField(allow_null=True)
    maximum = serializers.FloatField(allow_null=True)
    step = serializers.FloatField(allow_null=True)
    choices = serializers.ListField(child=serializers.CharField(), help_text="For kind enum.")
    group = serializers.CharField(help_text="Heading to show it under.")
    advanced = serializers.BooleanField(help_text="Fold it away.")


class FieldOut(SettingOut):
    entries = SettingOut(many=True, help_text="For kind map: the keys it takes, described; empty: any.")


class CommandGroupOut(serializers.Serializer[Any]):
    key = serializers.CharField()
    title = serializers.CharField()
    help = serializers.CharField()


class UserRulesOut(serializers.Serializer[Any]):
    most = serializers.IntegerField(help_text="Users of one cluster, `default` among them.")
    reserved = serializers.ListField(child=serializers.CharField(), help_text="Names nobody can choose.")
    commands = CommandGroupOut(many=True, help_text="Groups of commands a user can be given.")


class EngineOut(serializers.Serializer[Any]):
    name = serializers.CharField(help_text="Key, for requests.")
    title = serializers.CharField()
    summary = serializers.CharField()
    versions = serializers.ListField(child=serializers.CharField(), help_text="The first one is the default.")
    upgrades = serializers.DictField(
        child=serializers.ListField(child=serializers.CharField()),
        help_text="Version to those a running cluster may go to from there, in one step.",
    )
    fields = FieldOut(many=True)  # type: ignore[assignment]
    user_rules = UserRulesOut(allow_null=True, help_text="null: its clusters have one user, which never changes.")


class EnginePage(serializers.Serializer[Any]):
    items = EngineOut(many=True)
    next = serializers.CharField(allow_null=True)


def show(engine: Engine) -> dict[str, Any]:
    """An engine's wire form."""
    return wire(EngineOut, engine)


class EnginesView(ApiView):
    @described("listEngines", tag="Catalogue", summary="List the engines and their fields", answers={200: EnginePage})
    def get(self, request: Request) -> Response:
        return Response({"items": [show(engine) for engine in ENGINES.values()], "next": None})


class EngineView(ApiView):
    @described("getEngine", tag="Catalogue", summary="Show an engine", answers={200: EngineOut}, problems=(404,))
    def get(self, request: Request, engine: str) -> Response:
        if engine not in ENGINES:
            raise Missing("not_found", f"There is no engine {engine}. There are: {', '.join(ENGINES)}.")
        return Response(show(ENGINES[engine]))
