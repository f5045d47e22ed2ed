"""Plan fields of Redis Cluster and the rules between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from provisioning.engines.base import Change, Demand, Effect, Field, Problem, Spec, TargetView, plain_changes
from provisioning.engines.redis import settings
from provisioning.engines.redis.settings import memory_mib

# 7.0 is the default: BSD, and what Debian 12 has. See docs/decisions for the licences of what comes after.
VERSIONS = ("7.0.15", "8.0.2")
# Of the data: an append-only file or snapshot is there until the one that replaces it is written.
FILES = 2
# Each was run with real servers under a writing client. Replicas of a newer version read what an older master sends,
# not the other way round: so replicas come first, and there is no way back.
UPGRADES: Mapping[str, tuple[str, ...]] = MappingProxyType({"7.0.15": ("8.0.2",)})
EXPORTER_CPU_MILLICORES = 20
EXPORTER_MEMORY_MIB = 48
EVICTION = (
    "noeviction", "allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-random",
    "volatile-ttl",
)  # fmt: skip

FIELDS = (
    Field("shards", "Shards", "integer", 3, Effect.MOVE, "Masters the keys are spread over.", minimum=3, maximum=32),
    Field(
        "replicasPerShard", "Replicas per shard", "integer", 1, Effect.LIVE,
        "Copies of each shard on other nodes. With 0 the loss of a pod is an outage of its keys.", minimum=0, maximum=3,
    ),
    Field("memoryGiB", "Memory per node", "number", 2, Effect.ROLL, "Of each pod.", "GiB", 0.125, 32, 0.125),
    Field("cpu", "CPU per node", "number", 1, Effect.ROLL, "Of each pod.", "cores", 0.05, 8, 0.05),
    Field(
        "storageGiB", "Storage per node", "integer", 5, Effect.LIVE,
        "Can grow, never shrink. Takes twice what memory may hold: the data, and the file that replaces it.", "GiB",
        1, 200,
    ),
    Field(
        "storageClass", "Storage class", "storage-class", "standard", Effect.FIXED,
        "Where the data lies.", group="Storage",
    ),
    Field(
        "persistence", "Persistence", "enum", "aof", Effect.LIVE,
        "What is written to disk: every change (aof), snapshots (rdb), both, or nothing.",
        choices=("aof", "rdb", "aof+rdb", "none"), group="Storage",
    ),
    Field(
        "maxmemoryPercent", "Share of memory for data", "integer", 75, Effect.LIVE,
        "The rest is for buffers and copies while saving.", "%", 40, 85, group="Behaviour", advanced=True,
    ),
    Field(
        "evictionPolicy", "When memory is full", "enum", "noeviction", Effect.LIVE,
        "noeviction refuses writes; the others drop keys by design.", choices=EVICTION, group="Behaviour",
    ),
    Field(
        "nodeTimeoutMs", "Node timeout", "integer", 15000, Effect.LIVE,
        "A replica takes over from a master that has been silent for once to twice this long.", "ms", 2000, 60000,
        group="Behaviour", advanced=True,
    ),
    Field(
        "spread", "Spread", "enum", "hard", Effect.ROLL,
        "hard: never two members of a shard on one node. soft: only if there is room.", choices=("hard", "soft"),
        group="Behaviour", advanced=True,
    ),
    Field(
        "spreadRepair", "Uneven masters", "enum", "manual", Effect.LIVE,
        "What happens when failovers left more masters on one node than on another. automatic: replicas take over, one "
        "at a time, when the cluster has been well for a while. manual: when you ask for it.",
        choices=("manual", "automatic"), group="Behaviour", advanced=True,
    ),
    Field(
        "spreadRepairMinutes", "Evened after", "integer", 10, Effect.LIVE,
        "How long the cluster must have been well before masters are evened automatically.", "min", 1, 1440,
        group="Behaviour", advanced=True,
    ),
    Field(
        "tls", "Encryption (TLS)", "enum", "off", Effect.FIXED,
        "on: every connection is encrypted, those between members too, and nothing else is answered. Berth makes the "
        "certificates and renews them. Cannot be changed afterwards.",
        choices=("off", "on"), group="Security",
    ),
    Field(
        "exporter", "Metrics exporter", "boolean", True, Effect.ROLL,
        "A Prometheus exporter beside each node.", group="Monitoring", advanced=True,
    ),
    settings.FIELD,
)  # fmt: skip


def check(spec: Spec) -> list[Problem]:
    """Rules between fields."""
    problems = []
    if spec["persistence"] == "none" and spec["replicasPerShard"] > 0:
        # Measured: a master restarted empty inside the node timeout stays master, and its replicas copy the emptiness.
        problems.append(
            Problem(
                "/persistence",
                "loses_replicas",
                "Persistence none with replicas loses all data when a master restarts: it comes back empty and its "
                "replicas follow. Choose aof, or no replicas.",
            )
        )
    most = spec["memoryGiB"] * spec["maxmemoryPercent"] / 100
    if spec["persistence"] != "none" and spec["storageGiB"] < FILES * most:
        least = math.ceil(FILES * most)
        # Said of the memory: a cluster that has too little storage already keeps it, until its memory grows.
        problems.append(
            Problem(
                "/memoryGiB",
                "storage_too_small",
                f"{spec['memoryGiB']:g} GiB of memory hold up to {most:g} GiB of data, and persistence "
                f"{spec['persistence']} wants {FILES} times that on disk: a file, and the one that replaces it. "
                f"Choose storageGiB {least} or more (it is {spec['storageGiB']}), or less memory.",
            )
        )
    return [*problems, *_refuses_writes(spec)]


def _refuses_writes(spec: Spec) -> list[Problem]:
    """Settings with which, beside other fields, the cluster would take no writes."""
    config, replicas = spec.get("config", {}), spec["replicasPerShard"]
    problems = []
    least = config.get("min-replicas-to-write", 0)
    if least > replicas:
        has = "none" if replicas == 0 else f"{replicas}"
        problems.append(
            Problem(
                "/config/min-replicas-to-write",
                "refuses_writes",
                f"min-replicas-to-write {least} refuses every write with fewer replicas, and a shard has {has}. "
                f"Choose at most {replicas}, or replicasPerShard {least}.",
            )
        )
    backlog, most = config.get("repl-backlog-size", 0), settings.maxmemory_mib(spec)
    if backlog > most * settings.MIB // 2:
        # Measured: it counts as data as it fills, so every write is refused at last, or every key is dropped.
        problems.append(
            Problem(
                "/config/repl-backlog-size",
                "refuses_writes",
                f"repl-backlog-size {backlog} counts as data while it fills, and would leave less than half of the "
                f"{most} MiB for keys. Choose at most {most * settings.MIB // 2}, or more memory.",
            )
        )
    return problems


def plan_order(spec: Spec) -> list[Change]:
    """What an order of these values risks."""
    risks = []
    if spec["replicasPerShard"] == 0:
        risks.append(Change("/replicasPerShard", None, 0, Effect.LOSS, SINGLE))
    if spec["persistence"] == "none":
        risks.append(Change("/persistence", None, "none", Effect.LOSS, FORGETFUL))
    return risks


def preflight(spec: Spec, target: TargetView) -> list[Problem]:
    """Rules that need the target."""
    members = spec["replicasPerShard"] + 1
    if spec["spread"] == "hard" and target.nodes is not None and target.nodes < members:
        return [
            Problem(
                "/replicasPerShard",
                "too_few_nodes",
                f"{members} members of a shard need {members} nodes, and {target.name} has {target.nodes} that take "
                f"pods. Choose at most {max(0, target.nodes - 1)} replicas, or spread soft.",
            )
        ]
    return []


def pods(spec: Spec) -> int:
    """How many pods the spec asks for."""
    return int(spec["shards"] * (spec["replicasPerShard"] + 1))


def pod_names(cluster: str, spec: Spec) -> list[str]:
    """Names of the pods the spec asks for: <cluster>-s<shard>-<ordinal>, as their StatefulSets name them."""
    members = range(spec["replicasPerShard"] + 1)
    return [f"{cluster}-s{shard}-{ordinal}" for shard in range(spec["shards"]) for ordinal in members]


def demand(spec: Spec) -> Demand:
    """What the spec asks of the quota, exporters included."""
    count = pods(spec)
    extra_cpu, extra_memory = (EXPORTER_CPU_MILLICORES, EXPORTER_MEMORY_MIB) if spec["exporter"] else (0, 0)
    return Demand(
        pods=count,
        cpu_millicores=count * (round(spec["cpu"] * 1000) + extra_cpu),
        memory_mib=count * (memory_mib(spec) + extra_memory),
        storage_mib={spec["storageClass"]: count * spec["storageGiB"] * 1024},
    )


SINGLE = "Without replicas the loss of a pod is an outage, of a disk a loss of data."
FORGETFUL = "Without persistence a restart loses the data."
OUTAGE = "With no replicas, the keys of each shard cannot be reached while its pod restarts."
WIPES = "Persistence is none: every pod that restarts loses its data."


def plan_change(before: Spec, after: Spec, target: TargetView) -> Sequence[Change]:
    """What each changed field does to a running cluster. See docs/engines/redis.md for the table."""
    # Members that leave stay until their data is elsewhere, and take room in the quota meanwhile.
    larger = ("shards", "replicasPerShard", "memoryGiB", "cpu", "storageGiB", "exporter")
    grows = {key for key in larger if after[key] > before[key]}
    shrinks = {key for key in ("shards", "replicasPerShard") if after[key] < before[key]}
    return [
        _with_risk(after, _judged(change, after, target, grows, shrinks))
        for change in plain_changes(FIELDS, before, after)
    ]


def _judged(change: Change, after: Spec, target: TargetView, grows: set[str], shrinks: set[str]) -> Change:
    """The effect of one change, beyond what its field says."""
    was, will, key = change.before, change.after, change.pointer[1:]
    if key == "storageClass":
        return replace(change, message="The data stays on its storage class: order a new cluster on the other one.")
    if key == "tls":
        text = (
            "Members that encrypt their bus do not hear those that do not, so restarting one after the other would "
            "split the cluster, and every client would have to change at that moment. "
            f"Order a new cluster with tls {will}, and copy the keys."
        )
        return replace(change, message=text)
    if key == "storageGiB":
        if will < was:
            return replace(change, effect=Effect.FIXED, message="Storage can grow, never shrink.")
        if after["storageClass"] in target.fixed_classes:
            text = f"Volumes of class {after['storageClass']} cannot grow on {target.name}: order a new cluster."
            return replace(change, effect=Effect.FIXED, message=text)
        return replace(change, message=f"{change.message} Volumes grow while they are in use.")
    if key in shrinks and grows:
        text = f"Not together with growth ({', '.join(sorted(grows))}): change one, then the other."
        return replace(change, effect=Effect.FIXED, message=text)
    if key == "shards":
        moved = abs(will - was) * 100 // max(was, will)
        text = f"{change.message} About {moved} % of the keys move to other nodes while clients go on."
        if will < was:
            text += " Emptied nodes and their volumes are removed."
            if after["evictionPolicy"] != "noeviction":
                text += f" Where memory is full, keys are dropped as {after['evictionPolicy']} says."
        return replace(change, message=text)
    if key == "replicasPerShard":
        if will == 0:
            return replace(change, effect=Effect.LOSS, message=SINGLE)
        text = "New replicas copy their shard." if will > was else "The removed replicas' volumes are deleted."
        return replace(change, message=f"{change.message} {text}")
    if key == "persistence" and will == "none":
        return replace(change, effect=Effect.LOSS, message=FORGETFUL)
    if key == "evictionPolicy" and was == "noeviction":
        return replace(change, message=f"{change.message} When memory is full, keys are dropped.")
    if key == "memoryGiB" and will < was:
        return replace(change, message=f"{change.message} Refused while running if the data does not fit.")
    return change


def _with_risk(after: Spec, change: Change) -> Change:
    """A restart without replicas is an outage, and without persistence a loss."""
    if change.effect != Effect.ROLL:
        return change
    if after["persistence"] == "none":
        return replace(change, effect=Effect.LOSS, message=f"{change.message} {WIPES}")
    if after["replicasPerShard"] == 0:
        return replace(change, message=f"{change.message} {OUTAGE}")
    return change


def plan_restart(spec: Spec) -> Change:
    """What restarting every pod does."""
    text = "Every pod restarts, one at a time: replicas first, then a replica takes over, the old master last."
    return _with_risk(spec, Change("", None, None, Effect.ROLL, text))


def plan_upgrade(spec: Spec, before: str, after: str) -> Change:
    """What going to another version does."""
    text = (
        f"Redis {before} becomes {after}. Every pod restarts with it, one at a time: replicas first, then a replica "
        f"takes over, the old master last. There is no way back: {before} cannot read what {after} wrote."
    )
    return _with_risk(spec, Change("", before, after, Effect.ROLL, text))


def plan_rebalance(spec: Spec) -> Change:
    """What making masters even over the nodes does."""
    if spec["replicasPerShard"] == 0:
        text = "There are no replicas that could take over: add one to each shard (replicasPerShard) first."
        return Change("", None, None, Effect.FIXED, text)
    text = "Replicas that are in step take over, one shard at a time; its writes wait a moment each time."
    return Change("", None, None, Effect.LIVE, text)
