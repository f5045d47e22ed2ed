"""System checks for mistakes an operator can make; `manage.py check --deploy` or any command shows them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

LOCAL_HOSTS = {"localhost", "127.0.0.1", "[::1]", "testserver"}
SHORTEST_KEY = 32


@register()
def operator_mistakes(app_configs: Sequence[Any] | None, **options: Any) -> list[CheckMessage]:
    """All findings."""
    found: list[CheckMessage] = []
    folder = settings.TARGETS_DIR
    if not folder.is_dir():
        found.append(
            Warning(
                f"The folder of kubeconfigs, {folder}, does not exist: no target can be reached.",
                hint="Mount it, or set BERTH_TARGETS_DIR to the folder that holds <target>.kubeconfig.",
                id="berth.W001",
            )
        )
    elif not os.access(folder, os.R_OK | os.X_OK):
        found.append(
            Error(
                f"The folder of kubeconfigs, {folder}, cannot be read by user {os.getuid()}.",
                hint="Let this user read it; the files in it should be readable by nobody else.",
                id="berth.E001",
            )
        )
    if len(settings.SECRET_KEY) < SHORTEST_KEY:
        found.append(
            Error(
                f"BERTH_SECRET_KEY has {len(settings.SECRET_KEY)} characters; sessions signed with it can be forged.",
                hint='Make one: python -c "import secrets; print(secrets.token_urlsafe(48))"',
                id="berth.E002",
            )
        )
    if "*" in settings.ALLOWED_HOSTS:
        found.append(
            Warning(
                "BERTH_ALLOWED_HOSTS allows every host name.",
                hint="Name the hosts people use, such as berth.example.com.",
                id="berth.W002",
            )
        )
    elif not settings.SECURE_COOKIES and set(settings.ALLOWED_HOSTS) - LOCAL_HOSTS:
        found.append(
            Warning(
                "BERTH_SECURE_COOKIES is off, but other hosts than this machine are served: sessions can be overheard.",
                hint="Serve over HTTPS and remove BERTH_SECURE_COOKIES=0.",
                id="berth.W003",
            )
        )
    wrong = [origin for origin in settings.CSRF_TRUSTED_ORIGINS if "://" not in origin]
    if wrong:
        found.append(
            Error(
                f"BERTH_TRUSTED_ORIGINS holds {wrong[0]}, which has no scheme.",
                hint="Write https://berth.example.com.",
                id="berth.E003",
            )
        )
    return found
