"""The one place that imports the Kubernetes client: kubeconfig and sign-in are its, the requests are plain.

Plain requests over its pool because the generated models cost more time than the API server does, and because
server-side apply takes any object without a class for it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
import yaml
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config
from kubernetes.stream import portforward

from provisioning.apply import errors

CONNECT_SECONDS = 3.0
READ_SECONDS = 15.0
POOL_SIZE = 24
FIELD_MANAGER = "berth"
# A Status message may quote an object; more than this helps nobody.
MESSAGE_LIMIT = 256

JsonObject = dict[str, Any]


class KubeClient:
    """Requests to one API server. Safe to share between threads.

    `threads` runs requests side by side. They are the target's own, so that a target that does not answer holds up
    nobody else, and kept, since starting them takes longer than a request. Only single requests go there: work that
    waits for other work in it could wait for ever.
    """

    def __init__(self, api: kubernetes_client.ApiClient) -> None:
        self.api = api
        # Which cluster it leads to, once somebody has asked.
        self.uid: str | None = None
        self.threads = ThreadPoolExecutor(POOL_SIZE, thread_name_prefix="target")

    @classmethod
    def from_kubeconfig(cls, path: Path) -> KubeClient:
        """From a kubeconfig file. Raises NoKubeconfig, which names the file and never its content."""
        configuration = kubernetes_client.Configuration()
        configuration.connection_pool_maxsize = POOL_SIZE
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            api = kubernetes_config.new_client_from_config_dict(  # type: ignore[no-untyped-call]
                content, persist_config=False, client_configuration=configuration
            )
        except OSError as error:
            raise errors.NoKubeconfig(f"{path.name} cannot be read: {error.strerror}.") from error
        except (yaml.YAMLError, kubernetes_config.ConfigException, AttributeError, TypeError, ValueError) as error:
            raise errors.NoKubeconfig(f"{path.name} is not a usable kubeconfig.") from error
        return cls(api)

    @classmethod
    def in_cluster(cls) -> KubeClient:
        """From the service account of the pod we run in. Raises NoKubeconfig outside a cluster."""
        configuration = kubernetes_client.Configuration()
        configuration.connection_pool_maxsize = POOL_SIZE
        try:
            kubernetes_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except kubernetes_config.ConfigException as error:
            raise errors.NoKubeconfig("Berth does not run inside a Kubernetes cluster.") from error
        return cls(kubernetes_client.ApiClient(configuration))

    def _open(
        self, method: str, path: str, *, body: bytes | None, query: Mapping[str, str] | None, content_type: str,
        read_seconds: float, stream: bool,
    ) -> urllib3.BaseHTTPResponse:  # fmt: skip
        headers = {"Accept": "application/json", "Content-Type": content_type}
        try:
            # Runs the kubeconfig's exec plugin or rereads a token when it has expired.
            self.api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        except kubernetes_config.ConfigException as error:
            raise errors.Unauthorized("The kubeconfig's login program failed.") from error
        url = self.api.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        pool: urllib3.PoolManager = self.api.rest_client.pool_manager
        try:
            return pool.request(
                method,
                url,
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=read_seconds),
                retries=urllib3.Retry(total=0, redirect=0),
                preload_content=not stream,
            )
        except urllib3.exceptions.HTTPError as error:
            raise errors.Unreachable(f"The target's API server does not answer ({_why(error)}).") from error

    def request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> JsonObject:  # fmt: skip
        """One request; returns the decoded answer. Raises a DoorError."""
        data = None if body is None else json.dumps(body).encode()
        answer = self._open(
            method, path, body=data, query=query, content_type=content_type, read_seconds=READ_SECONDS, stream=False
        )
        if answer.status >= 400:
            raise refusal(answer.status, answer.data, applying=method == "PATCH")
        decoded: JsonObject = json.loads(answer.data)
        return decoded

    def get(self, path: str, **query: str) -> JsonObject:
        """GET."""
        return self.request("GET", path, query=query)

    def apply(
        self, path: str, manifest: Mapping[str, Any], *, dry_run: bool = False, over_others: bool = False
    ) -> JsonObject:  # fmt: skip
        """Server-side apply of one object, never by force. Raises FieldConflict when another manager owns a field.

        `dry_run`: the API server checks and completes the object, runs admission, and stores nothing. Only then does
        `over_others` ask what it would be if fields of other managers were taken over.
        """
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if dry_run and over_others else "false"}
        if dry_run:
            query["dryRun"] = "All"
        return self.request("PATCH", path, manifest, query=query, content_type="application/apply-patch+yaml")

    def watch(self, path: str, *, resource_version: str, selector: str, seconds: int) -> Iterator[JsonObject]:
        """Watch events from `resource_version` on, for at most `seconds`. Raises Expired when it is too old."""
        query = {
            "watch": "1", "resourceVersion": resource_version, "allowWatchBookmarks": "true",
            "labelSelector": selector, "timeoutSeconds": str(seconds),
        }  # fmt: skip
        answer = self._open(
            "GET", path, body=None, query=query, content_type="application/json", read_seconds=seconds + 10, stream=True
        )
        try:
            if answer.status >= 400:
                raise refusal(answer.status, answer.read(), applying=False)
            rest = b""
            for chunk in answer.stream(1 << 16, decode_content=True):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event: JsonObject = json.loads(line)
                    if event["type"] == "ERROR":
                        code = event["object"].get("code", 500)
                        raise refusal(code, json.dumps(event["object"]).encode(), applying=False)
                    yield event
        except urllib3.exceptions.HTTPError as error:
            raise errors.Unreachable(f"The watch broke ({_why(error)}).") from error
        finally:
            answer.close()

    def forward(self, namespace: str, pod: str, port: int) -> Any:
        """A socket to a pod's port through the API server. Raises Unreachable."""
        core = kubernetes_client.CoreV1Api(self.api)
        try:
            forwarded = portforward(core.connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port))
            return forwarded.socket(port)
        except (kubernetes_client.ApiException, OSError, ValueError) as error:
            raise errors.Unreachable(f"No port-forward to {pod}:{port}.") from error


