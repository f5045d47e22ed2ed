"""What a dry run answers: what would be made, never made."""

from __future__ import annotations

from typing import Any

from django.db.models import TextChoices
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.response import Response

from portal.api.base import ApiView
from portal.api.operations import EstimateOut
from portal.api.serializers import wire
from provisioning.apply.errors import DoorError
from provisioning.clusters.rehearsal import QuotaEffect, Rehearsal, TargetAnswer, ask_target
from provisioning.engines.base import Blocked
from tenants.quota import unit_of


class Effects(TextChoices):
    """From mild to grave; `stop` is the end of the cluster."""

    LIVE = "live"
    ROLL = "roll"
    MOVE = "move"
    FIXED = "fixed"
    LOSS = "loss"
    STOP = "stop"


class Actions(TextChoices):
    """What would become of an object."""

    CREATE = "create"
    CHANGE = "change"
    NONE = "none"
    DELETE = "delete"
    KEEP = "keep"


class RehearsedClusterOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    engine = serializers.CharField()
    version = serializers.CharField()
    plan = serializers.CharField(source="plan_id", allow_null=True)
    target = serializers.CharField(source="target_id")
    spec = serializers.DictField(help_text="Complete: the plan's values and the defaults are filled in.")
    labels = serializers.DictField(child=serializers.CharField())
    description = serializers.CharField()


class RehearsedOperationOut(serializers.Serializer[Any]):
    kind = serializers.CharField()
    steps = serializers.SerializerMethodField(help_text="Titles of its steps, in order.")
    estimate = serializers.SerializerMethodField(
        help_text="How long it takes, from past ones of the same steps; null: there was none to tell from."
    )

    def get_steps(self, operation: Any) -> list[str]:
        return [step["title"] for step in operation.steps]

    @extend_schema_field(EstimateOut(allow_null=True))
    def get_estimate(self, operation: Any) -> dict[str, Any] | None:
        found: dict[str, Any] | None = operation.params.get("estimate")
        return found


class QuotaEffectOut(serializers.Serializer[Any]):
    resource = serializers.CharField()
    target = serializers.CharField(allow_null=True, help_text="null: all targets together.")
    unit = serializers.CharField(help_text="Of the numbers; empty for counts.")
    limit = serializers.IntegerField(allow_null=True, help_text="null: none.")
    before = serializers.IntegerField(help_text="Held now, used and reserved together.")
    after = serializers.IntegerField()


class ImpactOut(serializers.Serializer[Any]):
    effect = serializers.ChoiceField(
        choices=Effects.choices,
        help_text="live: nothing restarts; roll: one pod at a time; move: data moves; fixed: refused; loss: data can "
        "be lost; stop: the cluster ends.",
    )
    message = serializers.CharField()
    pointer = serializers.CharField(help_text="The field of the request it is about; may be empty.")
    before = serializers.JSONField(help_text="null: absent.")
    after = serializers.JSONField(help_text="null: absent.")


class DifferenceOut(serializers.Serializer[Any]):
    pointer = serializers.CharField(help_text="JSON pointer into the object.")
    before = serializers.JSONField(help_text="null: absent.")
    after = serializers.JSONField(help_text="null: absent.")


class TargetProblemOut(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField()
    remedy = serializers.CharField(help_text="May be empty.")


class RehearsedObjectOut(serializers.Serializer[Any]):
    kind = serializers.CharField()
    name = serializers.CharField()
    action = serializers.ChoiceField(choices=Actions.choices)
    manifest = serializers.JSONField(
        help_text="What Berth would send. null for Secrets, whose passwords are made on the spot, and for what would "
        "be deleted or kept.",
    )
    changes = DifferenceOut(many=True, help_text="What would differ from the object that is there.")
    restarts = serializers.BooleanField(help_text="Pods that run would be replaced.")
    checked = serializers.BooleanField(help_text="The target was asked about it.")
    refusal = TargetProblemOut(allow_null=True, help_text="Why the target would not take it.")


class TargetAnswerOut(serializers.Serializer[Any]):
    asked = serializers.BooleanField(help_text="false: it could not be asked, see `problem`, or need not be.")
    namespace_exists = serializers.BooleanField(
        allow_null=True,
        help_text="false: the tenant's namespace would be made, and what goes into it cannot be checked before that. "
        "null: not asked.",
    )
    takes_it = serializers.BooleanField(allow_null=True, help_text="It refuses nothing of what it was asked about.")
    problem = TargetProblemOut(
        allow_null=True, help_text="What is in the way of the whole change, such as data that does not fit."
    )


class RehearsalOut(serializers.Serializer[Any]):
    """What a change would do. Nothing of it was made."""

    dry_run = serializers.BooleanField(help_text="Always true: what tells this answer from that of the real change.")
    cluster = RehearsedClusterOut(help_text="As it would be.")
    operation = RehearsedOperationOut(allow_null=True, help_text="null: it would take effect without one.")
    quota = QuotaEffectOut(many=True, help_text="The numbers of the tenant's quota that would change.")
    effects = ImpactOut(many=True, help_text="What people would notice.")
    target = TargetAnswerOut()
    objects = RehearsedObjectOut(many=True, help_text="What would become of each Kubernetes object.")


def problem_body(error: DoorError | Blocked | None) -> dict[str, str] | None:
    """What a target, or what runs there, says no with, for TargetProblemOut."""
    return {"code": error.code, "message": error.message, "remedy": error.remedy} if error else None


def _quota(one: QuotaEffect) -> dict[str, Any]:
    return {
        "resource": one.resource, "target": one.place or None, "unit": unit_of(one.resource), "limit": one.limit,
        "before": one.before, "after": one.after,
    }  # fmt: skip


def _shown(rehearsal: Rehearsal, answer: TargetAnswer) -> dict[str, Any]:
    value = {
        "dry_run": True,
        "cluster": rehearsal.cluster,
        "operation": rehearsal.operation,
        "quota": [_quota(one) for one in rehearsal.quota],
        "effects": rehearsal.impacts,
        "target": {
            "asked": answer.asked, "namespace_exists": answer.namespace_exists, "takes_it": answer.takes_it,
            "problem": problem_body(answer.problem),
        },
        "objects": [
            {
                "kind": one.kind, "name": one.name, "action": one.action, "manifest": one.manifest,
                "changes": one.changes, "restarts": one.restarts, "checked": one.checked,
                "refusal": problem_body(one.refusal),
            }
            for one in answer.objects
        ],
    }  # fmt: skip
    return wire(RehearsalOut, value)


def rehearsed(view: ApiView, rehearsal: Rehearsal) -> Response:
    """The answer to a dry run: given when all of it is rolled back, since the target is asked only then."""
    assert view.rehearsal
    view.after_rehearsal = lambda: Response(_shown(rehearsal, ask_target(rehearsal)))
    return Response(status=200)
