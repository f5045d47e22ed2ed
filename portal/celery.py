"""The Celery application. Tasks live in provisioning/tasks.py and portal/tasks.py."""

from __future__ import annotations

import gc
import os

from celery import Celery
from celery.signals import task_prerun, worker_ready
from django.db import close_old_connections

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

app = Celery("berth")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["provisioning", "portal"])


@task_prerun.connect
def check_connections(**_: object) -> None:
    """As at the beginning of a request: a connection that broke or is too old is not used again."""
    close_old_connections()


@worker_ready.connect
def settle_memory(**_: object) -> None:
    """What was loaded at the start stays for good: searching it for garbage again and again only makes tasks wait."""
    gc.collect()
    gc.freeze()
