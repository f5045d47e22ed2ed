"""/tenants/{tenant}/members, …/invitations, …/service-tokens, and /invitations/accept: who belongs to a tenant."""

from __future__ import annotations

from typing import Any, ClassVar

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.base import ApiView
from portal.api.etags import content_revision, etag, expected_revision
from portal.api.pagination import PageQuery, page
from portal.api.parsers import JsonParser, MergePatchParser
from portal.api.schema import ETAG, IF_MATCH, described
from portal.api.serializers import Body, Text, read_body, read_query, wire, wire_list
from portal.api.tokens import SCOPE_CHOICES, TokenOut
from portal.idempotency import idempotent
from tenants.models import ApiToken, Invitation, Membership, Role
from tenants.people import (
    INVITATION_DAYS,
    INVITATION_MAXIMUM_DAYS,
    accept,
    add_member,
    change_role,
    find_member,
    invite,
    lock_tenant,
    remove_member,
    withdraw,
)
from tenants.refusals import Missing
from tenants.tokens import DEFAULT_DAYS, MAXIMUM_DAYS, create_service_token, revoke_token


class RoleBody(Body):
    role = serializers.ChoiceField(choices=Role.choices, help_text="Each role includes the ones after it.")


class MemberOrder(RoleBody):
    """Who joins, as what."""

    username = Text(max_length=150, help_text="Of a user who has signed in before, exactly as written.")


class TenantMemberOut(serializers.Serializer[Any]):
    username = serializers.CharField(source="user.username")
    name = serializers.CharField(source="user.get_full_name", help_text="May be empty.")
    role = serializers.ChoiceField(choices=Role.choices)
    active = serializers.BooleanField(source="user.is_active", help_text="false: switched off, cannot sign in.")


class TenantMemberPage(serializers.Serializer[Any]):
    items = TenantMemberOut(many=True)
    next = serializers.CharField(allow_null=True)


class InvitationOrder(RoleBody):
    """For one person, whoever holds the secret."""

    note = Text(required=False, default="", allow_blank=True, max_length=200, help_text="For whom; shown in the list.")
    expires_in_days = serializers.IntegerField(
        required=False, default=INVITATION_DAYS, min_value=1, max_value=INVITATION_MAXIMUM_DAYS
    )


class InvitationOut(serializers.Serializer[Any]):
    id = serializers.CharField()
    role = serializers.ChoiceField(choices=Role.choices)
    note = serializers.CharField()
    invited_by = serializers.CharField(source="invited_by.username", default=None, allow_null=True)
    created = serializers.DateTimeField()
    expires = serializers.DateTimeField()
    accepted = serializers.DateTimeField(allow_null=True)
    accepted_by = serializers.CharField(source="accepted_by.username", default=None, allow_null=True)
    withdrawn = serializers.DateTimeField(allow_null=True)


class NewInvitationOut(InvitationOut):
    secret = serializers.CharField(help_text="Hand it to the person. This answer is the only one that holds it.")


class InvitationPage(serializers.Serializer[Any]):
    items = InvitationOut(many=True)
    next = serializers.CharField(allow_null=True)


class AcceptBody(Body):
    secret = Text(max_length=200, write_only=True, help_text="`bri_…`, as it was handed over.")


class AcceptedMembershipOut(serializers.Serializer[Any]):
    tenant = serializers.CharField(source="tenant.slug")
    role = serializers.ChoiceField(choices=Role.choices)


class ServiceTokenOrder(RoleBody):
    """What the service may do, and for how long."""

    name = Text(max_length=60, help_text="What it is for; shown in the list and as the actor of what it does.")
    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=SCOPE_CHOICES), allow_empty=False, max_length=3, required=False,
        help_text='Default: ["read"].',
    )  # fmt: skip
    expires_in_days = serializers.IntegerField(
        required=False, default=DEFAULT_DAYS, min_value=1, max_value=MAXIMUM_DAYS, help_text="Lifetime in days."
    )


class ServiceTokenOut(TokenOut):
    username = serializers.CharField(source="user.username", help_text="The actor of what it does.")
    role = serializers.ChoiceField(choices=Role.choices, source="service_role")
    created_by = serializers.CharField(source="created_by.username", default=None, allow_null=True)


class NewServiceTokenOut(ServiceTokenOut):
    secret = serializers.CharField(help_text="The token itself. This answer is the only one that holds it.")


