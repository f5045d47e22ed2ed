"""The OpenAPI document: how each resource describes itself, what is added to all of them, and the reference page."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers

from portal.api.serializers import Problem

F = TypeVar("F", bound=Callable[..., Any])

# Said once here, since most operations can answer with them.
PROBLEMS = {
    400: "The body or a header cannot be understood.",
    401: "Not signed in, or the token is unknown, expired or revoked.",
    403: "You may see this but not do it: the problem names the role or scope that may.",
    404: "There is no such thing, or you may not see it.",
    406: "The Accept header leaves no room for JSON.",
    409: "It does not fit the present state, such as a name in use or another change under way.",
    412: "If-Match names an older revision; the present one is in ETag.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "A rule is broken; `errors` names every wrong field.",
    429: "Too many requests or failed attempts; see Retry-After.",
    503: "A piece this needs does not answer; repeating can help.",
}

IF_MATCH = OpenApiParameter(
    "If-Match", str, OpenApiParameter.HEADER, description="The ETag you last read: refuse if it changed since."
)
ETAG = OpenApiParameter(
    "ETag", str, OpenApiParameter.HEADER, response=[200, 201], description="Of the object as it is now, for If-Match."
)
LOCATION = OpenApiParameter(
    "Location", str, OpenApiParameter.HEADER, response=[202], description="Address of the operation."
)


def _idempotency(handler: object, statuses: Sequence[int]) -> list[OpenApiParameter]:
    """The headers of a handler that portal.idempotency.idempotent made, and that answers well with `statuses`."""
    required = getattr(handler, "honours_idempotency_key", None)
    if required is None:
        return []
    wanted = " Required from tokens." if required else ""
    return [
        OpenApiParameter(
            "Idempotency-Key", str, OpenApiParameter.HEADER,
            description=f"A fresh random value per intended change. A repeat gets the first answer.{wanted}",
        ),
        OpenApiParameter(
            "Idempotency-Replayed", str, OpenApiParameter.HEADER, response=list(statuses),
            description="`true` when this is the stored answer to an earlier request with the same key.",
        ),
    ]  # fmt: skip


def described(
    operation_id: str, *, tag: str, summary: str, answers: Mapping[Any, Any], about: str = "", request: Any = None,
    query: type[serializers.Serializer[Any]] | None = None, parameters: Sequence[OpenApiParameter] = (),
    problems: Sequence[int] = (), anonymous: bool = False, changes: bool = True, rehearses: bool = False,
) -> Callable[[F], F]:  # fmt: skip
    """Document one method of a view, outermost. `answers`: status, or (status, media type), to serializer; None: no
    body. 401 comes unless `anonymous`.

    The operation id is also the action in the audit. `changes=False` marks a POST that only asks: it is not audited.
    `rehearses=True` marks a method that acts on ApiView.rehearsal; its `query` has the parameter `dry_run`.
    A method without `query` takes no query parameters, see ApiView. What `idempotent` made is told by itself.
    """
    well: dict[Any, Any] = {
        status: serializer if serializer is not None else OpenApiResponse(description="Done; no body.")
        for status, serializer in answers.items()
    }

    def decorate(handler: F) -> F:
        keys = _idempotency(handler, [status for status in well if isinstance(status, int)])
        # 422 always: a query parameter that is not known is refused everywhere. 429 too: everybody's requests are
        # counted. 413 wherever there is a body.
        refusals = {*problems, 422, 429} | (set() if anonymous else {401})
        refusals |= ({400} if keys else set()) | ({413} if request is not None else set())
        schema = extend_schema(
            operation_id=operation_id,
            tags=[tag],
            summary=summary,
            description=about or summary,
            request=request,
            responses={
                **well, **{one: OpenApiResponse(Problem, description=PROBLEMS[one]) for one in sorted(refusals)}
            },
            parameters=[*([query] if query else []), *parameters, *keys],
            auth=[] if anonymous else None,
        )  # fmt: skip
        handler.action, handler.changes = operation_id, changes  # type: ignore[attr-defined]
        handler.takes_query, handler.query = query is not None, query  # type: ignore[attr-defined]
        handler.rehearses = rehearses  # type: ignore[attr-defined]
        return schema(handler)

    return decorate


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """`Authorization: Bearer`."""

    target_class = "portal.auth.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        return {
            "type": "http",
            "scheme": "bearer",
            "description": "A token from `POST /api/v1/tokens`: `Authorization: Bearer brt_…`.",
        }


class SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The session cookie."""

    target_class = "portal.auth.SessionAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        return {
            "type": "apiKey",
            "in": "cookie",
            "name": "sessionid",
            "description": "Set by `POST /api/v1/session`. Changes also need the header X-CSRFToken.",
        }


