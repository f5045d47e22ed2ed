"""Settings from the environment, typed: a wrong value stops the start with the variable's name and the rule."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

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
