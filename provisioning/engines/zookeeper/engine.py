"""The engine object the core uses."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

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
from provisioning.engines.zookeeper import manifests, snippets, spec, topology

PASSWORD_LENGTH = 32


class ZooKeeperEngine:
    """See engines.base.Engine."""

    name = "zookeeper"
    title = "ZooKeeper"
    summary = "Coordination: small data, ordered, kept by an ensemble behind one stable address."
    versions = spec.VERSIONS
    # None is proven yet.
    upgrades: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    reserves_addresses = True
    pulse = Pulse("zookeeper", manifests.CLIENT_PORT, b"ruok")
    dashboard = ""
    fields: tuple[Field, ...] = spec.FIELDS

    user_rules: UserRules | None = None

    def check_user(self, name: str, access: Access) -> Sequence[Problem]:
        return []

    def user_steps(self) -> Sequence[StepTitle]:
        return []

    def password_key(self, user: str, version: int) -> str:
        return "password"

    def check(self, spec_: Spec) -> Sequence[Problem]:
        return []

    def plan_order(self, spec_: Spec) -> Sequence[Change]:
        return []

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
        return []

    def loss_steps(self) -> Sequence[StepTitle]:
        return []

    def change_steps(self, changes: Sequence[Change]) -> Sequence[StepTitle]:
        return topology.change_steps(changes)

    def secrets(self, cluster: ClusterView) -> Sequence[SecretSpec]:
        return [SecretSpec(manifests.auth_secret(cluster), {"password": PASSWORD_LENGTH}, manifests.PRINCIPAL)]

    def certificates(self, cluster: ClusterView) -> Sequence[CertificateSpec]:
        return []

    def render(self, cluster: ClusterView) -> Sequence[Manifest]:
        return manifests.render(cluster)

    def steps(self, cluster: ClusterView) -> Sequence[StepTitle]:
        return topology.STEPS

    def advance(self, cluster: ClusterView, world: World, link: Link) -> Advance:
        return topology.advance(cluster, world, link)

    def observe(self, cluster: ClusterView, world: World, link: Link) -> Advance:
        return topology.observe(cluster, world, link)

    def foresee(self, cluster: ClusterView, world: World, link: Link) -> Blocked | None:
        return None

    def prove(self, cluster: ClusterView, world: World, link: Link) -> Proof:
        return topology.prove(cluster, world, link)

    def endpoints(self, cluster: ClusterView) -> Sequence[Endpoint]:
        return [Endpoint("zookeeper", snippets.host(cluster), manifests.CLIENT_PORT)]

    def snippets(self, cluster: ClusterView) -> Sequence[Snippet]:
        return snippets.snippets(cluster)

    def scrapes(self, cluster: ClusterView, members: Collection[str] = ()) -> Sequence[Scrape]:
        return manifests.scrapes(cluster, members)
