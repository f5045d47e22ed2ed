"""What fires about a cluster now, as Alertmanager says."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import urllib3
from django.conf import settings

from provisioning.clusters.monitoring import labels_of
from provisioning.models import Cluster
from tenants.refusals import Unavailable

SECONDS = 3.0
# More than rules could fire about the largest cluster; what is longer is not an answer for us.
LARGEST_ANSWER = 4_000_000
SEVERITIES = ("critical", "warning", "info")
# Of Alertmanager's alerts: told to somebody, silenced by a person, or muted by another alert.
STATES = ("firing", "silenced", "muted")

log = logging.getLogger(__name__)
_pool = urllib3.PoolManager(maxsize=4)


@dataclass(frozen=True)
class Alert:
    """One alert. `labels` are those beyond the cluster's own, such as pod; texts are the rule's, "" without one."""

    id: str
    name: str
    severity: str
    state: str
    since: datetime
    summary: str
    description: str
    runbook: str
    labels: Mapping[str, str]


def alerts_of(cluster: Cluster) -> list[Alert] | None:
    """Alerts about a cluster that fire now; None when no Alertmanager is configured. Wants `tenant` loaded.

    Raises Unavailable when Alertmanager does not answer as one.
    """
    if not settings.ALERTMANAGER_URL:
        return None
    whose = {key: value for key, value in labels_of(cluster).items() if key in ("target", "tenant", "cluster")}
    # Names and slugs: nothing in them needs escaping.
    filters = [("filter", f'{key}="{value}"') for key, value in whose.items()]
    headers = {"Accept": "application/json"}
    if settings.ALERTMANAGER_TOKEN:
        headers["Authorization"] = f"Bearer {settings.ALERTMANAGER_TOKEN}"
    try:
        answer = _pool.request(
            "GET", f"{settings.ALERTMANAGER_URL}/api/v2/alerts?{urlencode(filters)}", headers=headers, timeout=SECONDS,
            retries=False, redirect=False, preload_content=False,
        )  # fmt: skip
        try:
            body = answer.read(LARGEST_ANSWER + 1)
        finally:
            answer.release_conn()
        if answer.status != 200 or len(body) > LARGEST_ANSWER:
            raise ValueError(f"status {answer.status}, {len(body)} bytes")
        found = [_alert(one, whose) for one in json.loads(body) if whose.items() <= one["labels"].items()]
    except (urllib3.exceptions.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("Alertmanager gives no alerts: %s", error)
        raise Unavailable(
            "monitoring_unreachable", "Alertmanager does not answer; its log and ours say why."
        ) from error
    return found


def _alert(one: Mapping[str, Any], whose: Mapping[str, str]) -> Alert:
    labels = {str(key): str(value) for key, value in one["labels"].items()}
    said, status = one["annotations"], one["status"]
    state = "silenced" if status["silencedBy"] else "muted" if status["inhibitedBy"] else "firing"
    known = {*whose, "alertname", "severity"}
    return Alert(
        id=one["fingerprint"],
        name=labels.get("alertname", ""),
        severity=labels.get("severity", ""),
        state=state,
        since=datetime.fromisoformat(one["startsAt"]),
        summary=said.get("summary", ""),
        description=said.get("description", ""),
        runbook=said.get("runbook_url", ""),
        labels={key: value for key, value in labels.items() if key not in known},
    )
