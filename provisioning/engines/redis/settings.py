"""What may be set of Redis' own configuration, and what every node must have in force. Pure.

The allow list holds what cannot break the cluster's shape, its security or what another plan field says. Defaults are
Redis 7.0's (redis.conf of that version; a test compares them with a running server): a key that is taken out of the
wish goes back to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from provisioning.engines.base import Effect, Field, Spec

LIVE, ROLL = Effect.LIVE, Effect.ROLL
MIB = 2**20


def _whole(
    key: str, default: int, low: int, high: int, help: str, unit: str = "", effect: Effect = LIVE, title: str = ""
) -> Field:
    return Field(key, title or key, "integer", default, effect, help, unit, low, high)


def _switch(key: str, default: bool, help: str, effect: Effect = LIVE) -> Field:
    return Field(key, key, "boolean", default, effect, help)


def _one_of(key: str, default: str, choices: tuple[str, ...], help: str) -> Field:
    return Field(key, key, "enum", default, LIVE, help, choices=choices)


SETTINGS: tuple[Field, ...] = (
    _whole("timeout", 0, 0, 86400, "Idle clients are disconnected after this long; 0: never.", "s"),
    _whole("tcp-keepalive", 300, 0, 86400, "How often idle connections are probed; 0: never.", "s"),
    _whole("hz", 10, 1, 500, "How often background work runs in a second."),
    _switch("dynamic-hz", True, "More background work with more clients."),
    _whole("active-expire-effort", 1, 1, 10, "How hard expired keys are looked for."),
    _whole("maxmemory-samples", 5, 1, 64, "Keys looked at for each key to evict."),
    _whole("maxmemory-eviction-tenacity", 10, 0, 100, "How long eviction may take."),
    _whole("lfu-log-factor", 10, 0, 255, "How slowly the use counter of a key saturates."),
    _whole("lfu-decay-time", 1, 0, 10080, "How often the use counter of a key is halved; 0: never.", "min"),
    _whole("slowlog-log-slower-than", 10000, -1, 60_000_000, "Commands that take longer are logged; -1: none.", "µs"),
    _whole("slowlog-max-len", 128, 0, 100_000, "Entries of the slow log."),
    _whole("latency-monitor-threshold", 0, 0, 60_000, "Events that take longer are recorded; 0: none.", "ms"),
    _one_of(
        "notify-keyspace-events", "", ("", "xE", "xK", "xKE", "AE", "AK", "AKE"),
        "Events about keys for subscribers: x expired, A all; E by event, K by key.",
    ),
    _one_of(
        "appendfsync", "everysec", ("always", "everysec", "no"),
        "When the append-only file is forced to disk. always: a killed node loses nothing; no: up to the system.",
    ),
    _switch("no-appendfsync-on-rewrite", False, "Do not force to disk while a rewrite runs."),
    _whole("auto-aof-rewrite-percentage", 100, 0, 10_000, "Growth that starts a rewrite; 0: never.", "%"),
    _whole("auto-aof-rewrite-min-size", 64 * MIB, MIB, 64 * 1024 * MIB, "No rewrite below this size.", "bytes"),
    _switch("stop-writes-on-bgsave-error", True, "Refuse writes after a snapshot failed."),
    _switch("rdbcompression", True, "Compress snapshots."),
    _switch("lazyfree-lazy-eviction", False, "Free evicted keys in the background."),
    _switch("lazyfree-lazy-expire", False, "Free expired keys in the background."),
    _switch("lazyfree-lazy-server-del", False, "Free overwritten keys in the background."),
    _switch("lazyfree-lazy-user-del", False, "DEL frees in the background, as UNLINK does."),
    _switch("lazyfree-lazy-user-flush", False, "FLUSHALL and FLUSHDB free in the background."),
    _whole("hash-max-listpack-entries", 512, 0, 1_000_000, "Largest hash in the compact form."),
    _whole("hash-max-listpack-value", 64, 0, 65_536, "Largest value in a compact hash.", "bytes"),
    _whole("zset-max-listpack-entries", 128, 0, 1_000_000, "Largest sorted set in the compact form."),
    _whole("zset-max-listpack-value", 64, 0, 65_536, "Largest value in a compact sorted set.", "bytes"),
    _whole("set-max-intset-entries", 512, 0, 1_000_000, "Largest set of numbers in the compact form."),
    _whole("stream-node-max-entries", 100, 0, 1_000_000, "Entries in one node of a stream."),
    _whole("proto-max-bulk-len", 512 * MIB, MIB, 512 * MIB, "Largest value a client may send.", "bytes"),
    _whole("client-query-buffer-limit", 1024 * MIB, MIB, 1024 * MIB, "Largest request of a client.", "bytes"),
    _whole("busy-reply-threshold", 5000, 0, 600_000, "A script that runs longer makes others be told BUSY.", "ms"),
    _whole("tracking-table-max-keys", 1_000_000, 0, 100_000_000, "Keys tracked for client-side caches."),
    _whole("repl-backlog-size", MIB, MIB, 4096 * MIB, "Kept for replicas that were away for a moment.", "bytes"),
    _whole("repl-timeout", 60, 5, 3600, "A silent replication link is given up after this long.", "s"),
    _whole("min-replicas-to-write", 0, 0, 3, "Refuse writes with fewer replicas in step; 0: never."),
    _whole("min-replicas-max-lag", 10, 1, 3600, "What counts as in step.", "s"),
    _switch("cluster-require-full-coverage", True, "Answer nothing while some slots are served by nobody."),
    _switch("cluster-allow-reads-when-down", False, "Answer reads while the cluster is down."),
    _whole("cluster-replica-validity-factor", 10, 0, 1000, "How stale a replica may be to take over; 0: any."),
    _whole("io-threads", 1, 1, 8, "Threads that write to clients; wants as many cores.", effect=ROLL),
    _whole("tcp-backlog", 128, 16, 65_535, "Connections that wait to be accepted.", effect=ROLL),
    _switch("rdbchecksum", True, "A checksum at the end of snapshots.", ROLL),
)  # fmt: skip
BY_KEY: Mapping[str, Field] = {setting.key: setting for setting in SETTINGS}

# Pattern of a key to why it is not taken, the way out first.
REFUSED = (
    ("maxmemory", "It follows from memoryGiB and maxmemoryPercent."),
    ("maxmemory-policy", "Set evictionPolicy."),
    ("appendonly", "Set persistence."),
    ("save", "Set persistence."),
    ("cluster-node-timeout", "Set nodeTimeoutMs."),
    ("cluster-*", "Berth shapes the cluster."),
    ("replica*", "Berth chooses who follows whom."),
    ("slave*", "Berth chooses who follows whom."),
    ("repl-*", "Berth keeps replication as its repairs need it."),
    ("requirepass", "Credentials are in the cluster's Secret."),
    ("master*", "Credentials are in the cluster's Secret."),
    ("acl*", "Credentials are in the cluster's Secret."),
    ("user", "Credentials are in the cluster's Secret."),
    ("tls-*", "Set tls when the cluster is ordered."),
    ("port", "The address is part of the cluster's shape."),
    ("bind*", "The address is part of the cluster's shape."),
    ("unixsocket*", "The address is part of the cluster's shape."),
    ("protected-mode", "The address is part of the cluster's shape."),
    ("dir", "Files lie on the cluster's volumes."),
    ("db*", "Files lie on the cluster's volumes."),
    ("append*", "Files lie on the cluster's volumes."),
    ("logfile", "The log goes to the pod's log."),
    ("rename-command", "Berth and clients need the commands under their names."),
    ("enable-*", "It lets clients reach the machine."),
    ("loadmodule", "It lets clients reach the machine."),
    ("include", "It lets clients reach the machine."),
    ("daemonize", "The process belongs to its container."),
    ("supervised", "The process belongs to its container."),
    ("maxclients", "It is bounded by the node's limit of open files."),
)
# What nobody can wish and Berth never renders: the defaults, on which its repairs, its promises about writes and the
# cluster's security rest. They are the same in every version on offer (a test compares). What a version does not have
# is left out; so is what people turn for a moment to look closer, such as loglevel, and what a start lowers by itself
# (maxclients).
KEPT: dict[str, str] = {
    "cluster-replica-no-failover": "no",
    "cluster-migration-barrier": "1",
    "cluster-allow-pubsubshard-when-down": "yes",
    "cluster-link-sendbuf-limit": "0",
    "cluster-announce-port": "0",
    "cluster-announce-tls-port": "0",
    "cluster-announce-bus-port": "0",
    "replica-read-only": "yes",
    "replica-serve-stale-data": "yes",
    "replica-priority": "100",
    "replica-announced": "yes",
    "replica-announce-ip": "",
    "replica-announce-port": "0",
    "replica-ignore-maxmemory": "yes",
    "replica-ignore-disk-write-errors": "no",
    "replica-lazy-flush": "no",
    "propagation-error-behavior": "ignore",
    "repl-disable-tcp-nodelay": "no",
    "repl-backlog-ttl": "3600",
    "repl-diskless-sync-max-replicas": "0",
    "client-output-buffer-limit": "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
    "maxmemory-clients": "0",
    "aof-use-rdb-preamble": "yes",
    "aof-load-truncated": "yes",
    "aof-timestamp-enabled": "no",
    "aof-rewrite-incremental-fsync": "yes",
    "rdb-save-incremental-fsync": "yes",
    "rdb-del-sync-files": "no",
    "shutdown-timeout": "10",
    "shutdown-on-sigterm": "default",
    # As rendered.
    "protected-mode": "no",
    "acl-pubsub-default": "resetchannels",
    "sanitize-dump-payload": "no",
    "tls-port": "0",
    "tls-cluster": "no",
    "tls-replication": "no",
    "tls-ciphers": "",
    "tls-ciphersuites": "",
    "tls-prefer-server-ciphers": "no",
}
FIELD = Field(
    "config", "Redis settings", "map", {}, LIVE,
    "Keys of redis.conf; most take effect at once, some with a rolling restart.", group="Behaviour", advanced=True,
    entries=SETTINGS, refused=REFUSED,
)  # fmt: skip


def memory_mib(spec: Spec) -> int:
    """Memory of one Redis container."""
    return int(spec["memoryGiB"] * 1024)


def maxmemory_mib(spec: Spec) -> int:
    """What Redis may hold of it."""
    return int(memory_mib(spec) * spec["maxmemoryPercent"] // 100)


def _text(value: Any) -> str:
    """A value as CONFIG GET writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def wanted(spec: Spec) -> dict[str, str]:
    """What CONFIG GET must say on every node, for all that CONFIG SET can set."""
    persistence = spec["persistence"]
    config = spec.get("config", {})
    return {
        "cluster-node-timeout": str(spec["nodeTimeoutMs"]),
        # On (the default), replicas wander to other masters when masters come or go, and R is no longer exact.
        "cluster-allow-replica-migration": "no",
        "repl-diskless-sync": "yes",
        # The default waits 5 s for more replicas to come; ours are told one by one.
        "repl-diskless-sync-delay": "0",
        "repl-diskless-load": "on-empty-db",
        # A master that has nothing to send is silent for as long: its replicas must not give it up for that.
        "repl-ping-replica-period": str(min(10, config.get("repl-timeout", BY_KEY["repl-timeout"].default) // 3)),
        "maxmemory": str(maxmemory_mib(spec) * MIB),
        "maxmemory-policy": spec["evictionPolicy"],
        "appendonly": "yes" if "aof" in persistence else "no",
        "save": "3600 1 300 100 60 10000" if "rdb" in persistence else "",
        **{one.key: _text(config.get(one.key, one.default)) for one in SETTINGS if one.effect == LIVE},
    }


def start_only(spec: Spec) -> dict[str, str]:
    """What differs from the defaults and is read at the start only: a change of it needs a restart."""
    config = spec.get("config", {})
    return {
        one.key: _text(config[one.key])
        for one in SETTINGS
        if one.effect == ROLL and config.get(one.key, one.default) != one.default
    }


def lines(spec: Spec) -> list[str]:
    """Lines of redis.conf: what the plan fields say, and of the settings those that were set."""
    said = {key: value for key, value in wanted(spec).items() if key not in BY_KEY or key in spec.get("config", {})}
    return [f"{key} {value}" if value else f'{key} ""' for key, value in {**said, **start_only(spec)}.items()]
