"""TLS of a Redis Cluster: names and settings, and connections that use it.

All ports speak TLS and nothing else, for clients, replication and the cluster bus. On the bus both sides must show a
certificate of the cluster's own authority, so members of two clusters cannot even speak to each other. Clients are sent
from node to node by host name, since pods change their addresses, and certificates are for names.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from socket import socket

from provisioning.engines.base import CertificateSpec, ClusterView, Link, LinkError, Spec

DOMAIN = "svc.cluster.local"
FOLDER = "/etc/redis-tls"
# X509_V_FLAG_NO_CHECK_TIME of OpenSSL's x509_vfy.h, which Python does not name.
NO_CHECK_TIME = 0x200000


def is_on(spec: Spec) -> bool:
    """Whether the cluster speaks TLS."""
    return bool(spec["tls"] == "on")


def secret_name(cluster: ClusterView) -> str:
    """Name of the Secret with the servers' certificate, which pods mount."""
    return f"{cluster.name}-tls"


def service_host(cluster: ClusterView) -> str:
    """The address clients use."""
    return f"{cluster.name}.{cluster.namespace}.{DOMAIN}"


def nodes_domain(cluster: ClusterView) -> str:
    """The name under which each pod has its own."""
    return f"{cluster.name}-nodes.{cluster.namespace}.{DOMAIN}"


def pod_host(cluster: ClusterView, pod: str) -> str:
    """The name clients are sent to."""
    return f"{pod}.{nodes_domain(cluster)}"


def certificates(cluster: ClusterView) -> list[CertificateSpec]:
    """One for all pods: for the Service under each of its names, for every pod, and for a pod's own sidecar."""
    if not is_on(cluster.spec):
        return []
    service, nodes = (f"{name}.{cluster.namespace}" for name in (cluster.name, f"{cluster.name}-nodes"))
    names = [
        service_host(cluster), f"{service}.svc", service, cluster.name,
        f"*.{nodes_domain(cluster)}", f"*.{nodes}.svc", f"*.{nodes}", "localhost",
    ]  # fmt: skip
    return [CertificateSpec(secret_name(cluster), f"{cluster.name}-tls-authority", tuple(names))]


def settings(spec: Spec, port: int) -> dict[str, str]:
    """What CONFIG GET must say for it, for what CONFIG SET can set; files are not among it, see conf_lines."""
    if not is_on(spec):
        return {}
    return {
        "port": "0",
        "tls-port": str(port),
        "tls-cluster": "yes",
        "tls-replication": "yes",
        # Clients sign in with passwords; on the bus Redis wants certificates whatever this says.
        "tls-auth-clients": "no",
        "tls-protocols": "TLSv1.2 TLSv1.3",
        "cluster-preferred-endpoint-type": "hostname",
    }


def conf_lines(spec: Spec) -> list[str]:
    """Lines of redis.conf that name the files."""
    if not is_on(spec):
        return []
    files = {"tls-ca-cert-file": "ca.crt", "tls-cert-file": "tls.crt", "tls-key-file": "tls.key"}
    return [f"{key} {FOLDER}/{name}" for key, name in files.items()]


@dataclass(frozen=True)
class Shown:
    """The certificate (DER) somebody served, and its life."""

    certificate: bytes
    starts: datetime
    ends: datetime


def shown_by(connected: socket) -> Shown | None:
    """What the other side of a connection has shown; None without TLS."""
    if not isinstance(connected, ssl.SSLSocket):
        return None
    told, certificate = connected.getpeercert(), connected.getpeercert(binary_form=True)
    assert told, "nobody is believed without"
    assert certificate

    def moment(key: str) -> datetime:
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(told[key])), UTC)

    return Shown(certificate, moment("notBefore"), moment("notAfter"))


class Channel:
    """Makes the connections of one cluster as its spec wants them.

    Whoever serves must show a certificate of the cluster's authority for the name that is dialed. `strict`: one that
    has not expired, as a client wants it; without, we can still have a node take up a newer one. Raises LinkError when
    the authorities to trust cannot be read.
    """

    def __init__(self, cluster: ClusterView, link: Link, *, strict: bool = False) -> None:
        self._cluster = cluster
        self.secret: Mapping[str, str] = {}
        self._context: ssl.SSLContext | None = None
        if not is_on(cluster.spec):
            return
        self.secret = link.secret(secret_name(cluster))
        try:
            self._context = _trusting(self.secret.get("ca.crt", ""))
        except (ssl.SSLError, ValueError) as error:
            text = f"the Secret {secret_name(cluster)} holds no readable ca.crt; Berth makes it anew within a minute"
            raise LinkError(text) from error
        if not strict:
            self._context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)

    @property
    def newest(self) -> bytes:
        """The certificate all nodes are to serve (DER); empty when it cannot be read, or there is to be none."""
        try:
            return ssl.PEM_cert_to_DER_cert(self.secret.get("tls.crt", "").strip())
        except ValueError:
            return b""

    def to_pod(self, connected: socket, pod: str) -> socket:
        """A connection to one pod. Raises LinkError."""
        return self._over(connected, pod_host(self._cluster, pod), pod)

    def to_service(self, connected: socket) -> socket:
        """A connection to whoever answers for the Service. Raises LinkError."""
        return self._over(connected, service_host(self._cluster), f"Service {self._cluster.name}")

    def _over(self, connected: socket, name: str, what: str) -> socket:
        if self._context is None:
            return connected
        try:
            return self._context.wrap_socket(connected, server_hostname=name)
        except ssl.SSLCertVerificationError as error:
            raise LinkError(f"{what} shows a certificate that is refused: {error.verify_message}") from error
        except OSError as error:
            # TimeoutError among them: it takes connections and says nothing.
            why = "says nothing" if isinstance(error, TimeoutError) else f"does not speak TLS ({type(error).__name__})"
            raise LinkError(f"{what} {why}") from error


def _trusting(bundle: str) -> ssl.SSLContext:
    """Raises ValueError or SSLError for a bundle that holds no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=bundle)
    return context
