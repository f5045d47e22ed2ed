"""/session: sign in, who am I, sign out."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth import authenticate, login, logout, update_session_auth_hash
from django.db import transaction
from django.http import HttpRequest
from django.middleware.csrf import get_token
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from portal import logs
from portal.address import client_address
from portal.api.audited import note_success
from portal.api.base import ApiView
from portal.api.schema import described
from portal.api.serializers import Body, Text, read_body
from portal.auth import require_csrf
from portal.problems import SessionRequired, TooMany, invalid
from tenants.accounts import change_own_password, hold_active
from tenants.models import Role, User
from tenants.refusals import Conflict, FieldError
from tenants.throttle import count_attempt, count_success


class SignIn(Body):
    """A user's name and password."""

    username = Text(max_length=150)
    password = Text(max_length=1024, write_only=True)


class PasswordChange(Body):
    """The password in use, and the one to use from now on."""

    current = Text(max_length=1024, write_only=True)
    new = Text(max_length=1024, write_only=True, help_text="At least 12 characters, and none of the common ones.")


class MembershipOut(serializers.Serializer[Any]):
    tenant = serializers.CharField(source="tenant.slug", help_text="Slug, for addresses.")
    name = serializers.CharField(source="tenant.name")
    role = serializers.ChoiceField(choices=Role.choices)
    suspended = serializers.BooleanField(source="tenant.suspended", help_text="Nothing can be changed.")


class UserOut(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    username = serializers.CharField()
    name = serializers.CharField(source="get_full_name", help_text="May be empty.")
    admin = serializers.BooleanField(source="is_superuser", help_text="Platform administrator.")


class SessionOut(serializers.Serializer[Any]):
    user = UserOut(allow_null=True, help_text="null when nobody is signed in.")
    memberships = MembershipOut(many=True)
    oidc = serializers.CharField(
        allow_null=True,
        help_text="Name of the OpenID Connect provider that signs people in at /auth/oidc/login; null without one.",
    )


def _session(user: object) -> dict[str, Any]:
    oidc = settings.OIDC.name if settings.OIDC else None
    if not isinstance(user, User):
        return {"user": None, "memberships": [], "oidc": oidc}
    memberships = user.memberships.select_related("tenant").order_by("tenant__slug")
    shown = SessionOut({"user": user, "memberships": memberships, "oidc": oidc})
    return dict(shown.data)


def open_session(request: HttpRequest, user: User) -> bool:
    """Sign a person in whom a password or an identity provider vouches for; False when they were switched off.

    The session is written while the person's row is locked, so whoever switches them off finds it, and ends it.
    """
    with transaction.atomic():
        held = hold_active(user)
        if held is None:
            return False
        login(request, held, backend="django.contrib.auth.backends.ModelBackend")
        request.session.save()
    return True


class SessionView(ApiView):
    """Not tied to a tenant; open to everybody."""

    permission_classes = [AllowAny]
    audit_anonymous = True
    # A refused sign-in must stay counted.
    in_transaction = False

    @described("getSession", tag="Session", summary="Who am I", answers={200: SessionOut}, anonymous=True,
               about="Also sets the cookie `csrftoken`. `user` is null when nobody is signed in.")  # fmt: skip
    def get(self, request: Request) -> Response:
        get_token(request._request)
        return Response(_session(request.user))

    @described("signIn", tag="Session", summary="Sign in", request=SignIn, answers={200: SessionOut},
               problems=(400, 401, 403, 415, 422, 429), anonymous=True,
               about="Needs the header X-CSRFToken with the value of the cookie `csrftoken`, also when nobody is "
               "signed in yet. Sets the session cookie and a fresh `csrftoken`.")  # fmt: skip
    def post(self, request: Request) -> Response:
        # Also without a session: otherwise another site could sign people in as somebody else.
        require_csrf(request._request)
        sent = read_body(SignIn, request)
        caller = {"username": sent["username"], "address": client_address(request._request)}
        if wait := count_attempt(**caller):
            raise TooMany("Too many attempts.", wait)
        user = authenticate(request._request, username=sent["username"], password=sent["password"])
        if not isinstance(user, User) or not open_session(request._request, user):
            raise SessionRequired("sign_in_failed", "There is no user with this name and password.")
        count_success(**caller)
        logs.user_id.set(user.pk)
        self.caller = user
        return Response(_session(user))

    @described("signOut", tag="Session", summary="Sign out", answers={204: None}, problems=(403,), anonymous=True)
    def delete(self, request: Request) -> Response:
        if self.caller is None:
            return Response(status=204)
        logout(request._request)
        return Response(status=204)


class PasswordView(ApiView):
    """One's own. A wrong guess must stay counted."""

    in_transaction = False
    sessions_only = "A token cannot change a password."

    @described("changePassword", tag="Session", summary="Change your password", request=PasswordChange,
               answers={204: None}, problems=(400, 403, 409, 415, 422, 429),
               about="Needs a signed-in session, which goes on; all your other sessions end, and tokens go on "
               "working.")  # fmt: skip
    def post(self, request: Request) -> Response:
        sent = read_body(PasswordChange, request)
        if not self.user.has_usable_password():
            raise Conflict(
                "signs_in_elsewhere", "You sign in with the identity provider, and have no password here.",
                suggestion="Change it at the identity provider.",
            )  # fmt: skip
        name, address = self.user.get_username(), client_address(request._request)
        if wait := count_attempt(username=name, address=address):
            raise TooMany("Too many attempts.", wait)
        if not self.user.check_password(sent["current"]):
            raise invalid([FieldError("/current", "wrong_password", "That is not your present password.")])
        count_success(username=name, address=address)
        with transaction.atomic():
            # As in `open_session`: whoever switches the person off ends the session that goes on, too.
            held = hold_active(self.user)
            if held is None:
                raise SessionRequired("unauthenticated", "You were switched off.")
            change_own_password(user=held, new=sent["new"])
            update_session_auth_hash(request._request, held)
            request._request.session.save()
            note_success(self, 204)
        return Response(status=204)
