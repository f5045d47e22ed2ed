"""Command lines and configuration files of every piece: pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.images.table import COREDNS, PAUSE
from sandbox.layout import (
    API_ADDRESS,
    API_PORT,
    CALICO_PLUGIN,
    CLUSTER_DOMAIN,
    DNS_SERVICE,
    LOOPBACK_SERVICE_RANGE,
    POD_SUBNET,
    SERVICE_RANGE,
    Layout,
    Node,
)

MAX_PODS = 60


@dataclass(frozen=True)
class Api:
    """Where the API server listens."""

    address: str
    port: int
    service_range: str
    has_nodes: bool

    @property
    def url(self) -> str:
        return f"https://{self.address}:{self.port}"


WITH_NODES = Api(API_ADDRESS, API_PORT, SERVICE_RANGE, has_nodes=True)


def without_nodes(port: int) -> Api:
    """A control plane alone, on the host's loopback."""
    return Api("127.0.0.1", port, LOOPBACK_SERVICE_RANGE, has_nodes=False)


def apiserver(layout: Layout, api: Api) -> list[str]:
    """Arguments of kube-apiserver but for where etcd is."""
    pki = layout.pki
    return [
        f"--bind-address={'0.0.0.0' if api.has_nodes else api.address}",
        f"--secure-port={api.port}",
        f"--advertise-address={api.address}",
        "--authorization-mode=Node,RBAC",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={pki}/sa.key",
        f"--service-account-key-file={pki}/sa.pub",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--endpoint-reconciler-type={'lease' if api.has_nodes else 'none'}",
        f"--service-cluster-ip-range={api.service_range}",
        "--profiling=false",
    ]


def controller_manager(layout: Layout, api: Api) -> list[str]:
    """Arguments of kube-controller-manager; with default limits and periods small clusters would wait for nothing."""
    pki = layout.pki
    arguments = [
        f"--kubeconfig={pki}/controller-manager.kubeconfig",
        "--use-service-account-credentials",
        f"--root-ca-file={pki}/ca.crt",
        f"--service-account-private-key-file={pki}/sa.key",
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        "--allocate-node-cidrs=false",
        "--kube-api-qps=300",
        "--kube-api-burst=300",
        "--pvclaimbinder-sync-period=1s",
        "--node-monitor-period=2s",
        "--node-monitor-grace-period=12s",
        "--leader-elect=false",
        "--secure-port=0",
        "--profiling=false",
    ]
    if not api.has_nodes:
        # Tests write pod status themselves, with addresses in 127.0.0.0/8, which endpoints may not hold.
        arguments.append(
            "--controllers=*,-endpoints-controller,-endpointslice-controller,-endpointslice-mirroring-controller"
        )
    return arguments


def scheduler(layout: Layout) -> list[str]:
    """Arguments of kube-scheduler."""
    return [f"--kubeconfig={layout.pki}/scheduler.kubeconfig", "--leader-elect=false", "--secure-port=0"]


