"""Connection examples."""

from __future__ import annotations

from provisioning.engines.base import ClusterView, Snippet
from provisioning.engines.redis.manifests import PORT


def host(cluster: ClusterView) -> str:
    """The address clients use."""
    return f"{cluster.name}.{cluster.namespace}.svc.cluster.local"


def snippets(cluster: ClusterView) -> tuple[Snippet, ...]:
    """For the shell, Python, Java and Go."""
    address = host(cluster)
    shell = f"""export REDISCLI_AUTH='{{password}}'
redis-cli -c -h {address} -p {PORT} set greeting hello
redis-cli -c -h {address} -p {PORT} get greeting
"""
    python = f"""from redis.cluster import RedisCluster

client = RedisCluster(host="{address}", port={PORT}, password="{{password}}")
client.set("greeting", "hello")
print(client.get("greeting"))
"""
    java = f"""RedisURI uri = RedisURI.builder().withHost("{address}").withPort({PORT})
    .withPassword("{{password}}".toCharArray()).build();
RedisClusterClient client = RedisClusterClient.create(uri);
try (StatefulRedisClusterConnection<String, String> connection = client.connect()) {{
    connection.sync().set("greeting", "hello");
    System.out.println(connection.sync().get("greeting"));
}}
"""
    go = f"""client := redis.NewClusterClient(&redis.ClusterOptions{{
    Addrs:    []string{{"{address}:{PORT}"}},
    Password: "{{password}}",
}})
client.Set(ctx, "greeting", "hello", 0)
fmt.Println(client.Get(ctx, "greeting").Val())
"""
    return (
        Snippet("shell", "redis-cli", shell),
        Snippet("python", "Python (redis-py)", python),
        Snippet("java", "Java (Lettuce)", java),
        Snippet("go", "Go (go-redis)", go),
    )
