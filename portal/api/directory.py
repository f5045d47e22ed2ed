"""/people: everybody who can sign in, for platform administrators. Who belongs to a tenant is in people.py."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.hashers import is_password_usable
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.base import AdministratorsView
from portal.api.etags import content_revision, etag, expected_revision
from portal.api.pagination import PageQuery, page
from portal.api.parsers import JsonParser, MergePatchParser
from portal.api.schema import ETAG, IF_MATCH, described
from portal.api.serializers import Body, Text, lookups, read_body, read_query, wire, wire_list
from portal.api.session import MembershipOut
from portal.api.tokens import TokenOut
from portal.idempotency import idempotent
from tenants.accounts import change_person, create_person, ownerless, people, person, reset_password
from tenants.models import ApiToken, User
from tenants.refusals import Missing
from tenants.tokens import revoke_token

WAYS = [(way, way) for way in ("password", "oidc")]


class PeopleQuery(PageQuery):
    q = serializers.CharField(
        required=False, max_length=150, help_text="Only user names that contain this, in upper or lower case."
    )
    username = serializers.CharField(required=False, max_length=150, help_text="Only this user name, exactly.")
    active = serializers.BooleanField(
        required=False, default=None, allow_null=True, help_text="Only who is, or is not, switched off."
    )
    administrator = serializers.BooleanField(
        required=False, default=None, allow_null=True, help_text="Only who is, or is not, a platform administrator."
    )


# Filter to what it compares with.
FILTERS = {
    "q": "username__icontains", "username": "username", "active": "is_active", "administrator": "is_superuser",
}  # fmt: skip


class PersonOut(serializers.Serializer[Any]):
    username = serializers.CharField(help_text="For addresses; exact, upper case too.")
    name = serializers.CharField(source="get_full_name", help_text="May be empty.")
    active = serializers.BooleanField(source="is_active", help_text="false: switched off, cannot sign in.")
    administrator = serializers.BooleanField(source="is_superuser", help_text="Platform administrator.")
    created = serializers.DateTimeField(source="date_joined")
    last_sign_in = serializers.DateTimeField(
        source="last_login", allow_null=True, help_text="null: never. Using a token is not signing in."
    )
    signs_in_with = serializers.SerializerMethodField(
        help_text="password: kept by Berth; oidc: the identity provider. Empty: cannot sign in."
    )
    membership_count = serializers.IntegerField(help_text="Tenants the person is a member of.")
    token_count = serializers.IntegerField(help_text="Personal tokens that are neither expired nor revoked.")

    @extend_schema_field(serializers.ListField(child=serializers.ChoiceField(choices=WAYS)))
    def get_signs_in_with(self, user: User) -> list[str]:
        has_password = bool(user.password) and is_password_usable(user.password)
        # Filled by people().
        has_identity: bool = user.has_identity  # type: ignore[attr-defined]
        return [way for way, has in (("password", has_password), ("oidc", has_identity)) if has]


class PersonMembershipOut(MembershipOut):
    from_groups = serializers.BooleanField(help_text="Given by a group of the identity provider, at each sign-in.")


class PersonDetailOut(PersonOut):
    memberships = PersonMembershipOut(many=True, help_text="By tenant.")
    tokens = TokenOut(many=True, help_text="Those of `token_count`, newest first. Never their secrets.")
    ownerless_tenants = serializers.ListField(
        child=serializers.CharField(),
        help_text="Slugs of tenants that this person, who is switched off, owns and nobody who is active does: make "
        "somebody an owner of them. Empty while the person is active.",
    )


class PersonPage(serializers.Serializer[Any]):
    items = PersonOut(many=True)
    next = serializers.CharField(allow_null=True)


class PersonPatch(Body):
    """A merge patch: what is absent stays."""

    active = serializers.BooleanField(
        required=False, help_text="false: out at once; sessions end, tokens are refused until it is true again."
    )
    administrator = serializers.BooleanField(required=False, help_text="Whether the person administers the platform.")


class PersonOrder(Body):
    """Somebody who is to sign in with a password of Berth."""

    username = Text(max_length=150, help_text="Letters, digits and @/./+/-/_; never changes.")
    name = Text(required=False, default="", allow_blank=True, max_length=150, help_text="What people call them.")


class NewPersonOut(PersonDetailOut):
    id = serializers.CharField(source="username", help_text="The user name.")
    password = serializers.CharField(help_text="To sign in with; this answer is the only one that holds it.")


class NewPasswordOut(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="The user name.")
    password = serializers.CharField(help_text="To sign in with; this answer is the only one that holds it.")


class DirectoryView(AdministratorsView):
    """Who may administer everything is not decided with a token that is limited to a tenant, nor told to one."""

    scope = "admin"

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if self.token and self.token.tenant_id:
            raise Missing("not_found", "There is nothing at this address that you may see.")


def _revision(user: User) -> str:
    return content_revision({"active": user.is_active, "administrator": user.is_superuser})


def _told(user: User, shown: dict[str, Any]) -> Response:
    return Response(shown, headers={"ETag": etag(_revision(user))})


def _shown(user: User) -> dict[str, Any]:
    """One of people(), with everything."""
    memberships = user.memberships.select_related("tenant").order_by("tenant__slug")
    tokens = ApiToken.objects.unended().filter(user=user).select_related("tenant").order_by("-id")
    return {
        **wire(PersonOut, user),
        "memberships": wire_list(PersonMembershipOut, memberships),
        "tokens": wire_list(TokenOut, tokens),
        "ownerless_tenants": ownerless(user),
    }


class PeopleListView(DirectoryView):
    @described("listPeople", tag="Administration", summary="List everybody who can sign in", query=PeopleQuery,
               answers={200: PersonPage}, problems=(404, 422),
               about="For platform administrators. By user name. Services of tenants are not people: see the tenant's "
               "service tokens.")  # fmt: skip
    def get(self, request: Request) -> Response:
        query = read_query(PeopleQuery, request)
        asked = {name: value for name, value in query.items() if value is not None}
        rows = people().filter(**lookups(asked, FILTERS))
        return page(request, rows, query, lambda found: wire_list(PersonOut, found), order="username")

    @described("createPerson", tag="Administration", summary="Make a person who signs in with a password",
               request=PersonOrder, answers={201: NewPersonOut}, problems=(400, 403, 404, 409, 415, 422),
               about="For platform administrators; a token needs the scope admin. `password` is shown in this answer "
               "only; have the person change it (`POST /session/password`). Whoever the identity provider knows needs "
               "none of this: they are made when they first sign in.")  # fmt: skip
    @idempotent(required_from_tokens=False, secret="password")
    def post(self, request: Request) -> Response:
        sent = read_body(PersonOrder, request)
        made, password = create_person(username=sent["username"], name=sent["name"])
        self.audit_object = f"people/{made.username}"
        shown = _shown(person(made.username))
        return Response({**shown, "id": made.username, "password": password}, status=201)


class PasswordResetView(DirectoryView):
    @described("resetPassword", tag="Administration", summary="Give a person a new password",
               answers={200: NewPasswordOut}, problems=(403, 404, 409),
               about="For platform administrators; a token needs the scope admin. `password` is shown in this answer "
               "only. The person's sessions end; tokens go on working. 409 `signs_in_elsewhere` for those of the "
               "identity provider.")  # fmt: skip
    @idempotent(required_from_tokens=False, secret="password")
    def post(self, request: Request, username: str) -> Response:
        found, password = reset_password(username=username)
        return Response({"id": found.username, "password": password})


class PersonView(DirectoryView):
    parser_classes = [JsonParser, MergePatchParser]

    @described("getPerson", tag="Administration", summary="Show a person", answers={200: PersonDetailOut},
               problems=(404,), parameters=[ETAG], about="For platform administrators.")  # fmt: skip
    def get(self, request: Request, username: str) -> Response:
        found = person(username)
        return _told(found, _shown(found))

    @described("changePerson", tag="Administration", summary="Switch a person off or on, or change who administers",
               request=PersonPatch, answers={200: PersonDetailOut}, problems=(400, 403, 404, 409, 412, 415, 422),
               parameters=[IF_MATCH, ETAG],
               about="For platform administrators; a token needs the scope admin. Whoever is switched off is out at "
               "once: sessions end for good, tokens are refused. Memberships stay; `ownerless_tenants` says which "
               "tenants nobody active owns now. The last active administrator stays one, and nobody switches "
               "themselves off.")  # fmt: skip
    def patch(self, request: Request, username: str) -> Response:
        sent = read_body(PersonPatch, request)
        changed = change_person(username=username, by=self.user, expect=self._unchanged, **sent)
        shown = _shown(changed.person)
        self.audit_detail = {
            **sent, "before": {field: changed.before[field] for field in sent},
            "sessions_ended": changed.sessions_ended, "ownerless_tenants": shown["ownerless_tenants"],
        }  # fmt: skip
        return _told(changed.person, shown)

    def _unchanged(self, user: User) -> None:
        expected_revision(self.request, _revision(user))


class PersonTokenView(DirectoryView):
    @described("revokePersonsToken", tag="Administration", summary="Revoke somebody's token", answers={204: None},
               problems=(403, 404),
               about="For platform administrators; a token needs the scope admin. It stops working at once. Revoking a "
               "revoked token does nothing.")  # fmt: skip
    def delete(self, request: Request, username: str, token: str) -> Response:
        found = ApiToken.objects.filter(user=person(username), pk=token).first()
        if found is None:
            raise Missing("not_found", f"{username} has no token {token}.")
        revoke_token(token=found)
        self.audit_detail = {"prefix": found.prefix, "name": found.name}
        return Response(status=204)
