"""What the tests of every folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection
from pytest_django.plugin import DjangoDbBlocker

from provisioning.operations.waiting import LISTENER


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For runs of two processes (`make test`): everything on the embedded target stays in one of them, which starts it
    once, and begins first, since it takes longest; ipreserve's tests share a webhook, and the rest goes file by file to
    whoever is free.
    """
    items.sort(key=lambda item: not _is_on_target(item))
    for item in items:
        folder = item.path.relative_to(item.config.rootpath).parts[0]
        group = "target" if _is_on_target(item) else folder if folder == "ipreserve" else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


def _is_on_target(item: pytest.Item) -> bool:
    return bool({"cluster", "calico_cluster", "stack"} & set(getattr(item, "fixturenames", ())))


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