def certificate_arguments(layout: Layout, api: Api, nodes: Sequence[Node]) -> list[str]:
    """Arguments of our certificate maker."""
    names = ["localhost", "127.0.0.1", api.address, "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    first = ".".join([*api.service_range.split(".")[:3], "1"])
    names += [f"kubernetes.default.svc.{CLUSTER_DOMAIN}", first]
    return [
        f"--dir={layout.pki}",
        f"--server={api.url}",
        f"--server-names={','.join(dict.fromkeys(names))}",
        f"--nodes={','.join(f'{node.name}={node.address}' for node in nodes)}",
    ]


def containerd(layout: Layout, node: Node, cni_programs: Path) -> str:
    """containerd's configuration (version 2, read by 1.6 and 1.7)."""
    folder = layout.node(node)
    return f"""version = 2
root = "{folder}/containerd"
state = "{layout.run}/{node.name}/state"
oom_score = 0
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "{layout.socket(node)}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # A machine without CAP_SYS_RESOURCE cannot lower a score; without this runc dies there.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_programs}"
    conf_dir = "{folder}/cni"
"""


def cni(layout: Layout, node: Node) -> dict[str, Any]:
    """The node's network: a bridge, addresses from its range, host ports."""
    return {
        "cniVersion": "1.0.0",
        "name": f"berth-{node.name}",
        "plugins": [
            {
                "type": "bridge",
                "bridge": node.bridge,
                "isGateway": True,
                "ipMasq": False,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": node.pod_range}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": str(layout.node(node) / "ipam"),
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def cni_calico(layout: Layout, node: Node) -> dict[str, Any]:
    """The node's network with our model of Calico: a cable per pod and a route per address, as Calico's own are."""
    return {
        "cniVersion": "1.0.0",
        "name": "k8s-pod-network",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": CALICO_PLUGIN,
                    "node": node.name,
                    "subnet": POD_SUBNET,
                    "gateway": node.address,
                    "kubeconfig": str(layout.inside_kubeconfig),
                    "lock": str(layout.node(node) / "ipam.lock"),
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def calico_plugin(python: Path, root: Path) -> str:
    """The program containerd starts for an address. Without site-packages: it needs none, and each pod waits for it."""
    return f"""#!/bin/sh
PYTHONPATH={shlex.quote(str(root))} exec {shlex.quote(str(python))} -S -B -m sandbox.calico.plugin
"""


def kubelet_configuration(layout: Layout, node: Node) -> dict[str, Any]:
    """KubeletConfiguration. Short periods, so that a lost node is noticed in seconds; no eviction on a full laptop."""
    pki, folder = layout.pki, layout.node(node)
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": f"{pki}/ca.crt"}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{pki}/kubelet-{node.name}.crt",
        "tlsPrivateKeyFile": f"{pki}/kubelet-{node.name}.key",
        "containerRuntimeEndpoint": f"unix://{layout.socket(node)}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}/{node.name}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": ["pods"],
        "oomScoreAdj": 0,
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": str(layout.state / "empty-resolv.conf"),
        "podLogsDir": str(folder / "pod-logs"),
        "maxPods": MAX_PODS,
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 200,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "nodeStatusUpdateFrequency": "3s",
        "nodeStatusReportFrequency": "1m",
        "nodeLeaseDurationSeconds": 12,
        "healthzPort": 0,
        "volumePluginDir": str(folder / "plugins"),
        "shutdownGracePeriod": "0s",
    }


def kubelet(layout: Layout, node: Node) -> list[str]:
    """Arguments of kubelet."""
    folder = layout.node(node)
    return [
        f"--config={folder}/kubelet.json",
        f"--kubeconfig={layout.pki}/{node.name}.kubeconfig",
        f"--root-dir={folder}/kubelet",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
        f"--node-labels=topology.kubernetes.io/zone={node.zone},topology.kubernetes.io/region=local",
    ]


def proxy_configuration(layout: Layout, node: Node) -> dict[str, Any]:
    """KubeProxyConfiguration. One proxy serves all nodes, which share one network namespace."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": f"{layout.pki}/kube-proxy.kubeconfig"},
        "hostnameOverride": node.name,
        "healthzBindAddress": "",
        "metricsBindAddress": "127.0.0.1:10249",
        "clusterCIDR": "10.244.0.0/16",
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        # A killed pod must stop being an answer at once.
        "nftables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
    }


def dns_manifests(replicas: int) -> list[dict[str, Any]]:
    """CoreDNS: ServiceAccount, rights, configuration, Deployment, Service."""
    name, namespace = "coredns", "kube-system"
    labels = {"k8s-app": "kube-dns"}
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    corefile = f""".:53 {{
    errors
    health :8080 {{
        lameduck 1s
    }}
    ready :8181
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        pods insecure
        ttl 5
    }}
    cache 5
}}
"""
    probe = {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1}
    container = {
        "name": "coredns",
        "image": COREDNS,
        "imagePullPolicy": "IfNotPresent",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [
            {"containerPort": 53, "name": "dns", "protocol": "UDP"},
            {"containerPort": 53, "name": "dns-tcp", "protocol": "TCP"},
        ],
        "readinessProbe": probe,
        "resources": {"requests": {"cpu": "20m", "memory": "40Mi"}, "limits": {"memory": "170Mi"}},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    spec = {
        "serviceAccountName": name,
        "dnsPolicy": "Default",
        "priorityClassName": "system-cluster-critical",
        "terminationGracePeriodSeconds": 2,
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": name}}],
    }

    def thing(
        kind: str, api: str, body: Mapping[str, Any], *, named: str = name, scoped: bool = True
    ) -> dict[str, Any]:
        metadata = {"name": named, "labels": labels, **({"namespace": namespace} if scoped else {})}
        return {"apiVersion": api, "kind": kind, "metadata": metadata, **body}

    rbac = "rbac.authorization.k8s.io"
    return [
        thing("ServiceAccount", "v1", {}),
        thing("ClusterRole", f"{rbac}/v1", {"rules": rules}, named="system:coredns", scoped=False),
        thing(
            "ClusterRoleBinding",
            f"{rbac}/v1",
            {
                "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "system:coredns"},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
            },
            named="system:coredns",
            scoped=False,
        ),
        thing("ConfigMap", "v1", {"data": {"Corefile": corefile}}),
        thing(
            "Deployment",
            "apps/v1",
            {
                "spec": {
                    "replicas": replicas,
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": spec},
                }
            },
        ),
        thing(
            "Service",
            "v1",
            {
                "spec": {
                    "clusterIP": DNS_SERVICE,
                    "selector": labels,
                    "ports": [
                        {"name": "dns", "port": 53, "protocol": "UDP"},
                        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
                    ],
                }
            },
            named="kube-dns",
        ),
    ]


def as_list(manifests: Sequence[Mapping[str, Any]]) -> str:
    """One JSON document for kubectl."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
