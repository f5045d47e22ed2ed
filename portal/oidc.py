"""Sign in with OpenID Connect: /auth/oidc/login sends the browser to the provider, /auth/oidc/callback gets it back.

Outside the REST tree, since browsers walk here: every answer is a redirect, and what went wrong is a code in the query
`sign_in_error` that the sign-in page puts into words. Authlib makes and checks state, nonce and PKCE, and the ID token.
"""

from __future__ import annotations

import logging
import time
from typing import Any
from urllib.parse import urlencode, urlsplit

from authlib.integrations.django_client import OAuth, OAuthError
from django.conf import settings
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET
from joserfc.errors import ClaimError, JoseError
from requests import RequestException

from portal import logs
from portal.address import client_address
from portal.api.session import open_session
from portal.env import OidcProvider
from tenants.access import RANK
from tenants.audit import record
from tenants.groups import follow_groups
from tenants.identities import person_of
from tenants.models import AuditResult, Role, User

log = logging.getLogger(__name__)

# A person has this long at the provider, in seconds.
LONGEST_SIGN_IN = 900
# Seconds the provider's description and keys are kept; an unknown key is asked for at once.
KEPT = 600
TIMEOUT = 5
# Seconds the provider's clock may differ from ours.
LEEWAY = 30
# Never `none`, and no HMAC: its key would be the client's secret, which others may have been shown.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")

# Codes of `sign_in_error`, and of refused sign-ins in the audit. The page has words for each (frontend/src/i18n).
OFF = "oidc_off"
AWAY = "oidc_away"
STATE = "oidc_state"
DENIED = "oidc_denied"
REFUSED = "oidc_refused"
SWITCHED_OFF = "oidc_switched_off"


class SignInRefused(Exception):
    """The sign-in ends here, with a code from above. A new attempt may help, except for SWITCHED_OFF and OFF."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


_clients: dict[OidcProvider, tuple[float, Any]] = {}


def _client(provider: OidcProvider) -> Any:
    """Authlib's client, thrown away with what it learnt of the provider after KEPT seconds."""
    made, client = _clients.get(provider, (0.0, None))
    if client is None or time.monotonic() - made > KEPT:
        client = OAuth().register(
            "berth",
            client_id=provider.client_id,
            client_secret=provider.client_secret,
            server_metadata_url=provider.issuer.rstrip("/") + "/.well-known/openid-configuration",
            client_kwargs={
                "scope": " ".join(provider.scopes), "code_challenge_method": "S256", "default_timeout": TIMEOUT,
            },
        )  # fmt: skip
        _clients[provider] = (time.monotonic(), client)
    return client


def _described(client: Any, provider: OidcProvider) -> None:
    """Read what the provider says of itself. Raises SignInRefused when it cannot be reached or is another one."""
    try:
        metadata = client.load_server_metadata()
        offered = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
        complete = all(metadata.get(key) for key in ("authorization_endpoint", "token_endpoint", "jwks_uri"))
    except (RequestException, TypeError, AttributeError) as error:
        raise _away(error) from error
    # Discovery 4.3: the issuer must be exactly the one asked.
    if metadata.get("issuer") != provider.issuer or not complete:
        _clients.pop(provider, None)
        log.error(
            "the OpenID Connect provider is not the one of BERTH_OIDC_ISSUER, or names no addresses",
            extra={"expected": provider.issuer, "found": str(metadata.get("issuer"))[:200]},
        )
        raise SignInRefused(AWAY)
    # From here on Authlib accepts these and no others.
    metadata["id_token_signing_alg_values_supported"] = [name for name in offered if name in ALGORITHMS]
    if not metadata["id_token_signing_alg_values_supported"]:
        log.error("the OpenID Connect provider signs with no algorithm accepted here", extra={"known": ALGORITHMS})
        raise SignInRefused(AWAY)


def _away(error: Exception) -> SignInRefused:
    # Its text may hold an address with a query.
    log.error("the OpenID Connect provider does not answer as it should", extra={"why": type(error).__name__})
    return SignInRefused(AWAY)


def safe_next(asked: str) -> str:
    """`asked` if it is the address of one of our pages, else the first page."""
    ours = asked.startswith("/") and url_has_allowed_host_and_scheme(asked, allowed_hosts=None)
    # Not the API, and not here again: that would be a circle.
    if not ours or len(asked) > 2000 or urlsplit(asked).path.startswith(("/api/", "/auth/")):
        return "/"
    return asked


def _to_page(next: str, code: str) -> HttpResponseRedirect:
    path, _, query = next.partition("#")[0].partition("?")
    return HttpResponseRedirect(path + "?" + (f"{query}&" if query else "") + urlencode({"sign_in_error": code}))


def _own_address(request: HttpRequest) -> str:
    """Where the provider sends the browser back. Behind a proxy that ends TLS, the request itself looks like HTTP."""
    scheme = "https" if settings.SECURE_COOKIES else request.scheme
    return f"{scheme}://{request.get_host()}{reverse('oidc-callback')}"


