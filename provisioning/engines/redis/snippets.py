"""Connection examples."""

from __future__ import annotations

from provisioning.engines.base import ClusterView, Snippet
from provisioning.engines.redis.encryption import is_on, service_host
from provisioning.engines.redis.manifests import PORT


def ca_file(cluster: ClusterView) -> str:
    """The name examples give the file with the authorities to trust."""
    return f"{cluster.name}-ca.crt"


def snippets(cluster: ClusterView) -> tuple[Snippet, ...]:
    """For the shell, Python, Java and Go."""
    address, tls, trusted = service_host(cluster), is_on(cluster.spec), ca_file(cluster)
    # The file is what the cluster's page offers, and GET …/certificate says as "authority".
    options = f" --tls --cacert {trusted}" if tls else ""
    shell = f"""export REDISCLI_AUTH='{{password}}'
redis-cli -c -h {address} -p {PORT}{options} set greeting hello
redis-cli -c -h {address} -p {PORT}{options} get greeting
"""
    if tls:
        return (
            Snippet("shell", "redis-cli", f"# {trusted}: the cluster's CA certificate\n{shell}"),
            Snippet("python", "Python (redis-py)", _python_tls(address, trusted)),
            Snippet("java", "Java (Lettuce)", _java_tls(address, trusted)),
            Snippet("go", "Go (go-redis)", _go_tls(address, trusted)),
        )
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


def _python_tls(address: str, trusted: str) -> str:
    return f"""from redis.cluster import RedisCluster

client = RedisCluster(
    host="{address}", port={PORT}, password="{{password}}",
    ssl=True, ssl_ca_certs="{trusted}", ssl_check_hostname=True,
)
client.set("greeting", "hello")
print(client.get("greeting"))
"""


def _java_tls(address: str, trusted: str) -> str:
    return f"""RedisURI uri = RedisURI.builder().withHost("{address}").withPort({PORT})
    .withPassword("{{password}}".toCharArray()).withSsl(true).build();
RedisClusterClient client = RedisClusterClient.create(uri);
client.setOptions(ClusterClientOptions.builder()
    .sslOptions(SslOptions.builder().trustManager(new File("{trusted}")).build()).build());
try (StatefulRedisClusterConnection<String, String> connection = client.connect()) {{
    connection.sync().set("greeting", "hello");
    System.out.println(connection.sync().get("greeting"));
}}
"""


def _go_tls(address: str, trusted: str) -> str:
    return f"""trusted, err := os.ReadFile("{trusted}")
if err != nil {{
    log.Fatal(err)
}}
pool := x509.NewCertPool()
pool.AppendCertsFromPEM(trusted)
client := redis.NewClusterClient(&redis.ClusterOptions{{
    Addrs:     []string{{"{address}:{PORT}"}},
    Password:  "{{password}}",
    TLSConfig: &tls.Config{{RootCAs: pool, MinVersion: tls.VersionTLS12}},
}})
client.Set(ctx, "greeting", "hello", 0)
fmt.Println(client.Get(ctx, "greeting").Val())
"""
