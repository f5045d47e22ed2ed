"""What the tests of every folder share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from pytest_django.plugin import DjangoDbBlocker
from xdist.scheduler import LoadScopeScheduling

from provisioning.operations.waiting import LISTENER

# Of these folders, all tests go to one process of a run of two (`make test`): the first have one embedded target, the
# last share a webhook. Any other file goes to whoever is free.
TOGETHER = {"tests/e2e/": "target", "sandbox/": "target", "ipreserve/": "ipreserve"}


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """Whole files to processes. (xdist's own groups by mark do nothing with pytest 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        path: str = nodeid.partition("::")[0]
        return next((group for folder, group in TOGETHER.items() if path.startswith(folder)), path)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Called by xdist."""
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that the other process has all the rest meanwhile."""
    items.sort(key=lambda item: not item.nodeid.startswith(tuple(TOGETHER)[:2]))


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Tests with real transactions end by emptying all tables, which the audit and the ledger refuse. Only these
    triggers are off, only here; their own tests turn them on again.
    """
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute("ALTER TABLE tenants_auditevent DISABLE TRIGGER tenants_audit_keep_table")
        cursor.execute("ALTER TABLE tenants_ledgerentry DISABLE TRIGGER tenants_ledger_keep_table")
    yield
    # Its connection would keep the test database from being removed.
    LISTENER.close()
