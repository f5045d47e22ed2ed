"""Manifests of a ZooKeeper ensemble: pure.

Servers know each other by the stable names of the headless Service and resolve them anew for every connection, so all
pod addresses may change at once. Clients use the client Service's one stable address.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from provisioning.engines.base import (
    LABEL_COMPONENT,
    ClusterView,
    Manifest,
    Scrape,
    common_labels,
    selector_labels,
    template_annotations,
)
from provisioning.engines.zookeeper import spec as rules

CLIENT_PORT, PEER_PORT, ELECTION_PORT, METRICS_PORT = 2181, 2888, 3888, 7000
USER = 1000
DEFAULT_TICK_MS = next(field.default for field in rules.FIELDS if field.key == "tickTimeMs")
PRINCIPAL = "client"

# The password goes from the mounted Secret into a JAAS file in memory, never onto a command line. A session without it
# is closed (sessionRequireClientSASLAuth).
START = """#!/bin/sh
set -eu
umask 077
ordinal=${HOSTNAME##*-}
echo $((ordinal + 1)) > /data/myid
password=$(cat /etc/zookeeper-auth/password)
cat > /run/zookeeper/jaas.conf <<JAAS
Server {
    org.apache.zookeeper.server.auth.DigestLoginModule required
    user_client="$password";
};
JAAS
exec zkServer.sh start-foreground /etc/zookeeper/zoo.cfg
"""

SECURITY = "networkaddress.cache.ttl=1\nnetworkaddress.cache.negative.ttl=0\n"


def auth_secret(cluster: ClusterView) -> str:
    """Name of the Secret with the clients' password."""
    return f"{cluster.name}-auth"


def scrapes(cluster: ClusterView, members: Collection[str]) -> list[Scrape]:
    """Every server gives its own metrics."""
    domain = f"{cluster.name}-nodes.{cluster.namespace}.svc.cluster.local"
    pods = sorted({*(f"{cluster.name}-{number}" for number in range(rules.servers(cluster.spec))), *members})
    return [Scrape(pod, f"{pod}.{domain}", METRICS_PORT) for pod in pods]


def zoo_cfg(cluster: ClusterView, names: list[str] | None = None) -> str:
    """The configuration file, equal for every server. `names` replaces the servers' host names, for tests."""
    count = rules.servers(cluster.spec)
    headless = f"{cluster.name}-nodes.{cluster.namespace}.svc.cluster.local"
    hosts = names or [f"{cluster.name}-{number}.{headless}" for number in range(count)]
    lines = [
        "dataDir=/data",
        f"tickTime={cluster.spec['tickTimeMs']}",
        "initLimit=20",
        "syncLimit=5",
        "maxClientCnxns=0",
        f"clientPort={CLIENT_PORT}",
        "standaloneEnabled=false" if count > 1 else "standaloneEnabled=true",
        "quorumListenOnAllIPs=true",
        "autopurge.snapRetainCount=3",
        "autopurge.purgeInterval=1",
        "admin.enableServer=false",
        "4lw.commands.whitelist=srvr,mntr,ruok",
        "metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider",
        f"metricsProvider.httpPort={METRICS_PORT}",
    ]
    if count > 1:
        lines += [f"server.{index + 1}={host}:{PEER_PORT}:{ELECTION_PORT}" for index, host in enumerate(hosts)]
    return "\n".join(lines) + "\n"


def java_flags(cluster: ClusterView) -> list[str]:
    """Flags of the Java machine: half the memory for the heap; short-lived name lookups."""
    return [
        f"-Xmx{cluster.spec['memoryMiB'] // 2}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Djava.security.properties=/etc/zookeeper/security.properties",
        "-Djava.security.auth.login.config=/run/zookeeper/jaas.conf",
        "-Dzookeeper.authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider",
        "-Dzookeeper.sessionRequireClientSASLAuth=true",
        # DIGEST-MD5 does not exist in FIPS mode, which is on by default since 3.9.
        "-Dzookeeper.fips-mode=false",
    ]


def _labels(cluster: ClusterView) -> dict[str, str]:
    return {**selector_labels(cluster), LABEL_COMPONENT: "zookeeper"}


def _affinity(cluster: ClusterView) -> dict[str, Any]:
    term = {"labelSelector": {"matchLabels": _labels(cluster)}, "topologyKey": "kubernetes.io/hostname"}
    if cluster.spec["spread"] == "hard":
        return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    weighted = {"weight": 100, "podAffinityTerm": term}
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [weighted]}}


