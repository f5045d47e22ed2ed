"""Which addresses ipreserve holds on a target, and who had them: its ConfigMaps, read by their documented format.

ipreserve is a program of its own whose code is never imported. The format is described in ipreserve/README.md ("What it
writes"); ipreserve/tests/wire.json is the example that the tests of both sides must agree with.
"""

from __future__ import annotations

import ipaddress
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from provisioning.apply import errors
from provisioning.apply.client import JsonObject, KubeClient
from provisioning.apply.door import LABEL_TENANT_ID, moment, path_of

log = logging.getLogger(__name__)

VERSION = 1
PART = "ipreserve.berth.io/part"
CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/ipreserve"
LEGACY_TIME = "%Y-%m-%d-%H:%M:%S"
RELEASED = "released"
# Of the ledger; `released` is ours, for what the history holds.
STATES = ("claimed", "terminating", "freed", "releasing", RELEASED)
ENDS = ("expired", "crowded", "quota", "pressure", "cancelled", "returned", "skipped")
# By which way it was noticed that a pod goes; `kubelet`: announced that it evicts it, `foreign`: written by another
# tool, `found`: barred without a record.
WAYS = ("delete", "evict", "kubelet", "status", "foreign", "found")


@dataclass(frozen=True, kw_only=True)
class Hold:
    """One pod's time with an address, as the ledger or the history tells it.

    `owner` is the controller as `Kind/name`, "" when not known. `first` is when it was claimed, `freed` when the rest
    began, `until` when it ends by time if nothing ends it before, `released` when it ended, and `end` why.
    """

    address: str
    namespace: str
    pod: str
    node: str
    owner: str
    via: str
    state: str
    first: datetime
    freed: datetime | None
    until: datetime | None
    released: datetime | None
    end: str


@dataclass(frozen=True)
class Standing:
    """Whether ipreserve watches deletions on a target, and whether it refuses those it cannot record (`armed`)."""

    installed: bool
    armed: bool


class Unreadable(ValueError):
    """A record is not of the form we know."""


def _time(found: Mapping[str, Any], name: str) -> datetime | None:
    if name not in found:
        return None
    at = datetime.fromisoformat(str(found[name]))
    if at.tzinfo is None:
        raise Unreadable(f"{name}: no time zone")
    return at


def hold_of(address: str, found: object) -> Hold:
    """A record of the ledger or an entry of the history. Raises Unreadable."""
    if not isinstance(found, dict) or found.get("v") != VERSION:
        raise Unreadable(f"not a record of version {VERSION}")
    try:
        first, freed, released = (_time(found, name) for name in ("first", "freed", RELEASED))
        if first is None or not all(isinstance(found[name], str) for name in ("namespace", "pod", "node", "owner")):
            raise Unreadable("first, namespace, pod, node or owner: missing")
        until = freed + timedelta(seconds=float(found["hold"])) if freed and "hold" in found else None
        return Hold(
            address=address, namespace=found["namespace"], pod=found["pod"], node=found["node"], owner=found["owner"],
            via=str(found["via"]), state=RELEASED if released else str(found["state"]), first=first, freed=freed,
            until=until, released=released, end=str(found.get("end", "")),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Unreadable(str(error)) from error


def _hold_of_text(address: str, text: str) -> Hold:
    """The four fields that older tools write: namespace_pod_node_time, in UTC. Raises Unreadable."""
    parts = text.split("_")
    if len(parts) != 4:
        raise Unreadable("not namespace_pod_node_time")
    try:
        first = datetime.strptime(parts[3], LEGACY_TIME).replace(tzinfo=UTC)
    except ValueError as error:
        raise Unreadable(str(error)) from error
    return Hold(
        address=address, namespace=parts[0], pod=parts[1], node=parts[2], owner="", via="foreign", state="claimed",
        first=first, freed=None, until=None, released=None, end="",
    )  # fmt: skip


def _address(key: str) -> str | None:
    """`:` is written as `-` in keys."""
    try:
        return str(ipaddress.ip_address(key.replace("-", ":")))
    except ValueError:
        return None


def ledger_holds(data: Mapping[str, str]) -> list[Hold]:
    """What a ledger's data says. What cannot be read is left out: ipreserve itself keeps it, counts it and alerts."""
    found = []
    for key in sorted({name.removesuffix(".json") for name in data}):
        address = _address(key)
        if address is None:
            continue
        try:
            full = data.get(f"{key}.json")
            found.append(hold_of(address, json.loads(full)) if full is not None else _hold_of_text(address, data[key]))
        except ValueError as error:
            log.warning("ipreserve's record of %s cannot be read: %s", address, error)
    return found


def history_holds(data: Mapping[str, str]) -> list[Hold]:
    """What a history's data says: ended holds, oldest first for each address."""
    found = []
    for key, text in data.items():
        address = _address(key)
        if address is None:
            continue
        try:
            found += [hold_of(address, entry) for entry in json.loads(text)]
        except (ValueError, TypeError) as error:
            log.warning("ipreserve's history of %s cannot be read: %s", address, error)
    return found


def standing(client: KubeClient) -> Standing:
    """Whether deletions are watched. Raises a DoorError."""
    try:
        found = client.get(CONFIGURATION)
    except errors.Absent:
        return Standing(installed=False, armed=False)
    entries = found.get("webhooks") or [{}]
    return Standing(installed=True, armed=entries[0].get("failurePolicy") == "Fail")


def holds_of_tenant(client: KubeClient, *, service: str, namespace: str, tenant_id: str) -> list[Hold]:
    """All holds, running and ended, of addresses that pods of the tenant had. Raises a DoorError.

    `service` is ipreserve's own namespace, whose ConfigMaps speak of all tenants. A hold is the tenant's when it is of
    the tenant's namespace, that namespace bears the tenant's label, and the hold is not older than the namespace: one
    of the same name may have been somebody else's before.
    """
    try:
        owned = client.get(path_of("Namespace", "", namespace))["metadata"]
    except errors.Absent:
        return []
    if (owned.get("labels") or {}).get(LABEL_TENANT_ID) != tenant_id:
        return []
    born = moment(owned["creationTimestamp"])
    maps = _configmaps(client, service)
    ledger = [hold for one in maps if _part(one) == "ledger" for hold in ledger_holds(one.get("data") or {})]
    history = [hold for one in maps if _part(one) == "history" for hold in history_holds(one.get("data") or {})]
    return [hold for hold in _once([*history, *ledger]) if hold.namespace == namespace and hold.first >= born]


def _configmaps(client: KubeClient, service: str) -> list[JsonObject]:
    selector = f"app.kubernetes.io/managed-by=ipreserve,{PART} in (ledger,history)"
    found: list[JsonObject] = client.get(path_of("ConfigMap", service), labelSelector=selector)["items"]
    return found


def _part(one: JsonObject) -> str:
    return str((one["metadata"].get("labels") or {}).get(PART, ""))


def _once(holds: Iterable[Hold]) -> list[Hold]:
    """A hold that is being released stands in both, and for a moment in two shards: the one that ended is right."""
    found: dict[tuple[str, str, datetime], Hold] = {}
    for one in holds:
        found.setdefault((one.address, one.pod, one.first), one)
    return list(found.values())
