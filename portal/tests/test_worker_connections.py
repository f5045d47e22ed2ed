"""A worker's threads keep their database connection from task to task, and are not harmed by one that broke."""

from __future__ import annotations

import pytest
from celery.fixups.django import DjangoFixup
from celery.signals import task_prerun
from django.db import connection

from portal.celery import app
from provisioning.tasks import sweep
from tenants.models import Tenant

pytestmark = pytest.mark.django_db(transaction=True)


def backend() -> int:
    """The process of PostgreSQL that serves this thread."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid: int = cursor.fetchone()[0]
    return pid


def end_backend(pid: int) -> None:
    """End a connection from the server's side, as a restarted database does."""
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    other.close()


def run_one_task() -> None:
    """What surrounds a task in a worker: Celery's own hooks, and ours."""
    fixup = DjangoFixup(app).worker_fixup
    fixup.on_task_prerun(sweep)
    task_prerun.send(sender=sweep, task_id="one")
    Tenant.objects.count()
    fixup.on_task_postrun(sweep)


def test_tasks_share_their_threads_connection() -> None:
    run_one_task()
    before = backend()
    run_one_task()
    assert backend() == before


def test_a_task_after_the_database_was_restarted_gets_a_connection_that_works() -> None:
    run_one_task()
    ended = backend()
    end_backend(ended)
    run_one_task()
    assert backend() != ended
