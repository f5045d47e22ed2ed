"""/tokens: one's own bearer tokens."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.base import ApiView
from portal.api.pagination import PageQuery, page
from portal.api.schema import described
from portal.api.serializers import Body, Text, read_body, read_query, wire, wire_list
from portal.idempotency import idempotent
from portal.problems import invalid
from tenants.models import ApiToken
from tenants.refusals import FieldError, Missing
from tenants.tokens import DEFAULT_DAYS, MAXIMUM_DAYS, SCOPES, create_token, revoke_token

SCOPE_CHOICES = [(scope, scope) for scope in SCOPES]


class TokenOrder(Body):
    """What the token may do, and for how long."""

    name = Text(max_length=100, help_text="What it is for; shown in the list.")
    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=SCOPE_CHOICES), allow_empty=False, max_length=3, required=False,
        help_text='What it may do; "write" includes "read", "admin" includes "write". Default: ["read"].',
    )  # fmt: skip
    tenant = Text(
        required=False,
        allow_null=True,
        default=None,
        help_text="Limit it to this tenant (slug). Default: all.",
    )
    expires_in_days = serializers.IntegerField(
        required=False, default=DEFAULT_DAYS, min_value=1, max_value=MAXIMUM_DAYS, help_text="Lifetime in days."
    )


class TokenOut(serializers.Serializer[Any]):
    id = serializers.CharField()
    name = serializers.CharField()
    prefix = serializers.CharField(help_text="The first characters of the secret, to recognise it by.")
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=SCOPE_CHOICES))
    tenant = serializers.CharField(source="tenant.slug", allow_null=True, help_text="null: all of the user's tenants.")
    created = serializers.DateTimeField()
    expires = serializers.DateTimeField()
    last_used = serializers.DateTimeField(allow_null=True, help_text="Exact to a minute.")
    revoked = serializers.DateTimeField(allow_null=True)


class NewTokenOut(TokenOut):
    secret = serializers.CharField(help_text="The token itself. This answer is the only one that holds it.")


class TokenPage(serializers.Serializer[Any]):
    items = TokenOut(many=True)
    next = serializers.CharField(allow_null=True)


class TokensBase(ApiView):
    """A token limited to a tenant sees only tokens limited likewise."""

    def tokens(self) -> QuerySet[ApiToken]:
        """The tokens this call may see."""
        mine = ApiToken.objects.filter(user=self.user).select_related("tenant")
        return mine.filter(tenant=self.token.tenant_id) if self.token and self.token.tenant_id else mine


class TokensView(TokensBase):
    sessions_only = "A token cannot make tokens."

    @described("listTokens", tag="Tokens", summary="List your tokens", query=PageQuery, answers={200: TokenPage},
               problems=(422,), about="Newest first, expired and revoked ones too. Never their secrets.")  # fmt: skip
    def get(self, request: Request) -> Response:
        query = read_query(PageQuery, request)
        return page(request, self.tokens(), query, lambda rows: wire_list(TokenOut, rows), order="-id")

    @described("createToken", tag="Tokens", summary="Make a token", request=TokenOrder, answers={201: NewTokenOut},
               problems=(400, 403, 409, 415, 422),
               about="Needs a signed-in session: a token cannot make tokens. `secret` is shown in this answer only; "
               "Berth keeps nothing it could be read from. A repeat with its Idempotency-Key makes no other token: "
               "409 `already_made`.")  # fmt: skip
    @idempotent(required_from_tokens=False, secret="secret")
    def post(self, request: Request) -> Response:
        sent = read_body(TokenOrder, request)
        tenant = None
        if sent["tenant"] is not None:
            tenant = self.tenants().filter(slug=sent["tenant"]).first()
            if tenant is None:
                raise invalid([FieldError("/tenant", "invalid_choice", f"You are in no tenant {sent['tenant']}.")])
        token, secret = create_token(
            user=self.user, name=sent["name"], scopes=sent.get("scopes", ["read"]), days=sent["expires_in_days"],
            tenant=tenant,
        )  # fmt: skip
        return Response({**wire(TokenOut, token), "secret": secret}, status=201)


class TokenView(TokensBase):
    @described("revokeToken", tag="Tokens", summary="Revoke a token", answers={204: None}, problems=(403, 404),
               about="It stops working at once. Revoking a revoked token does nothing.")  # fmt: skip
    def delete(self, request: Request, token: str) -> Response:
        found = self.tokens().filter(pk=token).first()
        if found is None:
            raise Missing("not_found", f"You have no token {token}.")
        revoke_token(token=found)
        return Response(status=204)
