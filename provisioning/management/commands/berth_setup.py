"""`manage.py berth_setup`: what a new version needs in the database besides its tables. Safe to repeat."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from provisioning.catalog.plans import ensure_plans
from provisioning.clusters.quota import take_stock
from tenants.audit import record_command

COMMAND = "berth_setup"


class Command(BaseCommand):
    help = "Make the built-in plans that do not exist yet; enter clusters from before the quota ledger into it."

    def handle(self, *args: Any, **options: Any) -> None:
        with transaction.atomic():
            made = ensure_plans()
            for name in made:
                record_command(command=COMMAND, action="createPlan", object=f"plans/{name}")
        self.stdout.write(f"{len(made)} plans made.")
        with transaction.atomic():
            entered = take_stock()
            if entered:
                record_command(command=COMMAND, action="takeStock", object="quota", detail={"clusters": entered})
        if entered:
            self.stdout.write(f"{entered} clusters entered into the quota ledger.")