class ServiceTokenPage(serializers.Serializer[Any]):
    items = ServiceTokenOut(many=True)
    next = serializers.CharField(allow_null=True)


class PeopleView(ApiView):
    """Owners decide who belongs to a tenant; a token must have the scope admin for it."""

    least_role = Role.OWNER
    scope = "admin"


def _told(member: Membership, status: int = 200) -> Response:
    """A member with an ETag of what can be changed."""
    return Response(
        wire(TenantMemberOut, member), status=status, headers={"ETag": etag(content_revision({"role": member.role}))}
    )


class MembersView(PeopleView):
    @described("listMembers", tag="People", summary="List a tenant's members", query=PageQuery,
               answers={200: TenantMemberPage}, problems=(404, 422), about="In order of joining.")  # fmt: skip
    def get(self, request: Request, tenant: str) -> Response:
        query = read_query(PageQuery, request)
        rows = Membership.objects.filter(tenant=self.tenant, user__service_of=None).select_related("user")
        return page(request, rows, query, lambda found: wire_list(TenantMemberOut, found))

    @described("addMember", tag="People", summary="Add a member", request=MemberOrder, answers={201: TenantMemberOut},
               problems=(400, 403, 404, 409, 415, 422), parameters=[ETAG], about="Needs the role owner.")  # fmt: skip
    @idempotent(required_from_tokens=False)
    def post(self, request: Request, tenant: str) -> Response:
        sent = read_body(MemberOrder, request)
        member = add_member(tenant=self.tenant, username=sent["username"], role=Role(sent["role"]))
        self.audit_object, self.audit_detail = f"members/{sent['username']}", {"role": sent["role"]}
        return _told(member, 201)


class MemberView(PeopleView):
    parser_classes = [JsonParser, MergePatchParser]

    @described("getMember", tag="People", summary="Show a member", answers={200: TenantMemberOut}, problems=(404,),
               parameters=[ETAG])  # fmt: skip
    def get(self, request: Request, tenant: str, username: str) -> Response:
        return _told(find_member(self.tenant, username))

    @described("changeMember", tag="People", summary="Change a member's role", request=RoleBody,
               answers={200: TenantMemberOut}, problems=(400, 403, 404, 409, 412, 415, 422),
               parameters=[IF_MATCH, ETAG],
               about="Needs the role owner. The last owner cannot be demoted.")  # fmt: skip
    def patch(self, request: Request, tenant: str, username: str) -> Response:
        sent = read_body(RoleBody, request)
        self._require_unchanged(username)
        member, before = change_role(tenant=self.tenant, username=username, role=Role(sent["role"]))
        self.audit_detail = {"role": sent["role"], "before": before}
        return _told(member)

    @described("removeMember", tag="People", summary="Remove a member", answers={204: None},
               problems=(403, 404, 409, 412), parameters=[IF_MATCH],
               about="Needs the role owner. Works at once, tokens included, and takes away what was shared with the "
               "person before. The last owner stays.")  # fmt: skip
    def delete(self, request: Request, tenant: str, username: str) -> Response:
        self._require_unchanged(username)
        remove_member(tenant=self.tenant, username=username)
        return Response(status=204)

    def _require_unchanged(self, username: str) -> None:
        """Lock the tenant, and refuse when the member is not as If-Match says. Raises Missing, Stale."""
        member = find_member(lock_tenant(self.tenant), username)
        expected_revision(self.request, content_revision({"role": member.role}))


class InvitationsView(PeopleView):
    least_role_to_read: ClassVar[Role | None] = Role.OWNER

    @described("listInvitations", tag="People", summary="List invitations", query=PageQuery,
               answers={200: InvitationPage}, problems=(403, 404, 422), about="For owners. Newest first.")  # fmt: skip
    def get(self, request: Request, tenant: str) -> Response:
        query = read_query(PageQuery, request)
        rows = Invitation.objects.filter(tenant=self.tenant).select_related("invited_by", "accepted_by")
        return page(request, rows, query, lambda found: wire_list(InvitationOut, found), order="-id")

    @described("invite", tag="People", summary="Invite a person", request=InvitationOrder,
               answers={201: NewInvitationOut}, problems=(400, 403, 404, 409, 415, 422),
               about="Needs the role owner. `secret` is shown in this answer only, works once, for any signed-in user "
               "who has it, and only while the inviter is an owner. A repeat with its Idempotency-Key makes no other "
               "invitation, and is answered 409 `already_made`.")  # fmt: skip
    @idempotent(required_from_tokens=False, secret="secret")
    def post(self, request: Request, tenant: str) -> Response:
        sent = read_body(InvitationOrder, request)
        invitation, secret = invite(
            tenant=self.tenant, by=self.user, role=Role(sent["role"]), note=sent["note"], days=sent["expires_in_days"]
        )
        self.audit_object, self.audit_detail = f"invitations/{invitation.pk}", {"role": sent["role"]}
        return Response({**wire(InvitationOut, invitation), "secret": secret}, status=201)


