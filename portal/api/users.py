"""…/clusters/{name}/users: the accounts clients sign in with, what each may do, and their passwords' rotation.

Passwords are made and kept in the cluster's Secret; revealing one is …/credentials/{name}/reveal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from drf_spectacular.utils import PolymorphicProxySerializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal import logs
from portal.api.base import ApiView
from portal.api.clusters import AcceptedOut, accepted
from portal.api.etags import etag, expected_revision
from portal.api.pagination import PageQuery, page
from portal.api.parsers import JsonParser, MergePatchParser
from portal.api.rehearsals import RehearsalOut, rehearsed
from portal.api.schema import ETAG, IF_MATCH, LOCATION, described
from portal.api.serializers import Body, DryRunQuery, Text, Whole, read_body, read_query, wire, wire_list
from portal.idempotency import idempotent
from provisioning.clusters import users
from provisioning.clusters.rehearsal import rehearse
from provisioning.engines.base import Access
from provisioning.models import Operation, Principal

DAY = 24 * 3600
LISTS = ("key_prefixes", "channel_prefixes", "commands")
KEY_PREFIXES = "Keys that begin with one of these; `*` alone: all keys."
CHANNEL_PREFIXES = "Channels that begin with one of these; `*` alone: all channels."
COMMANDS = "Groups of commands, see `user_rules` of the engine. What administers the cluster is in none of them."


def _texts(help_text: str, **options: Any) -> serializers.ListField:
    return serializers.ListField(child=Text(max_length=100), max_length=50, help_text=help_text, **options)


class UserOrder(Body):
    """A user to be made."""

    name = Text(max_length=30, help_text="1 to 30 lower-case letters, digits, - and _; never changes.")
    key_prefixes = _texts(KEY_PREFIXES)
    channel_prefixes = _texts(f"{CHANNEL_PREFIXES} Default: none.", required=False, default=list)
    commands = _texts(COMMANDS)


class UserPatch(Body):
    """What is absent stays; a list replaces the list."""

    key_prefixes = _texts(KEY_PREFIXES, required=False)
    channel_prefixes = _texts(CHANNEL_PREFIXES, required=False)
    commands = _texts(COMMANDS, required=False)
    everything = serializers.BooleanField(
        required=False, default=False, help_text="Take all limits away again; for `default` only."
    )
    enabled = serializers.BooleanField(required=False, help_text="false: nobody can sign in as this user.")


class RotateOrder(Body):
    """How long the password in use goes on working beside the new one."""

    overlap_seconds = Whole(
        required=False, default=DAY, min_value=0, max_value=int(users.OVERLAP_MOST.total_seconds()),
        help_text="Default: a day. 0: the old one ends at once, and whoever uses it is cut off.",
    )  # fmt: skip
    until_unused = serializers.BooleanField(
        required=False, default=False,
        help_text="End it sooner, when for ten minutes no connection was left that was opened before the rotation. "
        "Clients that open new connections with the old password now and then cannot be seen, and are refused then.",
    )  # fmt: skip


class AccessOut(serializers.Serializer[Any]):
    key_prefixes = serializers.ListField(child=serializers.CharField(), help_text=KEY_PREFIXES)
    channel_prefixes = serializers.ListField(child=serializers.CharField(), help_text=CHANNEL_PREFIXES)
    commands = serializers.ListField(child=serializers.CharField(), help_text=COMMANDS)


class OldPasswordOut(serializers.Serializer[Any]):
    version = serializers.IntegerField()
    until = serializers.DateTimeField(help_text="It ends then at the latest.")
    until_unused = serializers.BooleanField(help_text="Whether it ends sooner when nobody is seen to use it.")
    connections = serializers.IntegerField(
        allow_null=True,
        help_text="Connections that were opened before the new password worked, so with this one. Whoever connects "
        "with it later cannot be told from others. null: not looked at yet.",
    )
    last_active = serializers.DateTimeField(
        allow_null=True, help_text="When one of those connections last sent something. null: none was seen."
    )
    checked = serializers.DateTimeField(allow_null=True, help_text="When that was last looked at.")


class ClusterUserOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    enabled = serializers.BooleanField()
    access = AccessOut(allow_null=True, help_text="null: everything.")
    version = serializers.IntegerField(help_text="Of the newest password; grows with every rotation.")
    in_force = serializers.BooleanField(help_text="Whether the newest password works on every node.")
    created = serializers.DateTimeField()
    rotated = serializers.DateTimeField(allow_null=True, help_text="When the newest password was asked for.")
    old_password = OldPasswordOut(allow_null=True, help_text="The one before, while it still works.")
    secret_name = serializers.CharField(help_text="The Kubernetes Secret with its password, in the tenant's namespace.")
    secret_key = serializers.CharField(help_text="Key of the newest password in that Secret.")
    revision = serializers.IntegerField()


# What PATCH answers: the user as it is, or what a dry run found.
EDITED = PolymorphicProxySerializer(
    component_name="EditedUser", serializers=[ClusterUserOut, RehearsalOut], resource_type_field_name=None
)


class ClusterUserPage(serializers.Serializer[Any]):
    items = ClusterUserOut(many=True)
    next = serializers.CharField(allow_null=True)


def shown(user: Principal) -> Mapping[str, Any]:
    """A row as ClusterUserOut describes it."""
    old = {
        "version": user.old_version, "until": user.old_until, "until_unused": user.old_until_unused,
        "connections": user.old_connections, "last_active": user.old_last_active, "checked": user.old_checked,
    }  # fmt: skip
    return {
        "name": user.name, "enabled": user.enabled, "access": user.access, "version": user.version,
        "in_force": user.settled_version == user.version, "created": user.created, "rotated": user.rotated,
        "old_password": None if user.old_version is None else old, "secret_name": user.secret_name,
        "secret_key": user.secret_key, "revision": user.revision,
    }  # fmt: skip


class UsersView(ApiView):
    guest_rights = {"GET": "use"}

    @described("listUsers", tag="Users", summary="List a cluster's users", query=PageQuery,
               answers={200: ClusterUserPage}, problems=(404, 409), about="What each may do, and how its rotation "
               "stands; without passwords. 409 `no_users` where the engine has the one its clusters are made "
               "with.")  # fmt: skip
    def get(self, request: Request, tenant: str, name: str) -> Response:
        query = read_query(PageQuery, request)
        rows = users.users_in(self.cluster)
        return page(request, rows, query, lambda found: wire_list(ClusterUserOut, map(shown, found)), order="name")

    @described("addUser", tag="Users", summary="Add a user to a cluster", request=UserOrder,
               query=DryRunQuery, rehearses=True, answers={200: RehearsalOut, 202: AcceptedOut},
               problems=(400, 403, 404, 409, 412, 415),
               parameters=[IF_MATCH, LOCATION],
               about="Berth makes its password, and tells every node without a restart; reveal it by "
               "…/credentials/{name}/reveal. If-Match is about the cluster. 200 answers a dry run.")  # fmt: skip
    @idempotent(required_from_tokens=True)
    def post(self, request: Request, tenant: str, name: str) -> Response:
        sent = read_body(UserOrder, request)
        act = partial(
            users.add_user, cluster=self.cluster, by=self.user, name=sent["name"],
            access=Access(**{key: tuple(sent[key]) for key in LISTS}),
            expected_revision=expected_revision(request, self.cluster.revision), request_id=logs.request_id.get(),
        )  # fmt: skip
        if self.rehearsal:
            return rehearsed(self, rehearse(cluster=self.cluster, act=lambda: act()[1]))
        made, operation = act()
        answer = accepted(self, operation)
        self.audit_object = f"clusters/{name}/users/{made.name}"
        self.audit_detail = {key: sent[key] for key in LISTS}
        return answer


class UserView(ApiView):
    guest_rights = {"GET": "use"}
    parser_classes = [JsonParser, MergePatchParser]

    @described("getUser", tag="Users", summary="Show a user of a cluster", answers={200: ClusterUserOut},
               problems=(404, 409), parameters=[ETAG])  # fmt: skip
    def get(self, request: Request, tenant: str, name: str, user: str) -> Response:
        found = users.find_user(self.cluster, user)
        return Response(wire(ClusterUserOut, shown(found)), headers={"ETag": etag(found.revision)})

    @described("editUser", tag="Users", summary="Change what a user may do", request=UserPatch,
               query=DryRunQuery, rehearses=True, answers={200: EDITED, 202: AcceptedOut},
               problems=(400, 403, 404, 409, 412, 415),
               parameters=[IF_MATCH, ETAG, LOCATION],
               about="A JSON merge patch (RFC 7396). Works at once on every node, for connections that are open, too. "
               "200 when all stays as it is, and for a dry run, which is answered with a rehearsal.")  # fmt: skip
    def patch(self, request: Request, tenant: str, name: str, user: str) -> Response:
        sent = read_body(UserPatch, request)
        found = users.find_user(self.cluster, user)
        access: dict[str, list[str]] = {key: sent[key] for key in LISTS if key in sent}
        act = partial(
            users.edit_user, cluster=self.cluster, by=self.user, name=user, access=access,
            everything=sent["everything"], enabled=sent.get("enabled"),
            expected_revision=expected_revision(request, found.revision),
            request_id=logs.request_id.get(),
        )  # fmt: skip
        return _done(self, found, act, dict(sent))

    @described("removeUser", tag="Users", summary="Remove a user from a cluster", query=DryRunQuery,
               rehearses=True, answers={200: RehearsalOut, 202: AcceptedOut},
               problems=(403, 404, 409, 412), parameters=[IF_MATCH, LOCATION],
               about="Its connections are cut. `default` stays (409 `user_stays`); it can be disabled. 200 answers a "
               "dry run.")  # fmt: skip
    def delete(self, request: Request, tenant: str, name: str, user: str) -> Response:
        found = users.find_user(self.cluster, user)
        act = partial(
            users.remove_user, cluster=self.cluster, by=self.user, name=user,
            expected_revision=expected_revision(request, found.revision), request_id=logs.request_id.get(),
        )  # fmt: skip
        return _done(self, found, act)


class RotateView(ApiView):
    @described("rotatePassword", tag="Users", summary="Give a user a new password", request=RotateOrder,
               query=DryRunQuery, rehearses=True, answers={200: RehearsalOut, 202: AcceptedOut},
               problems=(400, 403, 404, 409, 412, 415),
               parameters=[IF_MATCH, LOCATION],
               about="Without a restart of anything. Both passwords work during the overlap; then the old one ends, "
               "and every connection of the user is cut once, since nobody can tell who used which: clients with "
               "the new password come back at once. 200 answers a dry run.")  # fmt: skip
    @idempotent(required_from_tokens=True)
    def post(self, request: Request, tenant: str, name: str, user: str) -> Response:
        sent = read_body(RotateOrder, request)
        found = users.find_user(self.cluster, user)
        act = partial(
            users.rotate_password, cluster=self.cluster, by=self.user, name=user,
            overlap=timedelta(seconds=sent["overlap_seconds"]), until_unused=sent["until_unused"],
            expected_revision=expected_revision(request, found.revision), request_id=logs.request_id.get(),
        )  # fmt: skip
        return _done(self, found, act, dict(sent))


class RevokeOldView(ApiView):
    @described("revokeOldPassword", tag="Users", summary="End a user's old password now", query=DryRunQuery,
               rehearses=True, answers={200: RehearsalOut, 202: AcceptedOut},
               problems=(400, 403, 404, 409, 412), parameters=[IF_MATCH, LOCATION],
               about="Before its time. 409 `no_old_password` when there is none. 200 answers a dry run.")  # fmt: skip
    @idempotent(required_from_tokens=False)
    def post(self, request: Request, tenant: str, name: str, user: str) -> Response:
        found = users.find_user(self.cluster, user)
        act = partial(
            users.revoke_old_password, cluster=self.cluster, by=self.user, name=user,
            expected_revision=expected_revision(request, found.revision), request_id=logs.request_id.get(),
        )  # fmt: skip
        return _done(self, found, act)


def _done(
    view: ApiView, user: Principal, act: Callable[[], Operation | None], detail: Mapping[str, Any] | None = None
) -> Response:  # fmt: skip
    """Do it, or only say what it would do. The answer, and the audit's object and facts."""
    if view.rehearsal:
        return rehearsed(view, rehearse(cluster=view.cluster, act=act))
    operation = act()
    if operation is None:
        return Response(wire(ClusterUserOut, shown(user)), headers={"ETag": etag(user.revision)})
    answer = accepted(view, operation)
    view.audit_object = f"clusters/{view.kwargs['name']}/users/{view.kwargs['user']}"
    view.audit_detail = detail or {}
    return answer
