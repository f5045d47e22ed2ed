"""The webhook configurations: what they say, how they are put in place, how they are removed.

They are installed with failurePolicy Ignore, so that nothing is blocked while no webhook runs. A webhook that can write
a reservation arms them: it puts its authority and, on what must not be missed, failurePolicy Fail.
"""

from __future__ import annotations

import base64
import logging
import time
from typing import Any
from urllib.parse import urlsplit

from ipreserve import errors
from ipreserve.certs import SECRET
from ipreserve.kube import JsonObject, Kube
from ipreserve.review import PREFIX, Selector
from ipreserve.settings import SHORT_TIMEOUT_SECONDS, TIMEOUT_SECONDS, Live
from ipreserve.store import HISTORY, MANAGED, NAME, Store

log = logging.getLogger("ipreserve.install")

VALIDATING = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
MUTATING = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
CONFIGURATION, GIVE_BACK = "ipreserve", "ipreserve-give-back"
GIVE_BACK_PATH = "/give-back"
SERVICE = "ipreserve-webhook"
LEASE = "ipreserve-sweeper"
DEPLOYMENTS = (SERVICE, "ipreserve-sweeper")
# Until the pods of the services are gone, which may take their grace period; between two looks.
GONE_SECONDS = 120.0
LOOK_SECONDS = 0.5
# For which nobody else sweeps while all is removed; and how often what came late is removed too.
PURGE_SECONDS = 120
ROUNDS = 5

REAL = {"name": "not-a-dry-run", "expression": "!has(request.dryRun) || !request.dryRun"}
ON_POD_NETWORK = {
    "name": "on-the-pod-network",
    "expression": "!has(oldObject.spec.hostNetwork) || !oldObject.spec.hostNetwork",
}
HAS_ADDRESS = {
    "name": "has-an-address",
    "expression": "has(oldObject.status.podIPs) && size(oldObject.status.podIPs) > 0",
}
OPTED_IN = {
    "name": "opted-in",
    "expression": (
        f"has(oldObject.metadata.annotations) && '{PREFIX}reserve' in oldObject.metadata.annotations "
        f"&& oldObject.metadata.annotations['{PREFIX}reserve'] == 'true'"
    ),
}
LOSES_ADDRESS = {
    "name": "loses-an-address",
    "expression": (
        "!has(object.status.podIPs) "
        "|| oldObject.status.podIPs.exists(was, !object.status.podIPs.exists(is, is.ip == was.ip)) "
        "|| (has(object.status.phase) && object.status.phase in ['Succeeded', 'Failed'] "
        "&& !(has(oldObject.status.phase) && oldObject.status.phase in ['Succeeded', 'Failed']))"
    ),
}
WANTS_BACK = {
    "name": "wants-its-address-back",
    "expression": (
        f"has(object.metadata.annotations) && '{PREFIX}give-back' in object.metadata.annotations "
        f"&& object.metadata.annotations['{PREFIX}give-back'] == 'true'"
    ),
}


def client_config(namespace: str, url: str, path: str) -> dict[str, Any]:
    """How the API server reaches the webhook: its Service, or a URL."""
    if url:
        return {"url": url + path}
    return {"service": {"name": SERVICE, "namespace": namespace, "path": path, "port": 443}}


def server_names(namespace: str, url: str) -> list[str]:
    """The names its certificate must carry."""
    names = [f"{SERVICE}.{namespace}.svc", f"{SERVICE}.{namespace}.svc.cluster.local", "localhost", "127.0.0.1"]
    host = urlsplit(url).hostname if url else None
    return names if host is None or host in names else [*names, host]


def validating(*, namespace: str, url: str = "", live: Live, bundle: bytes = b"", armed: bool = False) -> JsonObject:
    """The three paths, as the API server can select them; pods that opted in by annotation need their own entries.

    An entry with an objectSelector is never called for evictions, since an Eviction has no labels.
    """
    everything = Selector()

    def entry(
        name: str, operation: str, resource: str, objects: Selector, conditions: list[dict[str, str]], *, must: bool
    ) -> dict[str, Any]:
        return _entry(
            f"{name}.ipreserve.berth.io", operation, resource, objects, conditions, live=live, bundle=bundle,
            client=client_config(namespace, url, "/review"), policy="Fail" if must and armed else "Ignore",
            seconds=TIMEOUT_SECONDS if must else SHORT_TIMEOUT_SECONDS,
        )  # fmt: skip

    pod = [REAL, ON_POD_NETWORK, HAS_ADDRESS]
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": CONFIGURATION, "labels": dict(MANAGED)},
        "webhooks": [
            entry("delete", "DELETE", "pods", live.pods, pod, must=True),
            entry("delete-opted-in", "DELETE", "pods", everything, [*pod, OPTED_IN], must=True),
            entry("evict", "CREATE", "pods/eviction", everything, [REAL], must=True),
            entry("status", "UPDATE", "pods/status", live.pods, [*pod, LOSES_ADDRESS], must=False),
            entry("status-opted-in", "UPDATE", "pods/status", everything, [*pod, OPTED_IN, LOSES_ADDRESS], must=False),
        ],
    }


