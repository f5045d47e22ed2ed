"""Settings from the environment, typed: a wrong value stops the start with the variable's name and the rule."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

from tenants.ids import SLUG

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off"}


def text(name: str, default: str | None = None) -> str:
    """The variable `name`. Raises ImproperlyConfigured when it is unset and there is no default."""
    value = os.environ.get(name, default)
    if value is None:
        raise ImproperlyConfigured(f"{name} is not set. Set it in the environment.")
    return value


def boolean(name: str, default: bool) -> bool:
    """A switch: 1/true/yes/on or 0/false/no/off. Raises ImproperlyConfigured for anything else."""
    value = os.environ.get(name)
    if value is None:
        return default
    if value.lower() in TRUE:
        return True
    if value.lower() in FALSE:
        return False
    raise ImproperlyConfigured(f"{name}={value!r} is not a switch. Use 1 or 0.")


def integer(name: str, default: int, *, minimum: int, maximum: int) -> int:
    """A whole number within limits. Raises ImproperlyConfigured otherwise."""
    value = os.environ.get(name)
    if value is None:
        return default
    try:
        number = int(value)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}={value!r} is not a whole number.") from error
    if not minimum <= number <= maximum:
        raise ImproperlyConfigured(f"{name}={number} is out of range: use {minimum} to {maximum}.")
    return number


def choice(name: str, default: str, choices: tuple[str, ...]) -> str:
    """One of `choices`. Raises ImproperlyConfigured for anything else."""
    value = os.environ.get(name, default)
    if value not in choices:
        raise ImproperlyConfigured(f"{name}={value!r} is none of {', '.join(choices)}.")
    return value


def secret_reference(name: str) -> str:
    """A Secret's "namespace/name", "" when unset. Raises ImproperlyConfigured for anything else."""
    value = os.environ.get(name, "")
    if value and not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", value):
        raise ImproperlyConfigured(f"{name}={value!r} names no Secret. Write namespace/name.")
    return value


def address(name: str) -> str:
    """An http or https address without a slash at its end, "" when unset. Raises ImproperlyConfigured otherwise.

    The value is not repeated, since a refused one may hold a password.
    """
    value = os.environ.get(name, "").strip().rstrip("/")
    if not value:
        return ""
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or "@" in value:
        raise ImproperlyConfigured(
            f"{name} is not an address: write https://host, or http://host:port/path, without user, ? and #."
        )
    return value


def words(name: str, default: str) -> list[str]:
    """A comma-separated list, blanks dropped."""
    return [word.strip() for word in os.environ.get(name, default).split(",") if word.strip()]


def secret(name: str) -> str:
    """A secret: the variable itself, or the content of the file that NAME_FILE points to.

    Raises ImproperlyConfigured, never with the value, when neither is set, the file cannot be read, or it is empty.
    """
    path = os.environ.get(f"{name}_FILE")
    if path is None:
        value = os.environ.get(name, "")
    else:
        try:
            value = Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ImproperlyConfigured(f"{name}_FILE={path!r} cannot be read: {error.strerror}.") from error
    if not value:
        raise ImproperlyConfigured(f"{name} is not set. Set {name}, or {name}_FILE to a file that holds it.")
    return value


def optional_secret(name: str) -> str:
    """The same, "" when neither is set."""
    return secret(name) if os.environ.get(name) or os.environ.get(f"{name}_FILE") else ""


def database(name: str) -> dict[str, object]:
    """A Django database entry from a URL such as postgresql://user:password@host:5432/berth or ...?host=/socket/folder.

    Raises ImproperlyConfigured, never with the password, when it is not PostgreSQL or names no database.
    """
    parts = urlsplit(text(name))
    if parts.scheme not in {"postgresql", "postgres"}:
        raise ImproperlyConfigured(f"{name} must start with postgresql://: Berth relies on its locks and triggers.")
    database_name = unquote(parts.path.lstrip("/"))
    if not database_name:
        raise ImproperlyConfigured(f"{name} names no database: end it with /berth, for example.")
    options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    host = options.pop("host", None) or (parts.hostname or "")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": database_name,
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": host,
        "PORT": str(parts.port or ""),
        "CONN_MAX_AGE": 300,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {**options, "application_name": "berth"},
    }


LOOPBACK = {"localhost", "127.0.0.1", "::1"}
ROLES = ("owner", "developer", "viewer")


@dataclass(frozen=True)
class OidcProvider:
    """An OpenID Connect provider: `groups` maps a group to the memberships (tenant slug, role) it gives."""

    issuer: str
    name: str
    client_id: str
    client_secret: str = field(repr=False)
    scopes: tuple[str, ...]
    groups_claim: str
    groups: tuple[tuple[str, str, str], ...]


def oidc_provider() -> OidcProvider | None:
    """The provider that the BERTH_OIDC_… variables describe, None without BERTH_OIDC_ISSUER.

    Raises ImproperlyConfigured for half a configuration: nobody should find out at the first sign-in.
    """
    if not os.environ.get("BERTH_OIDC_ISSUER"):
        others = sorted(name for name, value in os.environ.items() if name.startswith("BERTH_OIDC_") and value)
        if others:
            raise ImproperlyConfigured(f"{others[0]} is set, but BERTH_OIDC_ISSUER is not. Set both or neither.")
        return None
    issuer = text("BERTH_OIDC_ISSUER")
    parts = urlsplit(issuer)
    local = parts.scheme == "http" and parts.hostname in LOOPBACK
    if not parts.hostname or not (parts.scheme == "https" or local) or parts.query or parts.fragment:
        raise ImproperlyConfigured(
            f"BERTH_OIDC_ISSUER={issuer!r} is not the address of an issuer. Use https://…, exactly as the provider "
            "writes it, without ? and #; http:// is accepted on this machine only."
        )
    scopes = tuple(words("BERTH_OIDC_SCOPES", "openid,profile"))
    if "openid" not in scopes:
        raise ImproperlyConfigured("BERTH_OIDC_SCOPES lacks openid: without it there is no OpenID Connect.")
    return OidcProvider(
        issuer=issuer,
        name=text("BERTH_OIDC_NAME", parts.hostname),
        client_id=_filled("BERTH_OIDC_CLIENT_ID"),
        client_secret=secret("BERTH_OIDC_CLIENT_SECRET"),
        scopes=scopes,
        groups_claim=text("BERTH_OIDC_GROUPS_CLAIM", "groups"),
        groups=_group_map("BERTH_OIDC_GROUPS"),
    )


def _filled(name: str) -> str:
    value = text(name).strip()
    if not value:
        raise ImproperlyConfigured(f"{name} is empty.")
    return value


def _group_map(name: str) -> tuple[tuple[str, str, str], ...]:
    """`group=tenant:role; …`. Semicolons, and the last equals sign, since LDAP names hold commas and equals signs."""
    found = []
    for entry in filter(None, (part.strip() for part in os.environ.get(name, "").split(";"))):
        group, _, membership = entry.rpartition("=")
        tenant, _, role = membership.strip().partition(":")
        if not group.strip() or not re.match(SLUG, tenant) or role not in ROLES:
            raise ImproperlyConfigured(
                f"{name} holds {entry!r}. Write group=tenant:role, entries separated by semicolons; "
                f"the role is one of {', '.join(ROLES)}."
            )
        found.append((group.strip(), tenant, role))
    return tuple(found)
