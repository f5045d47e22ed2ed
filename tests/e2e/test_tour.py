"""docs/api.md and docs/administration.md are sessions to paste into a shell: they are pasted here, whole."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from dev.stack import Stack

pytestmark = pytest.mark.sandbox

DOCS = Path(__file__).resolve().parents[2] / "docs"
DEADLINE_SECONDS = 300


def pasted(name: str, environment: Mapping[str, str]) -> str:
    """What the shell blocks of a page print, run one after the other in one shell; a command that fails ends them."""
    text = (DOCS / name).read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ran = subprocess.run(
        ["bash", "-euo", "pipefail"], input="\n".join(blocks), env={**os.environ, **environment}, capture_output=True,
        text=True, timeout=DEADLINE_SECONDS,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    return ran.stdout


def test_the_tour_of_the_api_works_as_it_is_written(stack: Stack) -> None:
    told = pasted("api.md", {"BERTH": stack.url, "BERTH_USER": "alice", "BERTH_PASSWORD": stack.password})
    for said in ("redis-dev", "Wrote and read", '"role": "master"', "from the tour", "bad_name", "not_paused"):
        assert said in told


def test_a_platform_is_administered_over_http_as_it_is_written(stack: Stack) -> None:
    password = secrets.token_urlsafe(12)
    stack.portal.environment["DJANGO_SUPERUSER_PASSWORD"] = password
    try:
        stack.portal.manage("createsuperuser", "--noinput", "--username", "root", "--email", "")
    finally:
        del stack.portal.environment["DJANGO_SUPERUSER_PASSWORD"]
    told = pasted(
        "administration.md", {"BERTH": stack.url, "BERTH_ADMIN": "root", "BERTH_ADMIN_PASSWORD": password}
    )  # fmt: skip
    for said in (
        "dora", "clusters 2", "shop: viewer", '{"fits":true}', "rights: true", "quota_exceeded", "pods short by",
        "create succeeded", "setQuotaLimits refused stale_revision", "createCluster clusters/carts", "suspendTenant: 1",
    ):  # fmt: skip
        assert said in told
    # What was shown once is nowhere else.
    assert password not in told
