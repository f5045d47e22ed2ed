"""What the resources' serializers share: strict reading, and the shapes of lists and problems."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request

from portal.api.shaping import Shape, shape_of
from portal.problems import invalid
from provisioning.engines.base import Effect
from tenants.refusals import FieldError

EFFECTS = [(effect.value, effect.value) for effect in Effect]


@extend_schema_field({})
class AnyValue(serializers.JSONField):
    """Any JSON value."""


class Text(serializers.CharField):
    """A text as sent: numbers are not turned into texts, blanks are not cut off."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"trim_whitespace": False, **options})

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Whole(serializers.IntegerField):
    """A whole number as sent: "5", 5.0 and true are none."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return super().to_internal_value(data)


class Body(serializers.Serializer[Any]):
    """A request body: an unknown key is refused, so that a typing mistake is not taken for a default."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = [key for key in data if key not in self.fields]
            if unknown:
                known = ", ".join(self.fields)
                message = f"There is no such field. The fields are: {known}."
                raise serializers.ValidationError(
                    {key: [serializers.ErrorDetail(message, code="unknown_field")] for key in unknown}
                )
        return super().to_internal_value(data)


class Query(serializers.Serializer[Any]):
    """Query parameters, checked like a body."""


class DryRunQuery(Query):
    """For a change that can be tried."""

    dry_run = serializers.BooleanField(
        required=False, default=False,
        help_text="Check everything and answer what would be made, with the quota's change, the manifests and the "
        "target's own dry run of them. Nothing is kept: no object, no operation, no answer for an Idempotency-Key.",
    )  # fmt: skip


def asks_for_dry_run(request: Request) -> bool:
    """Whether the request has ?dry_run=true, as DryRunQuery reads it; what that cannot read, it refuses."""
    try:
        return bool(serializers.BooleanField().run_validation(request.query_params.get("dry_run", False)))
    except serializers.ValidationError:
        return False


def read_body(kind: type[Body], request: Request) -> dict[str, Any]:
    """The checked body. Raises Invalid naming every wrong field."""
    serializer = kind(data=request.data)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


def refuse_query(request: Request) -> None:
    """For a method without parameters: one it would ignore may have been meant, such as a dry run. Raises Invalid."""
    if request.query_params:
        message = "There is no such parameter: this takes none."
        raise invalid([FieldError(f"?{name}", "unknown_parameter", message) for name in request.query_params])


def read_query(kind: type[Query], request: Request) -> dict[str, Any]:
    """The checked query parameters. Raises Invalid with pointers such as "?limit"."""
    serializer = kind(data=request.query_params.dict())
    errors = [
        FieldError(f"?{name}", "unknown_parameter", f"There is no such parameter. Use: {', '.join(serializer.fields)}.")
        for name in request.query_params
        if name not in serializer.fields
    ]
    if not serializer.is_valid():
        for name, details in serializer.errors.items():
            errors += [FieldError(f"?{name}", str(detail.code), str(detail)) for detail in details]
    if errors:
        raise invalid(errors)
    return dict(serializer.validated_data)


def lookups(query: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """What to filter rows by: of `columns` (parameter to Django's lookup) those that were sent, by their lookup."""
    return {lookup: query[parameter] for parameter, lookup in columns.items() if parameter in query}


@functools.cache
def _shaper(kind: type[serializers.Serializer[Any]]) -> Shape:
    return shape_of(kind())


def wire(kind: type[serializers.Serializer[Any]], value: Any) -> dict[str, Any]:
    """The wire form of one object, as `kind` describes it.

    One serializer of a kind serves all, since only its description is used (see shaping.py).
    """
    return dict(_shaper(kind)(value))


def wire_list(kind: type[serializers.Serializer[Any]], values: Iterable[Any]) -> list[dict[str, Any]]:
    """The wire form of several objects."""
    shape = _shaper(kind)
    return [shape(value) for value in values]


class FieldProblem(serializers.Serializer[Any]):
    pointer = serializers.CharField(help_text="JSON pointer into the body (RFC 6901), or `?name` for a parameter.")
    code = serializers.CharField(help_text="Stable; for programs.")
    message = serializers.CharField(help_text="The rule and the remedy; for people.")


class ViolationOut(serializers.Serializer[Any]):
    """One limit an order or a change would pass."""

    resource = serializers.CharField()
    target = serializers.CharField(allow_null=True, help_text="null: the limit is for all targets together.")
    unit = serializers.CharField(help_text="Of the numbers; empty for counts.")
    limit = serializers.IntegerField()
    used = serializers.IntegerField()
    reserved = serializers.IntegerField(help_text="Promised to operations under way.")
    requested = serializers.IntegerField(help_text="How much more was asked for.")
    short_by = serializers.IntegerField(help_text="How much of it does not fit.")


class Problem(serializers.Serializer[Any]):
    """RFC 9457 problem details."""

    type = serializers.CharField(help_text="Address of a page that explains the code.")
    title = serializers.CharField()
    status = serializers.IntegerField()
    code = serializers.CharField(help_text="Stable; for programs. All codes: /api/v1/problems.")
    detail = serializers.CharField(help_text="What happened and why, this time.")
    errors = FieldProblem(  # type: ignore[assignment]
        many=True, help_text="Every wrong field; empty when no single field is at fault."
    )
    suggestion = serializers.CharField(help_text="What you can do about it.")
    request_id = serializers.CharField(help_text="Also in X-Request-Id and in every log line of this request.")
    instance = serializers.CharField(help_text="Path of the request.")
    violations = ViolationOut(many=True, required=False, help_text="With the code quota_exceeded only.")