def mutating(*, namespace: str, url: str = "", live: Live, bundle: bytes = b"", word: str = "") -> JsonObject:
    """Giving back: always fail-open, since a pod with any address is better than none.

    The pod does not exist yet, so there is nothing to compare a request with. It is believed for the `word` in its
    path, which only the API server and who may read this configuration know.
    """
    path = f"{GIVE_BACK_PATH}-{word}" if word else GIVE_BACK_PATH
    one = _entry(
        "give-back.ipreserve.berth.io", "CREATE", "pods", Selector(), [REAL, WANTS_BACK], live=live, bundle=bundle,
        client=client_config(namespace, url, path), policy="Ignore",
        seconds=SHORT_TIMEOUT_SECONDS,
    ) | {"reinvocationPolicy": "Never"}  # fmt: skip
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": GIVE_BACK, "labels": dict(MANAGED)},
        "webhooks": [one],
    }


def _entry(
    name: str, operation: str, resource: str, objects: Selector, conditions: list[dict[str, str]], *, live: Live,
    bundle: bytes, client: dict[str, Any], policy: str, seconds: int,
) -> dict[str, Any]:  # fmt: skip
    if bundle:
        client = client | {"caBundle": base64.b64encode(bundle).decode()}
    return {
        "name": name,
        "clientConfig": client,
        "rules": [
            {
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "operations": [operation],
                "resources": [resource],
                "scope": "Namespaced",
            }
        ],
        "failurePolicy": policy,
        "matchPolicy": "Equivalent",
        "namespaceSelector": live.namespaces.manifest(),
        "objectSelector": objects.manifest(),
        "sideEffects": "NoneOnDryRun",
        "timeoutSeconds": seconds,
        "admissionReviewVersions": ["v1"],
        "matchConditions": conditions,
    }


# --- putting in place -----------------------------------------------------------------------------------------------


def install(kube: Kube, *, namespace: str, url: str, give_back: bool) -> list[str]:
    """Create or replace the configurations, unarmed; returns what was done. Raises ApiError."""
    done: list[str] = []
    try:
        kube.get(f"/api/v1/namespaces/{namespace}")
    except errors.NotFound:
        kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        done.append(f"namespace {namespace}: created")
    wanted = [(VALIDATING, validating(namespace=namespace, url=url, live=Live()))]
    if give_back:
        wanted.append((MUTATING, mutating(namespace=namespace, url=url, live=Live())))
    for collection, manifest in wanted:
        name = manifest["metadata"]["name"]
        try:
            before = kube.get(f"{collection}/{name}")
        except errors.NotFound:
            kube.request("POST", collection, manifest)
            done.append(f"{manifest['kind']} {name}: created; a webhook that is ready arms it within seconds")
            continue
        manifest["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"]
        kube.request("PUT", f"{collection}/{name}", manifest)
        done.append(f"{manifest['kind']} {name}: replaced; a webhook that is ready arms it within seconds")
    return done


def arm(
    kube: Kube, *, namespace: str, live: Live, bundle: bytes, word: str, trust_only: bool = False
) -> bool:  # fmt: skip
    """Make the installed configurations trust `bundle` and select what `live` says; whether there are any.

    With `trust_only` they trust it and are else left as they are, and those that trust nobody yet are left alone.
    Called again and again by every ready webhook: it writes only what differs. Raises ApiError.
    """
    found = False
    for collection, name in ((VALIDATING, CONFIGURATION), (MUTATING, GIVE_BACK)):
        try:
            before = kube.get(f"{collection}/{name}")
        except errors.NotFound:
            continue
        found = found or name == CONFIGURATION
        url = _url(before)
        if name == CONFIGURATION:
            wanted = validating(namespace=namespace, url=url, live=live, bundle=bundle, armed=True)
        else:
            wanted = mutating(namespace=namespace, url=url, live=live, bundle=bundle, word=word)
        if trust_only:
            wanted = {"webhooks": [_trusting(one, bundle) for one in before.get("webhooks") or ()]}
        if before["webhooks"] != wanted["webhooks"]:
            body = {**before, "webhooks": wanted["webhooks"]}
            try:
                kube.request("PUT", f"{collection}/{name}", body)
            except errors.Conflict:
                # Another replica was faster, with the same.
                continue
            log.info("%s: armed", name)
    return found