class InvitationView(PeopleView):
    @described("withdrawInvitation", tag="People", summary="Withdraw an invitation", answers={204: None},
               problems=(403, 404))  # fmt: skip
    def delete(self, request: Request, tenant: str, invitation: str) -> Response:
        found = Invitation.objects.filter(tenant=self.tenant, pk=invitation).first()
        if found is None:
            raise Missing("not_found", f"There is no invitation {invitation} in {self.tenant.slug}.")
        withdraw(invitation=found)
        return Response(status=204)


class AcceptView(ApiView):
    sessions_only = "A token cannot accept an invitation."

    @described("acceptInvitation", tag="People", summary="Accept an invitation", request=AcceptBody,
               answers={200: AcceptedMembershipOut}, problems=(400, 403, 404, 409, 415, 422),
               about="Needs a signed-in session.")  # fmt: skip
    @idempotent(required_from_tokens=False)
    def post(self, request: Request) -> Response:
        sent = read_body(AcceptBody, request)
        member = accept(secret=sent["secret"], by=self.user)
        self.audit_tenant, self.audit_detail = member.tenant, {"role": member.role}
        return Response(wire(AcceptedMembershipOut, member))


class ServiceTokensBase(PeopleView):
    least_role_to_read: ClassVar[Role | None] = Role.OWNER

    def find(self, token: str) -> ApiToken:
        """The service token of this tenant. Raises Missing."""
        found = ApiToken.objects.service_tokens(self.tenant).filter(pk=token).first()
        if found is None:
            raise Missing("not_found", f"There is no service token {token} in {self.tenant.slug}.")
        return found


class ServiceTokensView(ServiceTokensBase):
    sessions_only = "A token cannot make tokens."

    @described("listServiceTokens", tag="Tokens", summary="List a tenant's service tokens", query=PageQuery,
               answers={200: ServiceTokenPage}, problems=(403, 404, 422),
               about="Needs the role owner. Newest first, expired and revoked ones too. Never secrets.")  # fmt: skip
    def get(self, request: Request, tenant: str) -> Response:
        query = read_query(PageQuery, request)
        rows = ApiToken.objects.service_tokens(self.tenant)
        return page(request, rows, query, lambda found: wire_list(ServiceTokenOut, found), order="-id")

    @described("createServiceToken", tag="Tokens", summary="Make a service token", request=ServiceTokenOrder,
               answers={201: NewServiceTokenOut}, problems=(400, 403, 404, 409, 415, 422),
               about="Needs the role owner and a signed-in session. The token belongs to the tenant, acts with `role`, "
               "and outlives the person who made it. `secret` is shown in this answer only: a repeat with its "
               "Idempotency-Key makes no other token, and is answered 409 `already_made`.")  # fmt: skip
    @idempotent(required_from_tokens=False, secret="secret")
    def post(self, request: Request, tenant: str) -> Response:
        sent = read_body(ServiceTokenOrder, request)
        token, secret = create_service_token(
            tenant=self.tenant, by=self.user, name=sent["name"], role=Role(sent["role"]),
            scopes=sent.get("scopes", ["read"]), days=sent["expires_in_days"],
        )  # fmt: skip
        self.audit_object = f"service-tokens/{token.pk}"
        self.audit_detail = {"role": sent["role"], "scopes": token.scopes}
        shown = ApiToken.objects.service_tokens(self.tenant).get(pk=token.pk)
        return Response({**wire(ServiceTokenOut, shown), "secret": secret}, status=201)


class ServiceTokenView(ServiceTokensBase):
    @described("revokeServiceToken", tag="Tokens", summary="Revoke a service token", answers={204: None},
               problems=(403, 404), about="Needs the role owner. It stops working at once.")  # fmt: skip
    def delete(self, request: Request, tenant: str, token: str) -> Response:
        revoke_token(token=self.find(token))
        return Response(status=204)