@require_GET
@never_cache
def begin(request: HttpRequest) -> HttpResponse:
    """Send the browser to the provider. `next` is the page to show afterwards."""
    next = safe_next(request.GET.get("next", "/"))
    provider = settings.OIDC
    if provider is None:
        return _to_page(next, OFF)
    client = _client(provider)
    try:
        _described(client, provider)
    except SignInRefused as refusal:
        return _to_page(next, refusal.code)
    made = client.create_authorization_url(_own_address(request))
    client.save_authorize_data(
        request, redirect_uri=_own_address(request), next=next, started=time.time(), **made
    )  # fmt: skip
    return HttpResponseRedirect(made["url"])


@require_GET
@never_cache
def callback(request: HttpRequest) -> HttpResponse:
    """The browser comes back, with a code or with the provider's refusal."""
    provider = settings.OIDC
    if provider is None:
        return _to_page("/", OFF)
    client = _client(provider)
    # 1. It must be a sign-in this browser began. What nobody began leaves no row: anybody could fill the table.
    state = request.GET.get("state", "")
    began = client.framework.get_state_data(request.session, state)
    if began is None:
        return _to_page("/", STATE)
    try:
        # 2. What the provider says, checked.
        try:
            if time.time() - began["started"] > LONGEST_SIGN_IN:
                raise SignInRefused(STATE)
            claims = _claims(request, client, provider)
        finally:
            # Once only, whatever becomes of it. Authlib forgets it too, but not when the provider refused.
            client.framework.clear_state_data(request.session, state)
        # 3. Who that is here.
        _sign_in(request, provider, claims)
    except SignInRefused as refusal:
        _note(request, provider, AuditResult.REFUSED, code=refusal.code)
        return _to_page(began["next"], refusal.code)
    return HttpResponseRedirect(began["next"])


def _claims(request: HttpRequest, client: Any, provider: OidcProvider) -> dict[str, Any]:
    """The claims of a valid ID token. Raises SignInRefused."""
    if request.GET.get("error"):
        log.warning("the OpenID Connect provider refused", extra={"why": request.GET["error"][:60]})
        raise SignInRefused(DENIED if request.GET["error"] == "access_denied" else REFUSED)
    _described(client, provider)
    try:
        token = client.authorize_access_token(
            request, leeway=LEEWAY,
            # Authlib insists on these only when told.
            claims_options={
                "iss": {"essential": True, "value": provider.issuer},
                "aud": {"essential": True, "value": provider.client_id},
                "exp": {"essential": True},
            },
        )  # fmt: skip
    except (OAuthError, JoseError) as error:
        # Neither type holds a token; a claim is named without its value.
        claim = error.claim if isinstance(error, ClaimError) else ""
        log.warning("a sign-in with OpenID Connect failed", extra={"why": type(error).__name__, "claim": claim})
        raise SignInRefused(REFUSED) from error
    except (RequestException, TypeError, ValueError, KeyError) as error:
        raise _away(error) from error
    # `userinfo` is what Authlib read from the ID token; without that one it would be anybody's word.
    claims: dict[str, Any] = dict(token["userinfo"]) if "id_token" in token else {}
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255 or not subject.isprintable():
        log.warning("a sign-in with OpenID Connect failed", extra={"why": "no usable ID token or subject"})
        raise SignInRefused(REFUSED)
    return claims


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    return value.strip() if isinstance(value, str) and value.isprintable() else ""


def memberships_of(provider: OidcProvider, claims: dict[str, Any]) -> dict[str, Role]:
    """Tenant's slug to the highest role the person's groups give there."""
    said = claims.get(provider.groups_claim)
    # Some providers write a single group without a list. No claim is no groups: others leave an empty list out.
    groups = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    given = [(tenant, Role(role)) for group, tenant, role in provider.groups if group in groups]
    # The highest comes last, and stays.
    return dict(sorted(given, key=lambda one: RANK[one[1]]))


def _sign_in(request: HttpRequest, provider: OidcProvider, claims: dict[str, Any]) -> None:
    """Find or make the person, let the groups take effect, and open the session. Raises SignInRefused."""
    first, last = _text(claims, "given_name"), _text(claims, "family_name")
    # The person, the memberships and their rows in the audit appear together or not at all.
    with transaction.atomic():
        user = person_of(
            issuer=provider.issuer, subject=claims["sub"], username=_text(claims, "preferred_username"),
            first_name=first or ("" if last else _text(claims, "name")), last_name=last,
        )  # fmt: skip
        if user.service_of_id or not open_session(request, user):
            raise SignInRefused(SWITCHED_OFF)
        for one in follow_groups(user=user, wanted=memberships_of(provider, claims)):
            record(
                action="followGroups", object=f"members/{user.get_username()}", tenant=one.tenant, by=user,
                result=AuditResult.REFUSED if one.refusal else AuditResult.SUCCESS, status=302, code=one.refusal,
                detail={"before": one.before, "role": one.after, "issuer": provider.issuer},
                address=client_address(request), request_id=logs.request_id.get(),
            )  # fmt: skip
        _note(request, provider, AuditResult.SUCCESS, by=user)
    logs.user_id.set(user.pk)


def _note(request: HttpRequest, provider: OidcProvider, result: AuditResult, *, code: str = "",
          by: User | None = None) -> None:  # fmt: skip
    record(
        action="signIn", object="session", result=result, status=302, by=by, code=code,
        detail={"issuer": provider.issuer}, address=client_address(request), request_id=logs.request_id.get(),
    )  # fmt: skip
