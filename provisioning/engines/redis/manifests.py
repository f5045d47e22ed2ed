"""Manifests of a Redis Cluster: pure, spec in, objects out."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from provisioning.engines.base import (
    LABEL_COMPONENT,
    LABEL_SHARD,
    LABEL_TLS,
    ClusterView,
    Manifest,
    Scrape,
    common_labels,
    selector_labels,
    template_annotations,
)
from provisioning.engines.redis import encryption, settings, users
from provisioning.engines.redis import spec as rules

PORT = 6379
BUS_PORT = 16379
EXPORTER_PORT = 9121
EXPORTER_IMAGE = "quay.io/oliver006/redis_exporter:v1.45.0"
USER = 999

# A master that was ended without handing over must not come back before a replica leads: inside the node timeout it
# would still be the master, and its replicas would copy what it has. That is nothing (its disk was lost), an old
# snapshot, or an append-only file that may lack what replicas have confirmed (measured: while a sync to disk takes
# long, Redis answers for up to 2 s what it has not written). So it has the replica that has the most take over by force
# (nobody else can agree to it), and starts when that one leads: as its replica. Only a replica that had copied from it
# is asked; beside an append-only file, only one that did so until the end, and for 5 s at most. Without such a file,
# one that does not answer is waited for as long as the others need to take over by themselves. Whose disk was lost
# learns from the others that they know a master at its address.
START = """#!/bin/sh
# Passwords go from the mounted Secret into a file in memory: never onto a command line.
set -eu
umask 077
password=$(cat /etc/redis-auth/password)
if [ -s /etc/redis-auth/acl.conf ]; then
  system=$(cat /etc/redis-auth/system)
  cat /etc/redis-auth/acl.conf > /run/redis/auth.conf
  printf 'masteruser SYSTEM_USER\\nmasterauth %s\\n' "$system" >> /run/redis/auth.conf
else
  system=
  printf 'requirepass %s\\nmasterauth %s\\n' "$password" "$password" > /run/redis/auth.conf
fi

tls=
if [ -e /etc/redis-tls/ca.crt ]; then tls="--tls --cacert /etc/redis-tls/ca.crt"; fi

ask() {
  host=$1; shift; said=NOAUTH
  if [ -n "$system" ]; then
    said=$(REDISCLI_AUTH=$system timeout 2 redis-cli --no-auth-warning $tls --user SYSTEM_USER -h "$host" "$@" \
      < /dev/null 2> /dev/null) || return 1
  fi
  case "$said" in
    # A node that was started by an older Berth, and was not told yet.
    NOAUTH*)
      said=$(REDISCLI_AUTH=$password timeout 2 redis-cli --no-auth-warning $tls -h "$host" "$@" < /dev/null) \
        || return 1 ;;
  esac
  printf '%s\\n' "$said"
}

await_heir() {
  me=; asked=0; written=0; wait=20; cr=$(printf '\\r')
  if [ -s /data/nodes.conf ]; then
    members=$(cat /data/nodes.conf)
    while read -r id address flags rest; do
      case "$flags" in myself,master*) me=$id ;; esac
    done < /data/nodes.conf
  else
    members=
    for peer in @PEERS@; do
      if members=$(ask "$peer" cluster nodes 2> /dev/null); then break; fi
    done
    while read -r id address flags master ping pong epoch link slots; do
      case "$flags" in *myself*) continue ;; *master*) ;; *) continue ;; esac
      host=${address%@*}; host=${host%:*}
      if [ "$host" = "$POD_IP" ] && [ -n "$slots" ]; then me=$id; fi
    done <<MEMBERS
