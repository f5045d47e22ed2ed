"""`manage.py berth_setup`: what a new version needs in the database besides its tables. Safe to repeat."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from provisioning.catalog.plans import ensure_plans
from provisioning.clusters.quota import take_stock


class Command(BaseCommand):
    help = "Make the built-in plans that do not exist yet; enter clusters from before the quota ledger into it."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(f"{ensure_plans()} plans made.")
        entered = take_stock()
        if entered:
            self.stdout.write(f"{entered} clusters entered into the quota ledger.")
