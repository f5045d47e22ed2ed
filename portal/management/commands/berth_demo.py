"""`manage.py berth_demo`: the tenant `demo` and its owner `alice`, for the demo and for trying Berth out.

Safe to repeat. The password comes from the file BERTH_DEMO_PASSWORD_FILE names; without it one is made and printed,
once, when alice is created.
"""

from __future__ import annotations

import os
import secrets
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from tenants.models import ApiToken, Membership, Role, Tenant, User
from tenants.quota import OVERALL, replace_limits
from tenants.tokens import create_token, revoke_token

TENANT, OWNER, TOKEN = "demo", "alice", "demo"
# Enough for a dozen development clusters; the large plan does not fit, so that the form has something to warn of.
LIMITS = {"clusters": 20, "pods": 100, "cpu": 20_000, "memory": 65_536, "storage": 512_000}
TOKEN_DAYS = 7


class Command(BaseCommand):
    help = "Make the tenant demo with its owner alice; print a new password once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--token-file", type=Path, help="also write a fresh API token of alice here (mode 0600)")

    def handle(self, *args: Any, **options: Any) -> None:
        given = _given_password()
        with transaction.atomic():
            tenant, fresh = Tenant.objects.get_or_create(slug=TENANT, defaults={"name": "Demo"})
            if fresh:
                replace_limits(tenant_id=tenant.pk, limits={(OVERALL, name): most for name, most in LIMITS.items()})
            user, created = User.objects.get_or_create(username=OWNER, defaults={"first_name": "Alice"})
            password = given or (secrets.token_urlsafe(12) if created else None)
            if password is not None and not user.check_password(password):
                user.set_password(password)
                user.save(update_fields=["password"])
            Membership.objects.update_or_create(tenant=tenant, user=user, defaults={"role": Role.OWNER})
            if options["token_file"] is not None:
                # The file holds the one demo token that works: an older one was overwritten with it.
                for old in ApiToken.objects.filter(user=user, name=TOKEN, revoked=None):
                    revoke_token(token=old)
                _, secret = create_token(user=user, name=TOKEN, scopes=["read", "write"], days=TOKEN_DAYS)
                _write_private(options["token_file"], secret)
        if created and given is None:
            self.stdout.write(f"Sign in as {OWNER} with the password {password} (shown only now).")
        else:
            self.stdout.write(f"Tenant {TENANT} with its owner {OWNER} is there.")


def _given_password() -> str | None:
    """The password of BERTH_DEMO_PASSWORD_FILE, None when unset. Raises CommandError, never with the password."""
    path = os.environ.get("BERTH_DEMO_PASSWORD_FILE")
    if not path:
        return None
    try:
        password = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise CommandError(f"BERTH_DEMO_PASSWORD_FILE={path} cannot be read: {error.strerror}.") from error
    if not password:
        raise CommandError(f"BERTH_DEMO_PASSWORD_FILE={path} is empty. Put the password into it.")
    return password


def _write_private(path: Path, secret: str) -> None:
    """Write `secret` to a file only its owner can read, also when the file was there with a wider mode."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise CommandError(f"--token-file {path} cannot be written: {error.strerror}.") from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)
        file.write(secret + "\n")