def _why(error: urllib3.exceptions.HTTPError) -> str:
    reason = getattr(error, "reason", None) or error
    text = type(reason).__name__
    return {
        "NewConnectionError": "connection refused or no route",
        "ConnectTimeoutError": "no connection within 3 s",
        "ReadTimeoutError": "no answer within 15 s",
        "NameResolutionError": "its name does not resolve",
        "SSLError": "its certificate is not accepted",
    }.get(text, text)


def refusal(status: int, content: bytes, *, applying: bool) -> errors.DoorError:
    """The error for an answer of 4xx or 5xx. Text that is no Kubernetes Status is dropped: it may hold anything."""
    try:
        decoded = json.loads(content)
    except ValueError:
        decoded = {}
    message = ""
    if isinstance(decoded, dict) and decoded.get("kind") == "Status":
        message = str(decoded.get("message", ""))[:MESSAGE_LIMIT]
    message = message or f"The API server answered {status}."
    kinds: dict[int, type[errors.DoorError]] = {
        400: errors.Rejected, 401: errors.Unauthorized, 403: errors.Denied, 404: errors.Absent,
        409: errors.FieldConflict if applying else errors.Taken, 410: errors.Expired, 422: errors.Rejected,
        429: errors.Throttled, 503: errors.Throttled, 504: errors.Throttled,
    }  # fmt: skip
    kind = kinds.get(status, errors.DoorError)
    if kind is errors.Unauthorized:
        message = "The target does not accept Berth's credentials: they are wrong or have expired."
    return kind(message)


class Clients:
    """One client per target, made anew when its kubeconfig file changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, KubeClient]] = {}

    def get(self, name: str, *, source: str, folder: Path) -> KubeClient:
        """The client of a target. Raises NoKubeconfig."""
        path = folder / f"{name}.kubeconfig"
        try:
            stamp = 0.0 if source == "in-cluster" else path.stat().st_mtime
        except OSError as error:
            raise errors.NoKubeconfig(f"There is no {path.name} in BERTH_TARGETS_DIR.") from error
        with self._lock:
            kept = self._kept.get(name)
            if kept is not None and kept[0] == stamp:
                return kept[1]
            made = KubeClient.in_cluster() if source == "in-cluster" else KubeClient.from_kubeconfig(path)
            self._kept[name] = (stamp, made)
            return made

    def drop(self, name: str) -> None:
        """Forget the client of a target that is gone or has another kubeconfig."""
        with self._lock:
            self._kept.pop(name, None)


CLIENTS = Clients()
