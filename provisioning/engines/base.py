"""The seam between the core and an engine.

An engine is one folder that implements `Engine` and one line in `registry.py`. Everything an engine may know comes in
as the frozen values below, and everything it may do to the outside goes through `Link`; so this module, like every
engine, imports neither Django nor the Kubernetes client.

How the core uses an engine, for one cluster:

1. form and API: `fields`, `check`, `preflight`, `demand`, `plan_change`, `endpoints`, `snippets`;
2. step "apply": `secrets` (made once; only what `SecretSpec.content` says is ever written again), then `render`;
3. steps "schedule" and "start" are the core's own: pods placed and volumes bound, containers started;
4. the engine's steps (`steps`): `advance` is called on every relevant change until it reports `healthy`;
5. step "proof": `prove` writes and reads through the advertised address with the issued credential;
6. for the rest of the cluster's life `advance` goes on being called; the same code heals.
"""

from __future__ import annotations

import enum
import hashlib
import json
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

# A complete spec: plan-field key (camelCase) to a JSON value; what `Engine.check` has accepted.
Spec = Mapping[str, Any]
# One Kubernetes object as a plain dict, ready to be encoded as JSON.
Manifest = dict[str, Any]


class Effect(enum.StrEnum):
    """What changing a field does to a running cluster, mildest first."""

    LIVE = "live"  # no restart
    ROLL = "roll"  # one pod at a time
    MOVE = "move"  # data moves between nodes
    FIXED = "fixed"  # refused: needs a new cluster
    LOSS = "loss"  # can lose data


FieldKind = Literal["integer", "number", "string", "enum", "boolean", "storage-class", "map"]


