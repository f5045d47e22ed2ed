"""Who calls: a browser's session (with CSRF) or a bearer token; and whether the token's scope allows the method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from rest_framework import authentication, exceptions, permissions
from rest_framework.request import Request

from portal import logs
from tenants.models import ApiToken, User
from tenants.refusals import Forbidden
from tenants.tokens import covers, find_token

if TYPE_CHECKING:  # REST framework imports this module while it is being imported itself
    from rest_framework.views import APIView

SAFE = ("GET", "HEAD", "OPTIONS")


class _CsrfCheck(CsrfViewMiddleware):
    """Hands the reason to us instead of answering with a page."""

    def _reject(self, request: HttpRequest, reason: str) -> str:
        return reason


def require_csrf(request: HttpRequest) -> None:
    """Refuse unless the request carries the CSRF token and, over HTTPS, comes from us. Raises Forbidden."""
    check = _CsrfCheck(lambda request: HttpResponse())
    check.process_request(request)
    reason = check.process_view(request, lambda: HttpResponse(), (), {})
    if reason:
        raise Forbidden("csrf_failed", f"{reason} Changes by session need the header X-CSRFToken.")


class SessionAuthentication(authentication.BaseAuthentication):
    """The browser's session cookie. Every changing request must carry the CSRF token."""

    def authenticate(self, request: Request) -> tuple[User, None] | None:
        user = getattr(request._request, "user", None)
        if not isinstance(user, User) or not user.is_active:
            return None
        logs.user_id.set(user.pk)
        if request.method not in SAFE:
            require_csrf(request._request)
        return user, None


class TokenAuthentication(authentication.BaseAuthentication):
    """`Authorization: Bearer brt_…`. A wrong token is refused even where a session would do."""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        scheme, _, secret = request.headers.get("Authorization", "").strip().partition(" ")
        if scheme.lower() != "bearer":
            return None
        token = find_token(secret.strip())
        if token is None:
            raise exceptions.AuthenticationFailed("The token is unknown, expired or revoked.")
        logs.user_id.set(token.user.pk)
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        sent = request.headers.get("Authorization", "").lower().startswith("bearer ")
        return 'Bearer realm="berth"' + (', error="invalid_token"' if sent else "")


def only_asks(view: type, method: str) -> bool:
    """Whether `method` of a view changes nothing: a safe one, or one that is described as such (`changes=False`)."""
    return method in SAFE or not getattr(getattr(view, method.lower(), None), "changes", True)


def require_scope(*, token: ApiToken | None, asks: bool, scope: str) -> None:
    """Refuse a change by a token without `scope`; sessions have all, and reading needs none. Raises Forbidden."""
    if token is not None and not asks and not covers(token=token, scope=scope):
        raise Forbidden("scope_required", f"This needs a token with the scope {scope}.")


class SignedInWithinScope(permissions.BasePermission):
    """Somebody is signed in and, with a token, its scope covers the method."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        if isinstance(request.user, AnonymousUser):
            return False
        token = request.auth if isinstance(request.auth, ApiToken) else None
        require_scope(
            token=token, asks=only_asks(type(view), str(request.method)), scope=getattr(view, "scope", "write")
        )
        return True
