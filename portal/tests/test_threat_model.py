"""docs/threat-model.md names the tests that hold its lines: each of them exists."""

from __future__ import annotations

import re

from django.conf import settings

NAME = re.compile(r"\btest_[a-z0-9_]+")


def test_every_test_the_threat_model_names_exists() -> None:
    text = (settings.BASE_DIR / "docs" / "threat-model.md").read_text(encoding="utf-8")
    named = {name for name in NAME.findall(text) if not text.count(f"{name}.py")}
    folders = (
        "portal/tests", "tenants/tests", "provisioning/tests", "provisioning/engines/redis/tests", "ipreserve/tests",
        "tests",
    )  # fmt: skip
    sources = [path for folder in folders for path in (settings.BASE_DIR / folder).glob("test_*.py")]
    defined = {name for path in sources for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)}
    assert named
    assert named - defined == set()


def test_every_promise_names_a_test() -> None:
    text = (settings.BASE_DIR / "docs" / "threat-model.md").read_text(encoding="utf-8")
    promises = text.split("## Between tenants")[1].split("## Known and accepted")[0]
    rows = [
        line for line in promises.splitlines() if line.startswith("|") and not line.startswith(("|---", "| promise"))
    ]
    assert rows
    assert [row for row in rows if not NAME.search(row)] == []