@dataclass(frozen=True)
class Field:
    """One plan field: describes the form and is the rule the API checks.

    `minimum`, `maximum` and `step` are in `unit`; `choices` only for enum; the form folds `advanced` fields away.
    A map with `entries` takes these keys only, each a field of its own; its values are of the entries' kinds, or their
    text. `refused` says of other keys, as shell patterns, why they are not taken.
    """

    key: str
    title: str
    kind: FieldKind
    default: Any
    effect: Effect
    help: str = ""
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()
    group: str = "Size"
    advanced: bool = False
    entries: tuple[Field, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a spec: `pointer` is an RFC 6901 JSON pointer below /spec, such as "/shards"."""

    pointer: str
    code: str
    message: str


@dataclass(frozen=True)
class Demand:
    """What a cluster asks of its tenant's quota: millicores, MiB, and MiB of storage by class name."""

    pods: int
    cpu_millicores: int
    memory_mib: int
    storage_mib: Mapping[str, int]


@dataclass(frozen=True)
class TargetView:
    """What is known of a target when a spec is checked. `nodes` counts schedulable nodes; None means not yet known.

    Volumes of `fixed_classes` cannot grow.
    """

    name: str
    nodes: int | None
    zones: int | None
    storage_classes: tuple[str, ...]
    fixed_classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Access:
    """What a user may do: keys and channels that begin with one of these ("*" stands for all), groups of commands."""

    key_prefixes: tuple[str, ...]
    channel_prefixes: tuple[str, ...]
    commands: tuple[str, ...]


@dataclass(frozen=True)
class User:
    """An account of a cluster's clients, as wished. `access` None: everything.

    `versions` are its passwords that are to work, the newest first. `newest_since` is when the newest worked on every
    member, None: not yet. `watched`: the engine is to look for whoever may still use an older one.
    """

    name: str
    versions: tuple[int, ...]
    access: Access | None = None
    enabled: bool = True
    newest_since: datetime | None = None
    watched: bool = False


@dataclass(frozen=True)
class CommandGroup:
    """A group of commands a user can be given."""

    key: str
    title: str
    help: str


@dataclass(frozen=True)
class UserRules:
    """What an engine's users can be: `most` in one cluster; `reserved` names are the engine's or Berth's own."""

    most: int
    reserved: tuple[str, ...]
    commands: tuple[CommandGroup, ...]


@dataclass(frozen=True)
class ClusterView:
    """The wish, as an engine sees it.

    `restart` counts the restarts people asked for: rendered into pod templates, it makes running pods outdated.
    `changing` says that an operation brings the wish about now. Only then may pods be restarted and data be moved for
    evenness: what nobody asked for must not happen because a newer Berth renders something else.
    `rebalance` says that an operation is to make the leading members even over the nodes, and nothing else.
    `formed` says that it was ready once: what it lacks now was lost, and is not still to be made.
    `accepted` is the extent of a Loss that an operation is to accept, and nothing else; "" for none.
    """

    id: str
    name: str
    tenant: str
    namespace: str
    engine: str
    version: str
    generation: int
    spec: Spec
    labels: Mapping[str, str] = field(default_factory=dict)
    restart: int = 0
    changing: bool = False
    rebalance: bool = False
    formed: bool = False
    accepted: str = ""
    # Keys of gates (see Gate) that the operation is not to wait at.
    overridden: frozenset[str] = frozenset()
    # None: not looked up, since what is asked does not depend on it; nothing is done to users then.
    users: tuple[User, ...] | None = None


# Makes a password of that many characters [A-Za-z0-9].
MakePassword = Callable[[int], str]


@dataclass(frozen=True)
class SecretSpec:
    """A Secret the core creates when it is absent: each key gets a random password of that many characters [A-Za-z0-9].

    `principal` is the user name clients sign in with, shown beside the password when it is revealed.
    `content`, when given, says what the Secret is to hold as a whole, from what it holds (what `generate` made, at
    first): the core writes that, and writes it again whenever it comes to differ. Pure but for new passwords. Without
    it an existing Secret is never touched.
    """

    name: str
    generate: Mapping[str, int]
    principal: str = ""
    password_key: str = "password"
    content: Callable[[Mapping[str, str], MakePassword], Mapping[str, str]] | None = None


@dataclass(frozen=True)
class CertificateSpec:
    """A certificate for the cluster's servers, which the core makes, signs with an authority of the cluster's own, and
    renews in time.

    `name` is the Secret pods mount, with the keys ca.crt (all authorities to trust), tls.crt and tls.key (PEM);
    `authority` the Secret with the authority's own key, which no pod mounts; `names` the DNS names it is good for.
    """

    name: str
    authority: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class PodView:
    """One pod of the cluster. `started` is true once the engine's own container, its first one, runs (ready or not);
    `ip` is "" until assigned.

    `problem` is the kubelet's or scheduler's own words for what is not running, "" when there is none; `revision` is
    the state of its workload's template it was made from.
    """

    name: str
    uid: str
    labels: Mapping[str, str]
    node: str
    zone: str
    ip: str
    phase: str
    started: bool
    ready: bool
    restarts: int
    deleting: bool
    created: datetime
    problem: str = ""
    revision: str = ""


@dataclass(frozen=True)
class VolumeView:
    """One PersistentVolumeClaim of the cluster. Sizes in MiB; `capacity_mib` is 0 until bound."""

    name: str
    phase: str
    storage_class: str
    requested_mib: int
    capacity_mib: int
    labels: Mapping[str, str]
    problem: str = ""


@dataclass(frozen=True)
class WorkloadView:
    """One StatefulSet or Deployment of the cluster; `current` means the controller has seen the latest generation.

    `revision` is the state of its template that new pods are made from; `claims` its volume templates' sizes in MiB.
    """

    kind: str
    name: str
    labels: Mapping[str, str]
    replicas: int
    ready: int
    current: bool
    revision: str = ""
    claims: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeView:
    """One Kubernetes node of the target."""

    name: str
    zone: str
    ready: bool
    schedulable: bool


@dataclass(frozen=True)
class World:
    """What Kubernetes says about one cluster at one moment, pods and volumes sorted by name."""

    now: datetime
    pods: tuple[PodView, ...]
    volumes: tuple[VolumeView, ...]
    workloads: tuple[WorkloadView, ...]
    nodes: tuple[NodeView, ...]


class LinkError(Exception):
    """A connection to a pod or Service could not be made or broke; trying again later may help."""


class Link(Protocol):
    """An engine's only way to the outside. The core implements it by sockets or a port-forward; engines cannot tell.

    Both connect methods return a connected stream socket whose timeout is `timeout` seconds; they raise LinkError.
    """

    def connect(self, pod: PodView, port: int, *, timeout: float = 2.0) -> socket.socket:
        """Connect to one pod."""

    def connect_service(self, service: str, port: int, *, timeout: float = 2.0) -> socket.socket:
        """Connect to a Service of the cluster's namespace by name: the advertised address."""

    def secret(self, name: str) -> Mapping[str, str]:
        """Read a Secret of the cluster's namespace, values decoded. Raises LinkError when it is absent."""

    def event(self, reason: str, message: str, *, warning: bool = False, object: str = "") -> None:
        """Record a cluster event people read, such as the exact command that was sent. No secrets."""


StepState = Literal["waiting", "running", "done"]


@dataclass(frozen=True)
class StepTitle:
    """A step of the create operation, as shown: `key` is stable, `title` is for people."""

    key: str
    title: str


@dataclass(frozen=True)
class StepReport:
    """How one of the engine's steps stands: `reason` says in plain words what it waits for, `object` which thing."""

    key: str
    state: StepState
    reason: str = ""
    object: str = ""


@dataclass(frozen=True)
class Member:
    """One process of the engine, as shown. `detail` is small and JSON-able, such as {"slots": "0-5460"}."""

    pod: str
    role: str
    node: str
    zone: str
    shard: str = ""
    healthy: bool = True
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Blocked:
    """A reason that waiting will not cure; the operation fails with it. `remedy` says what the reader can do."""

    code: str
    message: str
    remedy: str


# What Gate.key begins with, followed by a pod's name: a member that is away or not ready; a master without an heir.
READY_GATE, HEIR_GATE = "ready/", "heir/"


@dataclass(frozen=True)
class Gate:
    """What holds an operation back for the health of the cluster, and could be passed on somebody's word.

    `key` names it in `ClusterView.overridden`; `message` says what is waited for. `risk` is what passing it costs, in
    plain words; `refusal`, when not empty, is why it cannot be passed at all. The core does not wait for the start of
    a pod whose READY_GATE is passed either.
    """

    key: str
    message: str
    risk: str
    refusal: str = ""


@dataclass(frozen=True)
class Cause:
    """Why a cluster is not well: `code` is for programs, `object` which thing, such as "pod/orders-s0-1"."""

    code: str
    message: str
    remedy: str
    object: str = ""


@dataclass(frozen=True)
class Loss:
    """Data that is gone: everybody who held it came back empty. What they left behind nobody serves, until somebody
    accepts that.

    `extent` says exactly what, in the engine's own words: an acceptance is for this, and for no more. `message` says it
    to people.
    """

    extent: str
    message: str


@dataclass(frozen=True)
class Invariant:
    """One rule of how members stand on the nodes: `holds` is None while that is not known."""

    key: str
    holds: bool | None
    message: str


@dataclass(frozen=True)
class NodeShare:
    """How many members of the cluster stand on one node, and how many of them lead."""

    node: str
    zone: str
    masters: int
    members: int


@dataclass(frozen=True)
class Spread:
    """How a cluster stands on the nodes. `hand_overs`: how many make its masters even, as far as is known now.

    `repair_after`: it is to be done without being asked for when the cluster has been well for so many seconds.
    """

    invariants: tuple[Invariant, ...]
    nodes: tuple[NodeShare, ...]
    hand_overs: int = 0
    repair_after: float | None = None


@dataclass(frozen=True)
class OldPassword:
    """Who may still use a user's older password: `connections` that were opened before the newest one worked, and when
    one of them last sent something (None: there are none).
    """

    connections: int
    last_active: datetime | None


@dataclass(frozen=True)
class UsersSeen:
    """How a cluster's users stand: `in_force` says that every member has exactly the wished ones, with the wished
    passwords and rights; `waits`, what is waited for otherwise. `old`, by name, of the users that were to be watched,
    when every member answered.
    """

    in_force: bool
    waits: str = ""
    old: Mapping[str, OldPassword] = field(default_factory=dict)


@dataclass(frozen=True)
class Served:
    """The certificates members serve now: how many serve the newest, of how many that were asked, and the first day
    one of them expires, and when it is renewed (UTC).
    """

    newest: int
    total: int
    expires: datetime
    renews: datetime


@dataclass(frozen=True)
class Advance:
    """The outcome of one `advance`.

    `healthy` means the topology is exactly what the spec wishes. Otherwise `reason` is one sentence for people and
    `retry_after` says in how many seconds another look is useful (None: only when Kubernetes reports a change).

    What the core is asked to do next: end `restart` (that very pod; its workload makes it anew), while an operation
    runs; end `hopeless` at any time, and without grace, since its process reacts to nothing; and remove `retired`,
    (kind, name) of workloads, budgets and volumes that are no longer wished and hold nothing any more. The core never
    makes a workload smaller before that. `outdated` names pods made from an older template than new ones would be.
    `spread` is None where it is not known, or the engine has nothing to say.
    `causes` are why it is not healthy, or, when it is, what this very call has mended; the likeliest first.
    `gate` is what the change of a running cluster waits at, when an administrator might let it pass.
    `users` is None where the engine has none of its own, or they were not looked up.
    `served` is None where traffic is not encrypted, or nobody was there to be asked.
    `drift` says which settings in force are not the wished ones, "" when all are, None where nobody was asked.
    `loss` is what is gone for good as far as is known; None also while whoever holds it may still come back.
    `left` is, by the step of an operation, what that would still do and stays undone while none asks for it.
    """

    healthy: bool
    reason: str = ""
    steps: tuple[StepReport, ...] = ()
    members: tuple[Member, ...] = ()
    retry_after: float | None = None
    blocked: Blocked | None = None
    restart: PodView | None = None
    hopeless: PodView | None = None
    retired: tuple[tuple[str, str], ...] = ()
    outdated: tuple[str, ...] = ()
    spread: Spread | None = None
    causes: tuple[Cause, ...] = ()
    gate: Gate | None = None
    users: UsersSeen | None = None
    served: Served | None = None
    drift: str | None = None
    loss: Loss | None = None
    left: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Proof:
    """What `prove` did: `detail` is stored on the operation and shown, so it holds no secret."""

    ok: bool
    summary: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Endpoint:
    """An address clients use. `scope` "cluster" is reachable inside the Kubernetes cluster, "external" from outside."""

    name: str
    host: str
    port: int
    scope: Literal["cluster", "external"] = "cluster"


@dataclass(frozen=True)
class Scrape:
    """Where Prometheus reads the metrics of one pod: plain HTTP, path /metrics, inside the Kubernetes cluster.

    `host` is a name that stays while the pod comes and goes.
    """

    pod: str
    host: str
    port: int
    shard: str = ""


@dataclass(frozen=True)
class Snippet:
    """A connection example. `{password}` in `code` is put in where the snippet is shown, never stored."""

    language: str
    title: str
    code: str


@dataclass(frozen=True)
class Change:
    """The effect of changing one field of a running cluster.

    `pointer` is below /spec, as in Problem, and "" for a restart or another version. FIXED: the change is
    refused, and `message` says why.
    """

    pointer: str
    before: Any
    after: Any
    effect: Effect
    message: str


def as_shown(change: Change) -> dict[str, Any]:
    """As operations keep and show it."""
    return {
        "pointer": change.pointer, "before": change.before, "after": change.after, "effect": change.effect.value,
        "message": change.message,
    }  # fmt: skip


@dataclass(frozen=True)
class Pulse:
    """How to see whether a process reacts: `port` of pods with this component label answers `line`, also to nobody.

    `encrypted_port` is for pods with LABEL_TLS: it breaks the connection of who does not speak TLS, which is an answer.
    """

    component: str
    port: int
    line: bytes
    encrypted_port: int | None = None


class Engine(Protocol):
    """What an engine gives. All methods but `advance`, `observe` and `prove` are pure."""

    @property
    def name(self) -> str:
        """Lower-case key used in URLs and labels, such as "redis"."""

    @property
    def title(self) -> str:
        """Name for people, such as "Redis Cluster"."""

    @property
    def summary(self) -> str:
        """One line for the catalogue."""

    @property
    def versions(self) -> tuple[str, ...]:
        """Versions on offer, the default first."""

    @property
    def upgrades(self) -> Mapping[str, tuple[str, ...]]:
        """Version to those a running cluster may go to from there, in one step. Never back: formats on disk grow."""

    @property
    def reserves_addresses(self) -> bool:
        """Whether an address of its pods must rest before a pod of somebody else gets it, see docs/ip-reservation.md.

        True where a peer or client that still dials an old address does harm: members that know each other by address.
        """

    @property
    def pulse(self) -> Pulse | None:
        """How to notice, between two looks, that a process has stopped reacting."""

    @property
    def dashboard(self) -> str:
        """The `uid` of the dashboard for Grafana in its folder, monitoring/dashboard.json; "" without one."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """The plan fields, in form order."""

    @property
    def user_rules(self) -> UserRules | None:
        """What users of its clusters can be; None: there is the one the cluster is made with, and it never changes."""

    def check_user(self, name: str, access: Access) -> Sequence[Problem]:
        """Rules of a user's name and access; pointers are below the request's body, such as "/key_prefixes/0"."""

    def user_steps(self) -> Sequence[StepTitle]:
        """The engine's own steps of an operation that changes users, between "apply" and "proof"."""

    def password_key(self, user: str, version: int) -> str:
        """Key of one password in the Secret of the cluster's users."""

    def check(self, spec: Spec) -> Sequence[Problem]:
        """Rules between fields. Kinds, limits and unknown keys were checked from `fields` before this is called."""

    def plan_order(self, spec: Spec) -> Sequence[Change]:
        """What a new cluster of this spec risks from the start; a LOSS among these has to be confirmed."""

    def preflight(self, spec: Spec, target: TargetView) -> Sequence[Problem]:
        """Rules that need the target, such as more replicas than nodes under the hard spread rule."""

    def demand(self, spec: Spec) -> Demand:
        """What the spec asks of the quota, sidecars included."""

    def plan_change(self, before: Spec, after: Spec, target: TargetView) -> Sequence[Change]:
        """What changing a running cluster from one complete spec to the other does, field by field."""

    def plan_restart(self, spec: Spec) -> Change:
        """What restarting every pod does."""

    def plan_upgrade(self, spec: Spec, before: str, after: str) -> Change:
        """What going to another version, one of `upgrades`, does to a running cluster."""

    def plan_rebalance(self, spec: Spec) -> Change:
        """What making the leading members even over the nodes does; FIXED says why it cannot be done."""

    def rebalance_steps(self) -> Sequence[StepTitle]:
        """The engine's own steps of an operation that does so, before "proof"."""

    def loss_steps(self) -> Sequence[StepTitle]:
        """The engine's own steps of an operation that accepts a Loss, before "proof"."""

    def change_steps(self, changes: Sequence[Change]) -> Sequence[StepTitle]:
        """The engine's own steps of an operation that brings these changes about, between "start" and "proof"."""

    def secrets(self, cluster: ClusterView) -> Sequence[SecretSpec]:
        """The Secrets the cluster needs before anything is applied."""

    def certificates(self, cluster: ClusterView) -> Sequence[CertificateSpec]:
        """The certificates its servers need; none when its traffic is not encrypted."""

    def render(self, cluster: ClusterView) -> Sequence[Manifest]:
        """All other objects, in the order to apply them. The core adds namespace, ownership and common labels."""

    def steps(self, cluster: ClusterView) -> Sequence[StepTitle]:
        """The engine's own steps of the create operation, between "start" and "proof"."""

    def advance(self, cluster: ClusterView, world: World, link: Link) -> Advance:
        """Observe, take at most one batch of idempotent actions, verify, report.

        Called at any moment, any number of times, after any crash; ends within about 5 s, raises LinkError at most.
        """

    def observe(self, cluster: ClusterView, world: World, link: Link) -> Advance:
        """What `advance` sees, with nothing done about it and nothing asked of the core. Raises LinkError at most."""

    def foresee(self, cluster: ClusterView, world: World, link: Link) -> Blocked | None:
        """Why the running cluster could not become what is wished, as far as its members tell now. Asks, and changes
        nothing. Raises LinkError at most.
        """

    def prove(self, cluster: ClusterView, world: World, link: Link) -> Proof:
        """Write and read back through the advertised address with the issued credential. Raises LinkError at most."""

    def endpoints(self, cluster: ClusterView) -> Sequence[Endpoint]:
        """Addresses for clients."""

    def snippets(self, cluster: ClusterView) -> Sequence[Snippet]:
        """Connection examples that work as they stand once the password is in."""

    def scrapes(self, cluster: ClusterView, members: Collection[str] = ()) -> Sequence[Scrape]:
        """Where metrics are read, by pod: of all pods that are wished, also of absent ones, and of `members`, pods that
        are there though perhaps no longer wished. Empty when the wish wants no metrics.
        """


# Labels and names every engine uses, so that the core can find what belongs to a cluster.
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_INSTANCE = "app.kubernetes.io/instance"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_ENGINE = "app.kubernetes.io/name"
LABEL_TENANT = "berth.io/tenant"
LABEL_CLUSTER = "berth.io/cluster"
LABEL_CLUSTER_ID = "berth.io/cluster-id"
LABEL_SHARD = "berth.io/shard"
LABEL_TLS = "berth.io/tls"  # on pods, "on": their ports speak TLS
MANAGED_BY = "berth"


# On pod templates: a new value makes running pods outdated.
ANNOTATION_RESTART = "berth.io/restart"
ANNOTATION_SETTINGS = "berth.io/start-settings"


def plain_changes(fields: Sequence[Field], before: Spec, after: Spec) -> list[Change]:
    """One Change per changed field, and per changed key of a map with entries, with the effect its field names."""
    changes = []
    for field_ in fields:
        was, will = before[field_.key], after[field_.key]
        pairs = [(f"/{field_.key}", field_, was, will)]
        if field_.entries:
            pairs = [
                (f"/{field_.key}/{entry.key}", entry, was.get(entry.key, entry.default),
                 will.get(entry.key, entry.default))
                for entry in field_.entries
            ]  # fmt: skip
        for pointer, one, old, new in pairs:
            if old != new:
                text = f"{one.title}: {spoken_value(old)} becomes {spoken_value(new)}."
                changes.append(Change(pointer, old, new, one.effect, text))
    return changes


def spoken_value(value: Any) -> str:
    """A field's value for people."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) if value != "" else "nothing"


def selector_labels(cluster: ClusterView) -> dict[str, str]:
    """The labels that select a cluster's pods: immutable for its life, so no version among them."""
    return {LABEL_INSTANCE: cluster.name, LABEL_CLUSTER_ID: cluster.id}


def common_labels(cluster: ClusterView) -> dict[str, str]:
    """The labels on every object and pod template of a cluster (superset of `selector_labels`)."""
    return {
        LABEL_MANAGED_BY: MANAGED_BY,
        LABEL_ENGINE: cluster.engine,
        LABEL_TENANT: cluster.tenant,
        LABEL_CLUSTER: cluster.name,
        **selector_labels(cluster),
    }


def template_annotations(cluster: ClusterView, start_only: Mapping[str, str]) -> dict[str, Any]:
    """Metadata of a pod template that makes running pods outdated though their containers stay the same.

    `start_only`: settings that are read at a start only, where they differ from the defaults. Where nothing was asked
    for there is nothing: the templates of clusters must not change by themselves.
    """
    found = {}
    if cluster.restart:
        found[ANNOTATION_RESTART] = str(cluster.restart)
    if start_only:
        found[ANNOTATION_SETTINGS] = hashlib.sha256(json.dumps(dict(start_only), sort_keys=True).encode()).hexdigest()
    return {"annotations": found} if found else {}


def templates_seen(world: World) -> bool:
    """Whether the controllers have looked at all templates as they are now; before, nobody knows what is outdated."""
    return all(workload.current for workload in world.workloads)


def outdated_pods(world: World) -> list[PodView]:
    """Pods made from an older template than their StatefulSet has now, by name."""
    revisions = {one.name: one.revision for one in world.workloads if one.kind == "StatefulSet" and one.revision}
    return [
        pod
        for pod in world.pods
        if not pod.deleting
        and pod.revision
        and revisions.get(pod.name.rpartition("-")[0], pod.revision) != pod.revision
    ]
