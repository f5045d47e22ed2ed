"""`manage.py berth_setup`: the plans that come with Berth. Safe to repeat."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from provisioning.catalog.plans import ensure_plans


class Command(BaseCommand):
    help = "Make the built-in plans that do not exist yet."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(f"{ensure_plans()} plans made.")
