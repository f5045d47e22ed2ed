"""Connection examples. All go through the Service's stable address."""

from __future__ import annotations

from provisioning.engines.base import ClusterView, Snippet
from provisioning.engines.zookeeper.manifests import CLIENT_PORT, PRINCIPAL


def host(cluster: ClusterView) -> str:
    """The address clients use."""
    return f"{cluster.name}.{cluster.namespace}.svc.cluster.local"


def snippets(cluster: ClusterView) -> tuple[Snippet, ...]:
    """For the shell, Java (Curator) and Python (kazoo)."""
    address = f"{host(cluster)}:{CLIENT_PORT}"
    jaas = f"""Client {{
    org.apache.zookeeper.server.auth.DigestLoginModule required
    username="{PRINCIPAL}" password="{{password}}";
}};"""
    shell = f"""cat > client-jaas.conf <<'JAAS'
{jaas}
JAAS
export CLIENT_JVMFLAGS="-Djava.security.auth.login.config=client-jaas.conf -Dzookeeper.fips-mode=false"
zkCli.sh -server {address} create /greeting hello
"""
    java = f"""// With client-jaas.conf as for zkCli.sh. ensembleTracker(false) keeps Curator on the Service's stable
// address: the servers' own addresses, which it would follow otherwise, change with every restart.
CuratorFramework client = CuratorFrameworkFactory.builder()
    .connectString("{address}")
    .ensembleTracker(false)
    .retryPolicy(new ExponentialBackoffRetry(200, 10))
    .build();
client.start();
client.create().orSetData().forPath("/greeting", "hello".getBytes());
"""
    python = f"""from kazoo.client import KazooClient

client = KazooClient(
    hosts="{address}",
    sasl_options={{"mechanism": "DIGEST-MD5", "username": "{PRINCIPAL}", "password": "{{password}}"}},
)
client.start()
client.ensure_path("/greeting")
"""
    return (
        Snippet("shell", "zkCli.sh", shell),
        Snippet("java", "Java (Curator)", java),
        Snippet("python", "Python (kazoo)", python),
    )