def _trusting(entry: dict[str, Any], bundle: bytes) -> dict[str, Any]:
    """The same, where it trusts somebody, with whom to trust now."""
    config = entry.get("clientConfig") or {}
    if not config.get("caBundle"):
        return entry
    return {**entry, "clientConfig": {**config, "caBundle": base64.b64encode(bundle).decode()}}


def _url(configuration: JsonObject) -> str:
    """The URL of an installed configuration without its path; empty when it names the Service."""
    url = str(configuration["webhooks"][0]["clientConfig"].get("url", "")) if configuration.get("webhooks") else ""
    return url.rpartition("/")[0]


def is_installed(kube: Kube) -> bool:
    """Whether the API server asks about deletions at all. Raises ApiError, Unreachable."""
    try:
        kube.get(f"{VALIDATING}/{CONFIGURATION}")
    except errors.NotFound:
        return False
    return True


def uninstall(kube: Kube, store: Store | None, *, namespace: str, purge: bool) -> list[str]:
    """Remove the configurations first, so that nothing is blocked from then on; with `purge` all that was written.

    What runs would write some of it again, and an address that is barred anew when no sweeper follows is barred for
    ever. So a purge ends the services before: it deletes their Deployments, waits for their pods, and takes the Lease.
    It stops where a sweeper runs elsewhere; all of it can be done again. Raises ApiError, Unreachable, StillRunning.
    """
    done: list[str] = []

    def remove(path: str) -> bool:
        try:
            kube.request("DELETE", path)
        except errors.NotFound:
            return False
        done.append(f"removed {path.rpartition('/')[0].rpartition('/')[2]} {path.rpartition('/')[2]}")
        return True

    remove(f"{VALIDATING}/{CONFIGURATION}")
    remove(f"{MUTATING}/{GIVE_BACK}")
    if not purge or store is None:
        return done
    for name in DEPLOYMENTS:
        remove(f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
    _until_gone(kube, namespace)
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    _take_lease(kube, lease)
    for _ in range(ROUNDS):
        # A deletion that was asked about before may still be answered, and is written then.
        if not [path for path in _written(kube, store) if remove(path)]:
            break
    try:
        store.reservation_paths()
    except errors.NoCalico as error:
        done.append(f"left: {error}")
    remove(f"/api/v1/namespaces/{namespace}/secrets/{SECRET}")
    remove(f"{lease}/{LEASE}")
    return done


def _written(kube: Kube, store: Store) -> list[str]:
    """Where ledgers, histories and IPReservations are: what says who is barred goes before what bars."""
    items, _ = kube.list(store.configmaps, labelSelector="app.kubernetes.io/managed-by=ipreserve")
    names = [str(one["metadata"]["name"]) for one in items]
    found = [f"{store.configmaps}/{name}" for name in names if name.startswith((NAME, HISTORY))]
    try:
        return found + store.reservation_paths()
    except errors.NoCalico:
        return found


def _until_gone(kube: Kube, namespace: str) -> None:
    """Return when no pod of the services is left. Raises StillRunning."""
    end = time.monotonic() + GONE_SECONDS
    while True:
        pods, _ = kube.list(
            f"/api/v1/namespaces/{namespace}/pods",
            labelSelector=f"app.kubernetes.io/name in ({', '.join(DEPLOYMENTS)})",
        )
        if not pods:
            return
        if time.monotonic() > end:
            raise errors.StillRunning(f"pods of the services are still there: {_names(pods)}")
        time.sleep(LOOK_SECONDS)


def _take_lease(kube: Kube, collection: str) -> None:
    """Be the one who may sweep, so that nobody does. Raises StillRunning while somebody renews the Lease."""
    spec: dict[str, Any] = {"holderIdentity": "uninstall", "leaseDurationSeconds": PURGE_SECONDS}
    path, end = f"{collection}/{LEASE}", 0.0
    first: JsonObject | None = None
    while True:
        try:
            raw = kube.get(path)
        except errors.NotFound:
            kube.request("POST", collection, {"metadata": {"name": LEASE}, "spec": spec})
            return
        found = raw.get("spec") or {}
        holder, seconds = found.get("holderIdentity"), float(found.get("leaseDurationSeconds") or 0)
        if holder and first is None:
            first, end = raw, time.monotonic() + seconds
        if first is not None and holder and raw["metadata"] != first["metadata"]:
            raise errors.StillRunning(f"the sweeper {holder} runs and renews its Lease")
        if not holder or holder == spec["holderIdentity"] or time.monotonic() > end:
            # With the version that was read inside: a sweeper that came first makes this a conflict.
            kube.request("PUT", path, {**raw, "spec": {**found, **spec}})
            return
        time.sleep(LOOK_SECONDS)


def _names(objects: list[JsonObject]) -> str:
    return ", ".join(sorted(str(one["metadata"]["name"]) for one in objects))
