"""The base of every resource. What a request may touch comes from the querysets here, and nowhere else.

`initial` settles tenant, role and suspension before any handler runs, so a resource cannot forget to.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib import import_module
from types import MappingProxyType
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from portal.address import client_address
from portal.api.audited import CHANGING, audited, changes, note_refusal, rehearses
from portal.api.serializers import asks_for_dry_run, read_query, refuse_query
from portal.auth import SAFE, only_asks
from portal.problems import TooMany
from portal.rates import WINDOW_SECONDS, Count, count_for_tenant, count_request, headers
from provisioning.clusters.grants import may
from provisioning.models import Cluster, ClusterQuerySet, Operation, OperationQuerySet
from tenants.access import require_active, require_role
from tenants.models import ApiToken, Role, Tenant, TenantQuerySet, User
from tenants.prepared import Prepared
from tenants.refusals import Forbidden, Missing


@functools.cache
def _tenant_query(superuser: bool, limited: bool) -> Prepared[Tenant, Tenant]:
    """Nearly every request asks which tenant its address names: ApiView.tenants, by slug."""

    def make(slug: str, user: int, limit: str | None = None) -> TenantQuerySet:
        return _visible_tenants(User(pk=user, is_superuser=superuser), limit if limited else None).filter(slug=slug)

    return Prepared(make)


def _visible_tenants(user: User, limit: str | None) -> TenantQuerySet:
    """The tenants `user` may see with a token that is limited to the tenant `limit`, or not limited."""
    visible = Tenant.objects.visible_to(user).with_role_of(user)
    return visible.filter(pk=limit) if limit else visible


class ApiView(APIView):
    """A resource. With `{tenant}` in its address, changes need at least `least_role` in that tenant.

    Every change is audited; see portal/api/audited.py for `in_transaction`.
    """

    least_role: ClassVar[Role] = Role.DEVELOPER
    # Of a token, for changes.
    scope: ClassVar[str] = "write"
    # Method to right ("read", "use"): what people of other tenants may do with a cluster that is shared with them.
    guest_rights: ClassVar[Mapping[str, str]] = MappingProxyType({})
    # None: everybody who may see the tenant may read.
    least_role_to_read: ClassVar[Role | None] = None
    # Why a token may not change anything here, for what only people do; "" where tokens may.
    sessions_only: ClassVar[str] = ""
    # Whose changes these are, where they are not the tenant's own; "" elsewhere.
    administrators_only: ClassVar[str] = ""
    # False for a handler that calls Kubernetes: no network inside a transaction.
    in_transaction: ClassVar[bool] = True
    # Whether refusals of callers who are not signed in are noted too.
    audit_anonymous: ClassVar[bool] = False

    # A dry run was asked for, of a handler that knows how: what it writes is rolled back, and no row is left in the
    # audit. Never taken from the request alone: a handler that does not know dry runs would act, unaudited.
    rehearsal = False
    # Set by such a handler: finishes the answer once all is rolled back, so it may ask Kubernetes.
    after_rehearsal: Callable[[], Response] | None = None
    # Who was recognised: for the audit of requests that were refused before `user` could be asked for.
    caller: User | None = None
    # How the caller, and the tenant, stand with their limits of requests.
    rates: tuple[Count, ...] = ()
    # The row of the change is written (note_success).
    is_noted = False
    # What the address does not say: the object a POST made, its tenant, and facts about the change. Never a secret.
    audit_object = ""
    audit_tenant: Tenant | None = None
    audit_detail: Mapping[str, Any] = MappingProxyType({})

    def may_still_ask(self) -> bool:
        """Whether the token or the session this request came with would still let the same person in: for what takes
        long. Who has become or ceased to be an administrator sees other things, and asks again.
        """
        if self.token is not None:
            token = ApiToken.objects.usable().select_related("user").filter(pk=self.token.pk).first()
            user: AbstractBaseUser | AnonymousUser | None = token.user if token else None
        else:
            again = HttpRequest()
            again.session = import_module(settings.SESSION_ENGINE).SessionStore(self.request.session.session_key)
            user = get_user(again)
        return isinstance(user, User) and user.is_active and user.is_superuser == self.user.is_superuser

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for method in CHANGING:
            handler = vars(cls).get(method)
            if handler is not None and changes(handler):
                setattr(cls, method, audited(handler))

    @property
    def user(self) -> User:
        """Who calls. Only for views that demand signing in, which is the default."""
        user = self.request.user
        assert isinstance(user, User)
        return user

    @property
    def token(self) -> ApiToken | None:
        """The token the call was made with, None for a session."""
        return self.request.auth if isinstance(self.request.auth, ApiToken) else None

    def tenants(self) -> TenantQuerySet:
        """The tenants this call may see: the user's, and of those the token's if it is limited to one."""
        return _visible_tenants(self.user, self.token.tenant_id if self.token else None)

    def clusters(self) -> ClusterQuerySet:
        """The clusters this call may see, in the addressed tenant if there is one."""
        if "tenant" in self.kwargs:
            return Cluster.objects.in_tenant(self.tenant, self.user)
        visible = Cluster.objects.visible_to(self.user)
        return visible.filter(tenant=self.token.tenant_id) if self.token and self.token.tenant_id else visible

    def operations(self) -> OperationQuerySet:
        """The operations this call may see, of the addressed tenant if there is one."""
        visible = Operation.objects.visible_to(self.user).select_related("cluster__tenant", "actor")
        if "tenant" in self.kwargs:
            return visible.filter(cluster__tenant=self.tenant)
        return visible.filter(cluster__tenant=self.token.tenant_id) if self.token and self.token.tenant_id else visible

    @cached_property
    def tenant(self) -> Tenant:
        """The tenant in the address. Raises Missing."""
        slug = self.kwargs["tenant"]
        limit = self.token.tenant_id if self.token else None
        tenant = _tenant_query(bool(self.user.is_superuser), limit is not None).first(
            slug=slug, user=self.user.pk, **({"limit": limit} if limit else {})
        )
        if tenant is None and self.guest_rights:
            shared = Cluster.objects.shared_with(self.user).present().filter(name=self.kwargs["name"])
            hosts = Tenant.objects.with_role_of(self.user).filter(slug=slug, pk__in=shared.values("tenant"))
            tenant = (hosts.filter(pk=limit) if limit else hosts).first()
        if tenant is None:
            raise Missing("not_found", f"There is no tenant {slug} that you may see.")
        return tenant

    @cached_property
    def cluster(self) -> Cluster:
        """The cluster in the address, not deleted. Raises Missing."""
        name = self.kwargs["name"]
        cluster = self.clusters().present().filter(name=name).select_related("tenant", "target", "created_by").first()
        if cluster is None:
            raise Missing("not_found", f"There is no cluster {name} in {self.tenant.slug}.")
        return cluster

    def perform_authentication(self, request: Request) -> None:
        try:
            super().perform_authentication(request)
            self.caller = request.user if isinstance(request.user, User) else None
        finally:
            # Also who was not recognised: tokens that do not count are counted for the address they come from.
            self._count(request)

    def _count(self, request: Request) -> None:
        """Refuse the request of a caller who has sent too many lately. Raises TooMany."""
        caller = None
        if self.caller:
            caller = f"token:{request.auth.pk}" if isinstance(request.auth, ApiToken) else f"user:{self.caller.pk}"
        whose = "You" if caller else "Callers of your address who are not signed in"
        self._hold_to(count_request(caller=caller, address=client_address(request._request)), whose)

    def count_for(self, tenant: Tenant) -> None:
        """Count the request for a tenant the caller may see; administrators, who can help, do not count. For the views
        whose address names the tenant by another thing. Raises TooMany.
        """
        if not self.user.is_superuser:
            self._hold_to(count_for_tenant(tenant.pk), f"All people and programs of {tenant.slug} together")

    def _hold_to(self, count: Count | None, whose: str) -> None:
        if count is None:
            return
        self.rates = (*self.rates, count)
        if not count.allowed:
            raise TooMany(f"{whose} may send {count.limit} requests in {WINDOW_SECONDS} s.", count.reset)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        # First: what is refused from here on was a dry run too, and is not noted as the real thing.
        handler: Any = getattr(self, str(request.method).lower(), None)
        self.rehearsal = rehearses(handler) and asks_for_dry_run(request)
        super().initial(request, *args, **kwargs)
        if any("\0" in str(value) for value in self.kwargs.values()):
            # The database cannot even be asked for such a name.
            raise Missing("not_found", "There is nothing at this address.")
        if "tenant" in self.kwargs:
            self.require_access(type(self), str(request.method))
            self.count_for(self.tenant)
        if not getattr(handler, "takes_query", True):
            refuse_query(request)
        elif rehearses(handler):
            # Before anything is done that a misspelt `dry_run` was not to do.
            read_query(handler.query, request)
        self.require_kind(type(self), str(request.method))

    def require_kind(self, view: type[ApiView], method: str) -> None:
        """Refuse a change of `view`, as in `require_access`, that only people with a session, or only platform
        administrators, make. Raises Forbidden.
        """
        if only_asks(view, method):
            return
        if view.sessions_only and self.token:
            raise Forbidden("session_required", view.sessions_only)
        if view.administrators_only and not self.user.is_superuser:
            raise Forbidden("role_required", view.administrators_only, suggestion="Ask a platform administrator.")

    def require_access(self, view: type[ApiView], method: str) -> None:
        """Refuse `method` of `view` where the caller's role, right or a suspension does not allow it in the addressed
        tenant. `view` is the one that was called, or one that GET …/capabilities tells about.

        Raises Missing, Forbidden.
        """
        tenant = self.tenant
        guest = tenant.my_role is None and not self.user.is_superuser
        if guest and not view.guest_rights:
            raise Missing("not_found", f"There is no tenant {tenant.slug} that you may see.")
        asks = only_asks(view, method)
        right = view.guest_rights.get("GET" if method in SAFE else method)
        if guest and right is not None:
            if not may(user=self.user, cluster=self.cluster, right=right):
                raise Forbidden("grant_required", f"{self.cluster.name} is not shared with you to {right}.")
            if not asks:
                require_active(tenant=tenant, user=self.user)
        elif asks:
            if view.least_role_to_read is not None:
                require_role(tenant=tenant, user=self.user, least=view.least_role_to_read)
        else:
            require_role(tenant=tenant, user=self.user, least=view.least_role)
            require_active(tenant=tenant, user=self.user)

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method in SAFE:
            return super().dispatch(request, *args, **kwargs)
        try:
            response = super().dispatch(request, *args, **kwargs)
        except Exception:
            note_refusal(self, self.request, 500, {"code": "internal_error"})
            raise
        if response.status_code >= 400:
            note_refusal(self, self.request, response.status_code, getattr(response, "data", None))
        return response

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        # Answers depend on who asks and change all the time; some hold secrets.
        response.headers.setdefault("Cache-Control", "no-store")
        for name, value in headers(self.rates).items():
            response.headers[name] = value
        return super().finalize_response(request, response, *args, **kwargs)


class AdministratorsView(ApiView):
    """For platform administrators; to everybody else its addresses do not exist."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if not self.user.is_superuser:
            raise Missing("not_found", "There is nothing at this address that you may see.")
