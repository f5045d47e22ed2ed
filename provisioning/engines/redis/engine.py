"""The engine object the core uses."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

from provisioning.engines.base import (
    Access,
    Advance,
    Blocked,
    CertificateSpec,
    Change,
    ClusterView,
    Demand,
    Endpoint,
    Field,
    Link,
    Manifest,
    Problem,
    Proof,
    Pulse,
    Scrape,
    SecretSpec,
    Snippet,
    Spec,
    StepTitle,
    TargetView,
    UserRules,
    World,
)
from provisioning.engines.redis import encryption, manifests, proof, snippets, spec, topology, users


class RedisEngine:
    """See engines.base.Engine."""

    name = "redis"
    title = "Redis Cluster"
    summary = "In-memory keys and values, spread over shards with replicas; fails over by itself."
    versions = spec.VERSIONS
    upgrades = spec.UPGRADES
    reserves_addresses = True
    pulse = Pulse("redis", manifests.PORT, b"PING\r\n", manifests.BUS_PORT)
    dashboard = "berth-redis"
    fields: tuple[Field, ...] = spec.FIELDS

    user_rules: UserRules | None = users.RULES

    def check_user(self, name: str, access: Access) -> Sequence[Problem]:
        return users.check(name, access)

    def user_steps(self) -> Sequence[StepTitle]:
        return [topology.USERS]

    def password_key(self, user: str, version: int) -> str:
        return users.password_key(user, version)

    def check(self, spec_: Spec) -> Sequence[Problem]:
        return spec.check(spec_)

    def plan_order(self, spec_: Spec) -> Sequence[Change]:
        return spec.plan_order(spec_)

    def preflight(self, spec_: Spec, target: TargetView) -> Sequence[Problem]:
        return spec.preflight(spec_, target)

    def demand(self, spec_: Spec) -> Demand:
        return spec.demand(spec_)

    def plan_change(self, before: Spec, after: Spec, target: TargetView) -> Sequence[Change]:
        return spec.plan_change(before, after, target)

    def plan_restart(self, spec_: Spec) -> Change:
        return spec.plan_restart(spec_)

    def plan_upgrade(self, spec_: Spec, before: str, after: str) -> Change:
        return spec.plan_upgrade(spec_, before, after)

    def plan_rebalance(self, spec_: Spec) -> Change:
        return spec.plan_rebalance(spec_)

    def rebalance_steps(self) -> Sequence[StepTitle]:
        return topology.REBALANCE

    def loss_steps(self) -> Sequence[StepTitle]:
        return topology.STEPS

    def change_steps(self, changes: Sequence[Change]) -> Sequence[StepTitle]:
        return topology.change_steps(changes)

    def secrets(self, cluster: ClusterView) -> Sequence[SecretSpec]:
        made = dict.fromkeys((users.DEFAULT_KEY, users.SYSTEM_KEY), users.PASSWORD_LENGTH)
        wished = cluster.users
        content = None if wished is None else partial(users.secret_content, wished)
        return [SecretSpec(manifests.auth_secret(cluster), made, users.DEFAULT, users.DEFAULT_KEY, content)]

    def certificates(self, cluster: ClusterView) -> Sequence[CertificateSpec]:
        return encryption.certificates(cluster)

    def render(self, cluster: ClusterView) -> Sequence[Manifest]:
        return manifests.render(cluster)

    def steps(self, cluster: ClusterView) -> Sequence[StepTitle]:
        return topology.STEPS

    def advance(self, cluster: ClusterView, world: World, link: Link) -> Advance:
        return topology.advance(cluster, world, link)

    def observe(self, cluster: ClusterView, world: World, link: Link) -> Advance:
        return topology.observe(cluster, world, link)

    def foresee(self, cluster: ClusterView, world: World, link: Link) -> Blocked | None:
        return topology.foresee(cluster, world, link)

    def prove(self, cluster: ClusterView, world: World, link: Link) -> Proof:
        return proof.prove(cluster, world, link)

    def endpoints(self, cluster: ClusterView) -> Sequence[Endpoint]:
        # As in the URLs of clients: with two s it is encrypted.
        scheme = "rediss" if encryption.is_on(cluster.spec) else "redis"
        return [Endpoint(scheme, encryption.service_host(cluster), manifests.PORT)]

    def snippets(self, cluster: ClusterView) -> Sequence[Snippet]:
        return snippets.snippets(cluster)

    def scrapes(self, cluster: ClusterView, members: Collection[str] = ()) -> Sequence[Scrape]:
        return manifests.scrapes(cluster, members)