$members
MEMBERS
  fi
  if [ -z "$me" ]; then return 0; fi
  while read -r key value; do
    if [ "$key" = cluster-node-timeout ]; then wait=$((value / 1000 + 5)); fi
    if [ "$key $value" = "appendonly yes" ]; then
      for file in /data/appendonlydir/*; do
        if [ ! -s "$file" ]; then continue; fi
        at=$(date -r "$file" +%s)
        if [ "$at" -gt "$written" ]; then written=$at; fi
      done
    fi
  done < /etc/redis/redis.conf
  if [ "$written" -gt 0 ]; then wait=5; fi
  until=$(($(date +%s) + wait))
  while [ "$(date +%s)" -lt "$until" ]; do
    unsure=no; best=; most=-1
    while read -r id address flags master rest; do
      if [ "$master" != "$me" ]; then continue; fi
      case "$flags" in *fail|*fail,*|*noaddr*) continue ;; esac
      host=${address%@*}; host=${host%:*}
      if ! nodes=$(ask "$host" cluster nodes); then unsure=yes; continue; fi
      case "$nodes" in *"myself,master"*) return 0 ;; *"myself,slave $me "*) ;; *) continue ;; esac
      linked=no; offset=0
      while IFS=: read -r key value; do
        value=${value%"$cr"}
        case "$key=$value" in
          master_link_status=up) linked=yes ;;
          master_link_down_since_seconds=-1) ;;
          master_link_down_since_seconds=*)
            if [ $(($(date +%s) - value + 1)) -ge "$written" ]; then linked=yes; fi ;;
          slave_repl_offset=*) offset=$value ;;
        esac
      done <<INFO
$(ask "$host" info replication)
INFO
      if [ "$linked" = yes ] && [ "$offset" -gt "$most" ]; then best=$host; most=$offset; fi
    done <<MEMBERS
$members
MEMBERS
    if [ -z "$best" ]; then
      if [ "$unsure" = no ] || [ "$written" -gt 0 ]; then return 0; fi
    elif [ $((asked % 4)) = 0 ]; then
      echo "$best takes over from this master before it starts"
      ask "$best" cluster failover force || true
    fi
    asked=$((asked + 1)); sleep 0.2
  done
}

# Where persistence was changed and what it says now is not on the disk yet, the other file has the data: an append-only
# file that was written after the last snapshot, or a snapshot while there is no append-only file. Redis itself would
# start empty. It is as wished again when Berth has looked.
choose_file() {
  appends=; saves=; newer=
  while read -r key value; do
    case "$key $value" in
      "appendonly yes") appends=yes ;;
      "appendonly no") appends=no ;;
      'save ""') ;;
      "save "*) saves=yes ;;
    esac
  done < /etc/redis/redis.conf
  if [ "$appends" = yes ]; then
    if [ -s /data/dump.rdb ] && [ ! -e /data/appendonlydir/appendonly.aof.manifest ]; then echo no; fi
  elif [ "$saves" = yes ] && [ -e /data/appendonlydir/appendonly.aof.manifest ]; then
    for file in /data/appendonlydir/*; do
      if [ ! -e /data/dump.rdb ] || [ "$file" -nt /data/dump.rdb ]; then newer=yes; fi
    done
    echo "$newer"
  fi
}

await_heir || true
set -- --cluster-announce-ip "$POD_IP"
case "$(choose_file)" in
  yes) set -- "$@" --appendonly yes ;;
  no) set -- "$@" --appendonly no ;;
esac
if [ -n "${POD_HOST:-}" ]; then set -- "$@" --cluster-announce-hostname "$POD_HOST"; fi
exec redis-server /etc/redis/redis.conf "$@"
""".replace("SYSTEM_USER", users.SYSTEM)

# A server this young is not handed a shard: the others may still be connecting to it, and a vote they give meanwhile is
# lost. Measured: an election without its votes is held again after four node timeouts, however often it is asked for.
VOTES_REACH_AFTER = 2  # seconds
# What a pod has to end, before it is killed: for handing over, for what Redis itself waits for replicas that are behind
# (shutdown-timeout, 10 s), and for the last write to its disk.
GRACE_SECONDS = 30
HAND_OVER_SECONDS = 5

# Runs before the pod is ended, with the portal or without: a master hands over to a replica that is in step first.
STOP = """#!/bin/sh
export REDISCLI_AUTH="$(cat /etc/redis-auth/system 2> /dev/null)"
tls=
if [ -e /etc/redis-tls/ca.crt ]; then tls="--tls --cacert /etc/redis-tls/ca.crt"; fi
cli="redis-cli --no-auth-warning $tls --user SYSTEM_USER"
role=$($cli role 2> /dev/null | head -n 1)
case "$role" in
  master|slave) ;;
  *)
    # A node that was started by an older Berth, and was not told of its user yet.
    export REDISCLI_AUTH="$(cat /etc/redis-auth/password)"
    cli="redis-cli --no-auth-warning $tls"
    role=$($cli role | head -n 1) ;;
esac
[ "$role" = master ] || exit 0
me=$($cli cluster myid)
# Asks another pod; one that is gone, or frozen, answers nothing.
at() { host=$1; shift; timeout 1 $cli -h "$host" "$@" < /dev/null; }
# Says whether a replica was asked. One that has just started is not: the others may still be connecting to it, and an
# election whose votes are lost is not held again in time.
hand_over() {
  $cli cluster nodes | while read -r id address flags master rest; do
    case "$flags" in *fail*) continue ;; *slave*) ;; *) continue ;; esac
    [ "$master" = "$me" ] || continue
    host=${address%@*}; host=${host%:*}
    said=$(at "$host" info | tr -d '\\r')
    up=$(echo "$said" | grep '^uptime_in_seconds:') || continue
    [ "${up#*:}" -ge VOTES_REACH_AFTER ] || continue
    # One that still copies says OK, and does nothing.
    echo "$said" | grep -q '^master_link_status:up' || continue
    if at "$host" cluster failover | grep OK; then break; fi
  done | grep OK
}
# A replica refuses while its link to this node is being made anew, which others' introductions do: it is asked again.
# When the whole cluster ends nobody takes over, and nobody is waited for any longer.
tries=0; next=0; end=$(($(date +%s) + HAND_OVER_SECONDS))
while [ "$(date +%s)" -lt "$end" ]; do
  [ "$($cli role | head -n 1)" = master ] || exit 0
  if [ "$tries" -ge "$next" ]; then
    if hand_over; then next=$((tries + 10)); else next=$((tries + 3)); fi
  fi
  tries=$((tries + 1)); sleep 0.1
done
"""
for _name, _value in (
    ("VOTES_REACH_AFTER", VOTES_REACH_AFTER), ("HAND_OVER_SECONDS", HAND_OVER_SECONDS), ("SYSTEM_USER", users.SYSTEM),
):  # fmt: skip
    STOP = STOP.replace(_name, str(_value))


def auth_secret(cluster: ClusterView) -> str:
    """Name of the Secret with the passwords and the users, see users.py."""
    return f"{cluster.name}-auth"


def shard_name(cluster: ClusterView, shard: int) -> str:
    """Name of a shard's StatefulSet and disruption budget."""
    return f"{cluster.name}-s{shard}"


def scrapes(cluster: ClusterView, members: Collection[str]) -> list[Scrape]:
    """The exporter of every pod that is wished or a member, by the pod's stable name."""
    if not cluster.spec["exporter"]:
        return []
    domain = f"{cluster.name}-nodes.{cluster.namespace}.svc.cluster.local"
    pods = sorted({*rules.pod_names(cluster.name, cluster.spec), *members})
    return [Scrape(pod, f"{pod}.{domain}", EXPORTER_PORT, pod.rsplit("-", 2)[1][1:]) for pod in pods]


def start_script(cluster: ClusterView) -> str:
    """What a pod runs first. Others are asked by their common name: a lost disk leaves no address behind."""
    return START.replace("@PEERS@", f"{cluster.name}-nodes {cluster.name}")


def redis_conf(cluster: ClusterView) -> str:
    """The configuration file, equal for every node."""
    start_only = settings.start_only(cluster.spec)
    tls = encryption.settings(cluster.spec, PORT)
    ports = [f'{key} "{value}"' for key, value in tls.items()] if tls else [f"port {PORT}"]
    lines = [
        *ports,
        *encryption.conf_lines(cluster.spec),
        "protected-mode no",
        *(["tcp-backlog 128"] if "tcp-backlog" not in start_only else []),
        "daemonize no",
        "dir /data",
        "include /run/redis/auth.conf",
        "cluster-enabled yes",
        "cluster-config-file nodes.conf",
        *settings.lines(cluster.spec),
    ]
    return "\n".join(lines) + "\n"


def _object(api: str, kind: str, name: str, body: dict[str, Any], labels: dict[str, str] | None = None) -> Manifest:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "labels": labels or {}}, **body}


def _service(cluster: ClusterView, name: str, extra: dict[str, Any], ports: list[dict[str, Any]]) -> Manifest:
    selector = {**selector_labels(cluster), LABEL_COMPONENT: "redis"}
    return _object("v1", "Service", name, {"spec": {"selector": selector, "ports": ports, **extra}})


def _shard_labels(cluster: ClusterView, shard: int) -> dict[str, str]:
    return {**selector_labels(cluster), LABEL_COMPONENT: "redis", LABEL_SHARD: str(shard)}


def _affinity(cluster: ClusterView, shard: int) -> dict[str, Any]:
    term = {
        "labelSelector": {"matchLabels": _shard_labels(cluster, shard)},
        "topologyKey": "kubernetes.io/hostname",
    }
    if cluster.spec["spread"] == "hard":
        return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    weighted = {"weight": 100, "podAffinityTerm": term}
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [weighted]}}


def _spread(cluster: ClusterView) -> list[dict[str, Any]]:
    selector = {"matchLabels": {**selector_labels(cluster), LABEL_COMPONENT: "redis"}}
    return [
        {"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector}
        for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    ]


LOCKED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def _redis_container(cluster: ClusterView) -> dict[str, Any]:
    memory, cpu = f"{settings.memory_mib(cluster.spec)}Mi", f"{round(cluster.spec['cpu'] * 1000)}m"
    tls = encryption.is_on(cluster.spec)
    # Each connection without a handshake is a warning in Redis' log, but not on the bus, which opens with the other.
    probe = {"tcpSocket": {"port": BUS_PORT if tls else PORT}}
    return {
        "name": "redis",
        "image": f"docker.io/library/redis:{cluster.version}",
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "/etc/redis/start.sh"],
        "env": _environment(cluster),
        "ports": [{"name": "redis", "containerPort": PORT}, {"name": "bus", "containerPort": BUS_PORT}],
        # The limit leaves room to burst: throttling a node at start costs more than it saves.
        "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}},
        "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": 600},
        "readinessProbe": {**probe, "periodSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {**probe, "periodSeconds": 10, "failureThreshold": 6},
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "/etc/redis/stop.sh"]}}},
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "config", "mountPath": "/etc/redis", "readOnly": True},
            {"name": "auth", "mountPath": "/etc/redis-auth", "readOnly": True},
            {"name": "run", "mountPath": "/run/redis"},
            *([{"name": "tls", "mountPath": encryption.FOLDER, "readOnly": True}] if tls else []),
        ],
        "securityContext": LOCKED,
    }


def _environment(cluster: ClusterView) -> list[dict[str, Any]]:
    found = [_of_pod("POD_IP", "status.podIP")]
    if encryption.is_on(cluster.spec):
        # The name is a member's own as long as it lives, unlike its address.
        host = encryption.pod_host(cluster, "$(POD_NAME)")
        found += [_of_pod("POD_NAME", "metadata.name"), {"name": "POD_HOST", "value": host}]
    return found


def _of_pod(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _exporter_container(cluster: ClusterView) -> dict[str, Any]:
    # Not of a user clients sign in with: it is read once, and theirs change.
    secret = {"secretKeyRef": {"name": auth_secret(cluster), "key": users.SYSTEM_KEY}}
    tls = encryption.is_on(cluster.spec)
    authorities = "/etc/redis-authorities"
    return {
        "name": "exporter",
        "image": EXPORTER_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "env": [
            {"name": "REDIS_ADDR", "value": f"{'rediss' if tls else 'redis'}://localhost:{PORT}"},
            {"name": "REDIS_USER", "value": users.SYSTEM},
            {"name": "REDIS_PASSWORD", "valueFrom": secret},
            *([{"name": "REDIS_EXPORTER_TLS_CA_CERT_FILE", "value": f"{authorities}/ca.crt"}] if tls else []),
        ],
        **({"volumeMounts": [{"name": "authorities", "mountPath": authorities, "readOnly": True}]} if tls else {}),
        "ports": [{"name": "metrics", "containerPort": EXPORTER_PORT}],
        "resources": {
            "requests": {"cpu": f"{rules.EXPORTER_CPU_MILLICORES}m", "memory": f"{rules.EXPORTER_MEMORY_MIB}Mi"},
            "limits": {"memory": f"{rules.EXPORTER_MEMORY_MIB}Mi"},
        },
        "securityContext": LOCKED,
    }


def _tls_volumes(cluster: ClusterView) -> list[dict[str, Any]]:
    if not encryption.is_on(cluster.spec):
        return []
    secret = {"secretName": encryption.secret_name(cluster), "defaultMode": 0o440}
    # The exporter sees whom to trust, and no key.
    authorities = {**secret, "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    return [{"name": "tls", "secret": secret}, {"name": "authorities", "secret": authorities}]


def _stateful_set(cluster: ClusterView, shard: int) -> Manifest:
    spec = cluster.spec
    labels = {**common_labels(cluster), **_shard_labels(cluster, shard)}
    containers = [_redis_container(cluster)]
    if spec["exporter"]:
        containers.append(_exporter_container(cluster))
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "affinity": _affinity(cluster, shard),
        "topologySpreadConstraints": _spread(cluster),
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": containers,
        "volumes": [
            {"name": "config", "configMap": {"name": f"{cluster.name}-config"}},
            {"name": "auth", "secret": {"secretName": auth_secret(cluster), "defaultMode": 0o440}},
            {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            *_tls_volumes(cluster),
        ],
    }  # fmt: skip
    claim = {
        "metadata": {"name": "data", "labels": labels},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": spec["storageClass"],
            "resources": {"requests": {"storage": f"{spec['storageGiB']}Gi"}},
        },
    }
    body = {
        "serviceName": f"{cluster.name}-nodes",
        "replicas": spec["replicasPerShard"] + 1,
        "podManagementPolicy": "Parallel",
        # Restarts are ours to order: replicas first, then fail over, then the old master.
        "updateStrategy": {"type": "OnDelete"},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        "selector": {"matchLabels": _shard_labels(cluster, shard)},
        "template": {
            "metadata": {
                "labels": {**labels, **({LABEL_TLS: "on"} if encryption.is_on(spec) else {})},
                **template_annotations(cluster, settings.start_only(cluster.spec)),
            },
            "spec": pod,
        },
        "volumeClaimTemplates": [claim],
    }
    return _object("apps/v1", "StatefulSet", shard_name(cluster, shard), {"spec": body}, {LABEL_SHARD: str(shard)})


def render(cluster: ClusterView) -> list[Manifest]:
    """All objects but the Secret."""
    client = [{"name": "redis", "port": PORT, "targetPort": "redis"}]
    every = [*client, {"name": "bus", "port": BUS_PORT, "targetPort": "bus"}]
    if cluster.spec["exporter"]:
        every.append({"name": "metrics", "port": EXPORTER_PORT, "targetPort": "metrics"})
    files = {"redis.conf": redis_conf(cluster), "start.sh": start_script(cluster), "stop.sh": STOP}
    shards = range(cluster.spec["shards"])
    return [
        _object("v1", "ConfigMap", f"{cluster.name}-config", {"data": files}),
        _service(cluster, f"{cluster.name}-nodes", {"clusterIP": "None", "publishNotReadyAddresses": True}, every),
        _service(cluster, cluster.name, {}, client),
        *(
            _object(
                "policy/v1", "PodDisruptionBudget", shard_name(cluster, shard),
                {"spec": {"maxUnavailable": 1, "selector": {"matchLabels": _shard_labels(cluster, shard)}}},
                {LABEL_SHARD: str(shard)},
            )
            for shard in shards
        ),
        *(_stateful_set(cluster, shard) for shard in shards),
    ]  # fmt: skip
