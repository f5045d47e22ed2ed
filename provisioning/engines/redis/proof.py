"""The proof: one key per shard written and read through the advertised address, with the issued password."""

from __future__ import annotations

import contextlib
import secrets
import time
from socket import socket

from provisioning.engines.base import ClusterView, Link, LinkError, Proof, World
from provisioning.engines.redis import users
from provisioning.engines.redis.admin import Connection, RedisError, Reply
from provisioning.engines.redis.encryption import Channel, pod_host
from provisioning.engines.redis.manifests import PORT, auth_secret
from provisioning.engines.redis.placement import slot_range
from provisioning.engines.redis.sight import redis_pods
from provisioning.engines.redis.slots import slot_of

EXPIRE_SECONDS = 60


def _key_in(first: int, last: int, run: str) -> str:
    """A key whose slot lies in the range."""
    number = 0
    while not first <= slot_of(key := f"berth:proof:{run}:{number}") <= last:
        number += 1
    return key


class _Client:
    """Follows MOVED as a cluster client does."""

    def __init__(self, cluster: ClusterView, world: World, link: Link, stack: contextlib.ExitStack) -> None:
        self.pods = {pod.ip: pod for pod in redis_pods(world)}
        # Where certificates are for names, clients are sent to names.
        self.pods |= {pod_host(cluster, pod.name): pod for pod in redis_pods(world)}
        self.link, self.stack = link, stack
        secret = link.secret(auth_secret(cluster))
        issued = [("", secret[users.DEFAULT_KEY])]
        for user in cluster.users or ():
            if user.name == users.DEFAULT and not (user.enabled and user.access is None):
                # It may not write everywhere now: that the cluster does is proven by Berth's own user.
                issued = users.accounts(secret)[:1]
        self.account = issued
        self.channel = Channel(cluster, link, strict=True)
        self.known: dict[str, Connection] = {}
        self.first = self._open(self.channel.to_service(link.connect_service(cluster.name, PORT, timeout=3)))

    def _open(self, connected: socket) -> Connection:
        return self.stack.enter_context(Connection(connected, *self.account))

    def call(self, *words: str | int) -> Reply:
        """One command, redirected at most once. Raises RedisError, LinkError."""
        try:
            return self.first.call(*words)
        except RedisError as error:
            if error.code != "MOVED":
                raise
            host = str(error).split()[2].rpartition(":")[0]
        pod = self.pods.get(host)
        if pod is None:
            raise LinkError(f"the cluster sent us to {host}, which is no pod of it")
        if host not in self.known:
            self.known[host] = self._open(self.channel.to_pod(self.link.connect(pod, PORT, timeout=3), pod.name))
        return self.known[host].call(*words)


def prove(cluster: ClusterView, world: World, link: Link) -> Proof:
    """See engines.base.Engine.prove."""
    run = secrets.token_hex(6)
    started = time.monotonic()
    shards = cluster.spec["shards"]
    with contextlib.ExitStack() as stack:
        try:
            client = _Client(cluster, world, link, stack)
            keys = [_key_in(*slot_range(shard, shards), run) for shard in range(shards)]
            full = [key for key in keys if not _write(client, key, run)]
            wrong = [key for key in keys if client.call("GET", key) != (None if key in full else run)]
            for key in keys:
                client.call("DEL", key)
        except RedisError as error:
            return Proof(False, f"Redis refused the proof: {error}")
    took = round((time.monotonic() - started) * 1000)
    if wrong:
        return Proof(False, f"{len(wrong)} of {len(keys)} keys did not read back as written.")
    address = f"{cluster.name}.{cluster.namespace}.svc:{PORT}"
    summary = f"Wrote and read {len(keys)} keys, one in each shard, through {address} in {took} ms."
    if full:
        summary = (
            f"Read {len(keys)} keys, one in each shard, through {address} in {took} ms; "
            f"{len(full)} of {len(keys)} shards are full and refuse writes."
        )
    return Proof(True, summary, {"address": address, "keys": len(keys), "milliseconds": took, "full": len(full)})


def _write(client: _Client, key: str, value: str) -> bool:
    """Write it; False where the memory is full and nothing may be dropped, which is what the cluster's owner wished."""
    try:
        client.call("SET", key, value, "EX", EXPIRE_SECONDS)
    except RedisError as error:
        if str(error).startswith("OOM "):
            return False
        raise
    return True
