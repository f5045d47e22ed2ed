"""`manage.py add_target NAME`: register a Kubernetes cluster whose kubeconfig is in BERTH_TARGETS_DIR."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from provisioning.models import CLUSTER_NAME_RULE, Target
from provisioning.targets import add, targets_folder
from tenants.audit import record_command


class Command(BaseCommand):
    help = "Register a target and look at it once. Safe to repeat."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--title", default="")
        parser.add_argument("--reach", choices=["direct", "port-forward"], default="direct")
        parser.add_argument("--in-cluster", action="store_true", help="the cluster Berth itself runs in")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["name"]
        try:
            CLUSTER_NAME_RULE(name)
        except ValidationError as error:
            raise CommandError(f"{name}: {error.messages[0]}") from error
        source = "in-cluster" if options["in_cluster"] else "file"
        if source == "file" and not (targets_folder() / f"{name}.kubeconfig").exists():
            raise CommandError(f"Put the kubeconfig there first: {targets_folder() / name}.kubeconfig")
        action = "changeTarget" if Target.objects.filter(pk=name).exists() else "registerTarget"

        def note(target: Target) -> None:
            detail = {"uid": target.uid, "source": target.source, "reach": target.reach}
            record_command(command="add_target", action=action, object=f"targets/{name}", detail=detail)

        target = add(name=name, title=options["title"], source=source, reach=options["reach"], note=note)
        if not target.reachable:
            raise CommandError(f"{name} is registered but does not answer: {target.reason}")
        self.stdout.write(f"{name} answers.")