PROBLEM_EXTENSIONS = ("violations",)
PATH_PARAMETERS = {
    "tenant": "Slug of the tenant.",
    "name": "Name of the cluster, unique in its tenant.",
    "principal": "Name of the credential.",
    "operation": "Id of the operation, `op_…`.",
    "token": "Id of the token, `tok_…`.",
    "username": "User name, exactly as written.",
    "user": "Name of the cluster's user.",
    "invitation": "Id of the invitation, `inv_…`.",
    "engine": "Key of the engine.",
    "plan": "Key of the plan.",
    "target": "Name of the target.",
    "holder": "Id of the deleted cluster, `clu_…`, as the quota shows it.",
}


# Of every answer. The fields of rate limits are those of draft-ietf-httpapi-ratelimit-headers-10.
HEADERS = {
    "X-Request-Id": {"schema": {"type": "string"}, "description": "Id of this request, also in the log."},
    "RateLimit-Policy": {
        "schema": {"type": "string"},
        "description": "Whose requests are counted (`caller`: the token or person; `address`: who is not signed in; "
        "`tenant`: all that is sent to the tenant in the address; with a comma between two), how many (`q`) are "
        "allowed in how many seconds (`w`). Absent while nothing is counted.",
    },
    "RateLimit": {
        "schema": {"type": "string"},
        "description": "How many requests remain (`r`), and after how many seconds (`t`) all are there again.",
    },
    "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait; then it helps. With 429 only."},
}


def _shorten_names(node: Any) -> None:
    """Serializers of answers end in Out, to keep them apart from the models; readers of the document need not see that.

    JSON null is spelled as a type, not as an enum of its own.
    """
    if isinstance(node, dict):
        reference = node.get("$ref")
        if reference == "#/components/schemas/NullEnum":
            del node["$ref"]
            node["type"] = "null"
        elif isinstance(reference, str):
            node["$ref"] = reference.removesuffix("Out")
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _shorten_names(child)


def finish(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Last touch: problems under their media type, X-Request-Id everywhere, parameters explained, names shortened."""
    _shorten_names(result)
    schemas = result["components"]["schemas"]
    for name in sorted(schemas):
        schema = schemas.pop(name)
        if name == "NullEnum":
            continue
        if name.endswith(("Out", "Page", "Ref", "Problem")):
            # Answers always hold every field, but for the extensions of single problem codes.
            schema["required"] = [field for field in schema["properties"] if field not in PROBLEM_EXTENSIONS]
        schemas[name.removesuffix("Out")] = schema
    for path in result["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    parameter["description"] = PATH_PARAMETERS[parameter["name"]]
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    response["content"] = {"application/problem+json": next(iter(response["content"].values()))}
                told = [name for name in HEADERS if name != "Retry-After" or int(status) == 429]
                references = {name: {"$ref": f"#/components/headers/{name}"} for name in told}
                response.setdefault("headers", {}).update(references)
    result["components"]["headers"] = HEADERS
    return result


@functools.cache
def document() -> dict[str, Any]:
    """The OpenAPI document of this version."""
    generator = SchemaGenerator()  # type: ignore[no-untyped-call]
    return cast(dict[str, Any], generator.get_schema(request=None, public=True))  # type: ignore[no-untyped-call]


@require_safe
def openapi(request: HttpRequest) -> HttpResponse:
    """GET /api/v1/openapi.json, open to all: it says nothing that the source does not."""
    return JsonResponse(document(), headers={"Cache-Control": "no-cache"})


# Swagger UI writes style attributes and draws with data: images; its scripts are files of ours.
CSP_REFERENCE = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@require_safe
def reference(request: HttpRequest) -> HttpResponse:
    """GET /api/docs: the document to read and try out; everything it loads comes from this server."""
    response = render(request, "portal/reference.html")
    response["Content-Security-Policy"] = CSP_REFERENCE
    return response