def _pod(cluster: ClusterView) -> dict[str, Any]:
    memory, cpu = f"{cluster.spec['memoryMiB']}Mi", f"{round(cluster.spec['cpu'] * 1000)}m"
    probe = {"tcpSocket": {"port": CLIENT_PORT}}
    mounts = [("data", "/data"), ("run", "/run/zookeeper"), ("logs", "/logs"), ("tmp", "/tmp"), ("datalog", "/datalog")]
    ports = {"client": CLIENT_PORT, "peer": PEER_PORT, "election": ELECTION_PORT, "metrics": METRICS_PORT}
    container = {
        "name": "zookeeper",
        "image": f"docker.io/library/zookeeper:{cluster.version}",
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "/etc/zookeeper/start.sh"],
        "env": [{"name": "SERVER_JVMFLAGS", "value": " ".join(java_flags(cluster))}],
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
        "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}},
        "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": 600},
        "readinessProbe": {**probe, "periodSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {**probe, "periodSeconds": 10, "failureThreshold": 6},
        "volumeMounts": [
            *({"name": name, "mountPath": path} for name, path in mounts),
            {"name": "config", "mountPath": "/etc/zookeeper", "readOnly": True},
            {"name": "auth", "mountPath": "/etc/zookeeper-auth", "readOnly": True},
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        },
    }  # fmt: skip
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 15,
        "affinity": _affinity(cluster),
        "topologySpreadConstraints": [
            {
                "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": _labels(cluster)},
            }
        ],
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": f"{cluster.name}-config"}},
            {"name": "auth", "secret": {"secretName": auth_secret(cluster), "defaultMode": 0o440}},
            {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            *({"name": name, "emptyDir": {}} for name in ("logs", "tmp", "datalog")),
        ],
    }  # fmt: skip


def _annotations(cluster: ClusterView) -> dict[str, Any]:
    tick = cluster.spec["tickTimeMs"]
    return template_annotations(cluster, {} if tick == DEFAULT_TICK_MS else {"tickTime": str(tick)})


def render(cluster: ClusterView) -> list[Manifest]:
    """All objects but the Secret."""
    labels = {**common_labels(cluster), **_labels(cluster)}

    def thing(api: str, kind: str, name: str, body: dict[str, Any]) -> Manifest:
        return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "labels": {}}, **body}

    def service(name: str, ports: dict[str, int], **extra: Any) -> Manifest:
        listed = [{"name": key, "port": port, "targetPort": key} for key, port in ports.items()]
        return thing("v1", "Service", name, {"spec": {"selector": _labels(cluster), "ports": listed, **extra}})

    every = {"client": CLIENT_PORT, "peer": PEER_PORT, "election": ELECTION_PORT, "metrics": METRICS_PORT}
    claim = {
        "metadata": {"name": "data", "labels": labels},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": cluster.spec["storageClass"],
            "resources": {"requests": {"storage": f"{cluster.spec['storageGiB']}Gi"}},
        },
    }
    stateful = {
        "serviceName": f"{cluster.name}-nodes",
        "replicas": rules.servers(cluster.spec),
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "OnDelete"},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        "selector": {"matchLabels": _labels(cluster)},
        "template": {"metadata": {"labels": labels, **_annotations(cluster)}, "spec": _pod(cluster)},
        "volumeClaimTemplates": [claim],
    }
    files = {"zoo.cfg": zoo_cfg(cluster), "start.sh": START, "security.properties": SECURITY}
    budget = {"spec": {"maxUnavailable": 1, "selector": {"matchLabels": _labels(cluster)}}}
    return [
        thing("v1", "ConfigMap", f"{cluster.name}-config", {"data": files}),
        service(f"{cluster.name}-nodes", every, clusterIP="None", publishNotReadyAddresses=True),
        service(cluster.name, {"client": CLIENT_PORT}),
        thing("policy/v1", "PodDisruptionBudget", cluster.name, budget),
        thing("apps/v1", "StatefulSet", cluster.name, {"spec": stateful}),
    ]
