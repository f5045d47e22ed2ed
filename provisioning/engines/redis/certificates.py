"""Nodes take up a renewed certificate while they run.

The core renews the Secret; the kubelet brings it into the pods' volumes, within a minute or so. Redis reads its files
again at CONFIG SET, also with the values these settings have (they are "volatile" in config.c of 7.0), and uses them
for connections made from then on; those that are there go on. Nobody tells us when a file is the new one, so a node is
asked again at each look until a handshake with it shows the new certificate.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from provisioning.engines.base import Link, LinkError, Served
from provisioning.engines.redis.admin import RedisError
from provisioning.engines.redis.encryption import Channel, pod_host, shown_by
from provisioning.engines.redis.manifests import PORT
from provisioning.engines.redis.sight import PARALLEL, Node, Sight

FILES = ("tls-ca-cert-file", "tls-cert-file", "tls-key-file")


def take_up(sight: Sight, link: Link) -> Served | None:
    """Have nodes that serve another certificate than the newest read their files again, and set back the names they
    give to clients. Returns what all of them serve now; None without TLS, or when nobody is there.

    No node's failure fails the look: it is asked again at the next one.
    """
    channel = sight.channel
    if channel is None:
        return None
    for node in sight.everyone:
        name = pod_host(sight.cluster, node.pod.name)
        if node.me.host and node.me.host != name:
            # Who is sent to another name finds a certificate that is not for it.
            _set_name(node, name, link)
    newest = channel.newest
    old = [node for node in sight.everyone if node.shown is not None and newest and node.shown.certificate != newest]
    if old:
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(lambda node: _read_again(channel, node, link), old))
    for node in old:
        if node.shown is not None and node.shown.certificate == newest:
            text = f"It serves the renewed certificate, valid until {spoken(node.shown.ends)}."
            link.event("CertificateTaken", text, object=f"pod/{node.pod.name}")
    return served_now(sight)


def served_now(sight: Sight) -> Served | None:
    """What all members serve; None without TLS, or when nobody is there."""
    if sight.channel is None:
        return None
    newest = sight.channel.newest
    shown = [node.shown for node in sight.everyone if node.shown is not None]
    if not shown:
        return None
    first = min(shown, key=lambda one: one.ends)
    renews = first.starts + (first.ends - first.starts) * 2 / 3
    return Served(sum(one.certificate == newest for one in shown), len(shown), first.ends, renews)


def spoken(moment: datetime) -> str:
    """A moment for people."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _set_name(node: Node, name: str, link: Link) -> None:
    try:
        node.connection.call("CONFIG", "SET", "cluster-announce-hostname", name)
    except (RedisError, LinkError):
        return
    text = f"cluster-announce-hostname was {node.me.host}, is {name}"
    link.event("SettingsHealed", text, warning=True, object=f"pod/{node.pod.name}")


def _read_again(channel: Channel, node: Node, link: Link) -> None:
    """Have one node read its files, and look what it serves now."""
    try:
        told = node.connection.call("CONFIG", "GET", *FILES)
        if not isinstance(told, list):
            return
        node.connection.call("CONFIG", "SET", *(str(word) for word in told))
        # Who says nothing more than hello need not sign in.
        connected = channel.to_pod(link.connect(node.pod, PORT, timeout=2), node.pod.name)
    except (RedisError, LinkError):
        # Redis refuses files that do not belong together, as while they are being replaced, and keeps what it has.
        return
    node.shown = shown_by(connected) or node.shown
    connected.close()
