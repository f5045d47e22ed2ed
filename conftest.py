"""What the tests of every folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection
from pytest_django.plugin import DjangoDbBlocker

from provisioning.operations.waiting import LISTENER


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
