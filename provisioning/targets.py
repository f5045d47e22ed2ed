"""What is known of a target, looked up now and then: reachability, nodes, storage classes."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.utils import timezone

from provisioning.apply import door, errors
from provisioning.apply.client import CLIENTS
from provisioning.models import Target


def targets_folder() -> Path:
    """Where kubeconfigs are mounted."""
    return settings.TARGETS_DIR


def discover(target: Target) -> bool:
    """Look at one target and write down what it has; returns whether it answered."""
    found: dict[str, object]
    try:
        client = CLIENTS.get(target.name, source=target.source, folder=targets_folder())
        found = {
            "kubernetes_version": client.get("/version")["gitVersion"],
            "nodes": door.nodes(client),
            "storage_classes": door.storage_classes(client),
            "reachable": True,
            "reason": "",
        }
    except errors.DoorError as error:
        # What was known stays: a target that is away for a minute has not lost its nodes.
        found = {"reachable": False, "reason": f"{error.message} {error.remedy}".strip()}
    found["checked"] = timezone.now()
    Target.objects.filter(pk=target.pk).update(**found)
    return bool(found["reachable"])
