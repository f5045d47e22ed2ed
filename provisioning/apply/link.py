"""The `Link` engines speak through: sockets where pod addresses are routable, port-forwards elsewhere."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from provisioning.apply import door, errors
from provisioning.apply.client import KubeClient
from provisioning.engines.base import LinkError, PodView


@dataclass(frozen=True)
class Noted:
    """An event an engine recorded; reconcile writes it down."""

    reason: str
    message: str
    warning: bool
    object: str


class KubeLink:
    """See engines.base.Link."""

    def __init__(self, client: KubeClient, namespace: str, reach: Literal["direct", "port-forward"]) -> None:
        self.client = client
        self.namespace = namespace
        self.reach = reach
        self.noted: list[Noted] = []
        self._secrets: dict[str, Mapping[str, str]] = {}

    def connect(self, pod: PodView, port: int, *, timeout: float = 2.0) -> socket.socket:
        """Connect to one pod."""
        if self.reach == "port-forward":
            return self._forwarded(pod.name, port, timeout)
        return self._dial(pod.ip, port, timeout, f"pod {pod.name}")

    def connect_service(self, service: str, port: int, *, timeout: float = 2.0) -> socket.socket:
        """Connect to the advertised address; by port-forward, to one of the pods behind it."""
        try:
            found = self.client.get(door.path_of("Service", self.namespace, service))
            if self.reach == "port-forward":
                selector = ",".join(f"{key}={value}" for key, value in found["spec"]["selector"].items())
                pods = self.client.get(door.path_of("Pod", self.namespace), labelSelector=selector)["items"]
                ready = [pod for pod in (door.pod_view(item, {}) for item in pods) if pod.ready]
                if not ready:
                    raise LinkError(f"no pod behind the Service {service} is ready")
                return self._forwarded(ready[0].name, port, timeout)
        except errors.DoorError as error:
            raise LinkError(f"the Service {service} cannot be read: {error.message}") from error
        return self._dial(found["spec"]["clusterIP"], port, timeout, f"Service {service}")

    def secret(self, name: str) -> Mapping[str, str]:
        """Read a Secret, once per link."""
        if name not in self._secrets:
            try:
                self._secrets[name] = door.read_secret(self.client, self.namespace, name)
            except errors.DoorError as error:
                raise LinkError(f"the Secret {name} cannot be read: {error.message}") from error
        return self._secrets[name]

    def event(self, reason: str, message: str, *, warning: bool = False, object: str = "") -> None:
        """Keep an event for reconcile to write."""
        self.noted.append(Noted(reason, message, warning, object))

    def _dial(self, address: str, port: int, timeout: float, what: str) -> socket.socket:
        try:
            return socket.create_connection((address, port), timeout=timeout)
        except OSError as error:
            raise LinkError(f"{what} does not answer at {address}:{port} ({error.strerror or 'timed out'})") from error

    def _forwarded(self, pod: str, port: int, timeout: float) -> socket.socket:
        try:
            connected: socket.socket = self.client.forward(self.namespace, pod, port)
        except errors.DoorError as error:
            raise LinkError(error.message) from error
        connected.settimeout(timeout)
        return connected
