"""The wish and the work: targets, plans, clusters, operations, events, principals.

The database holds the wish; Kubernetes holds the truth; a message is only a hint (docs/architecture.md).
"""

from __future__ import annotations

import re

from django.contrib.auth.models import AnonymousUser
from django.core.validators import RegexValidator
from django.db import models
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver
from django.utils import timezone
from guardian.models import UserObjectPermissionBase

from tenants.ids import new_id
from tenants.models import Membership, Tenant, User

CLUSTER_NAME_RULE = RegexValidator(
    r"^[a-z]([a-z0-9-]{0,28}[a-z0-9])?\Z",
    "Use 1 to 30 lower-case letters, digits and hyphens; start with a letter, end with a letter or digit.",
)

# What a cluster's own objects are called after its name (engines/*/manifests.py): a cluster of such a name would share
# Services, StatefulSets and, when it is deleted, volumes with another one.
OBJECT_NAME = re.compile(r"-(s\d+|nodes|auth|config|tls|tls-authority|berth)\Z")


def new_cluster_id() -> str:
    """Default of Cluster.id."""
    return new_id("clu")


def new_operation_id() -> str:
    """Default of Operation.id."""
    return new_id("op")


def new_event_id() -> str:
    """Default of ClusterEvent.id."""
    return new_id("evt")


class Target(models.Model):
    """A Kubernetes cluster to deliver to.

    Its kubeconfig is a file in settings.TARGETS_DIR (a mounted Secret), never here; `source` is "file" or "in-cluster".
    The discovered fields are refreshed by the watcher and by beat.
    """

    name = models.CharField(max_length=30, primary_key=True, validators=[CLUSTER_NAME_RULE])
    title = models.CharField(max_length=100)
    source = models.CharField(max_length=16, choices=[("file", "file"), ("in-cluster", "in-cluster")], default="file")
    reach = models.CharField(
        max_length=16, choices=[("direct", "direct"), ("port-forward", "port-forward")], default="direct"
    )
    # An administrator's switch: what runs there runs on, and nothing new is ordered there.
    enabled = models.BooleanField(default=True)
    # Which cluster this is: the UID of its namespace kube-system, remembered from the first look. `other_uid` is that
    # of the cluster which answers in its place, "" when it is the right one: nothing is done to another.
    uid = models.CharField(max_length=64, default="", blank=True)
    other_uid = models.CharField(max_length=64, default="", blank=True)
    # Discovered: reachable is null until the first look.
    reachable = models.BooleanField(null=True)
    reason = models.TextField(default="", blank=True)
    checked = models.DateTimeField(null=True)
    kubernetes_version = models.CharField(max_length=40, default="", blank=True)
    nodes = models.JSONField(default=list)  # [{"name", "zone", "ready", "schedulable", "cpu_millicores", "memory_mib"}]
    storage_classes = models.JSONField(default=list)  # [{"name", "provisioner", "default", "expandable"}]

    class Meta:
        constraints = [
            # Two targets in one cluster would share the namespaces of their tenants.
            models.UniqueConstraint(fields=["uid"], condition=~models.Q(uid=""), name="provisioning_target_uid_unique")
        ]

    def __str__(self) -> str:
        return self.name


class Plan(models.Model):
    """A named set of plan-field values. Values a request leaves out come from here, then from the engine's defaults."""

    name = models.CharField(max_length=40, primary_key=True, validators=[CLUSTER_NAME_RULE])
    engine = models.CharField(max_length=30)
    title = models.CharField(max_length=100)
    description = models.TextField(default="", blank=True)
    values = models.JSONField(default=dict)
    # Empty: any.
    storage_classes = models.JSONField(default=list)
    targets = models.ManyToManyField(Target, blank=True, related_name="plans")
    position = models.IntegerField(default=0)
    # Whether new clusters may be ordered by it; those that were keep what they have.
    offered = models.BooleanField(default=True)

    class Meta:
        ordering = ["engine", "position", "name"]

    def __str__(self) -> str:
        return self.name


class Phase(models.TextChoices):
    """Where a cluster stands. `degraded` and `failed` always carry a reason."""

    PENDING = "pending"
    PROVISIONING = "provisioning"
    READY = "ready"
    UPDATING = "updating"
    DEGRADED = "degraded"
    DELETING = "deleting"
    DELETED = "deleted"
    FAILED = "failed"


# Rights of a grant and django-guardian's names for them.
RIGHTS = {"read": "read_cluster", "use": "use_cluster"}


class ClusterQuerySet(models.QuerySet["Cluster"]):
    def visible_to(self, user: User | AnonymousUser) -> ClusterQuerySet:
        """Clusters of the tenants `user` belongs to, and those shared with them. Every request's query starts here."""
        if not user.is_authenticated:
            return self.none()
        if user.is_superuser:
            return self
        members = models.Q(tenant__in=Tenant.objects.visible_to(user))
        return self.filter(members | models.Q(pk__in=_shared_ids(user)))

    def in_tenant(self, tenant: Tenant, user: User) -> ClusterQuerySet:
        """Those of `visible_to` in one tenant. `tenant` must come from a query `with_role_of(user)`: whether the user
        belongs to it was asked there, and need not be asked again.
        """
        clusters = self.filter(tenant=tenant)
        belongs = user.is_superuser or tenant.my_role is not None
        return clusters if belongs else clusters.filter(pk__in=_shared_ids(user))

    def shared_with(self, user: User) -> ClusterQuerySet:
        """Clusters with a grant for `user`."""
        return self.filter(pk__in=_shared_ids(user))

    def present(self) -> ClusterQuerySet:
        """Clusters that are not deleted."""
        return self.exclude(phase=Phase.DELETED)

    def due(self) -> ClusterQuerySet:
        """Clusters somebody should look at now: their time has come and no live worker holds them."""
        now = timezone.now()
        return self.filter(next_look__lte=now).filter(
            models.Q(claimed_until__isnull=True) | models.Q(claimed_until__lt=now)
        )


class Cluster(models.Model):
    """One ordered cluster. `spec` is complete (defaults and plan filled in); `generation` counts its changes."""

    id = models.CharField(primary_key=True, max_length=40, default=new_cluster_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="clusters")
    target = models.ForeignKey(Target, on_delete=models.PROTECT, related_name="clusters")
    plan = models.ForeignKey(Plan, null=True, blank=True, on_delete=models.SET_NULL, related_name="clusters")
    engine = models.CharField(max_length=30)
    name = models.CharField(max_length=30, validators=[CLUSTER_NAME_RULE])
    version = models.CharField(max_length=30)
    spec = models.JSONField()
    labels = models.JSONField(default=dict)
    description = models.TextField(default="", blank=True)
    generation = models.PositiveIntegerField(default=1)
    # How often people asked for all pods to be restarted.
    restarts = models.PositiveIntegerField(default=0)
    # What people may change makes a new revision: the ETag.
    revision = models.PositiveIntegerField(default=1)
    # {"by", "reason", "since"} while reconcile only watches; null otherwise.
    paused = models.JSONField(null=True)
    created = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")

    # Status, written by reconcile only, under its claim.
    observed_generation = models.PositiveIntegerField(default=0)
    phase = models.CharField(max_length=16, choices=Phase.choices, default=Phase.PENDING)
    reason = models.TextField(default="", blank=True)
    conditions = models.JSONField(default=list)  # [{"type", "status", "reason", "message", "since"}]
    endpoints = models.JSONField(default=list)
    members = models.JSONField(default=list)
    # [{"code", "message", "remedy", "object"}] of a cluster that is not well, the likeliest first
    causes = models.JSONField(default=list)
    # {"invariants": [{"key", "holds", "message"}], "nodes": [{"node", "zone", "masters", "members"}], "hand_overs"}
    spread = models.JSONField(null=True)
    # {"extent", "message"} of data that is gone for certain, until somebody accepts that
    loss = models.JSONField(null=True)
    inventory = models.JSONField(default=list)  # [{"apiVersion", "kind", "namespace", "name"}] of what was applied
    ready_at = models.DateTimeField(null=True)
    # When all of it was last applied.
    applied_at = models.DateTimeField(null=True)
    volumes_kept = models.BooleanField(default=False)
    deleted_at = models.DateTimeField(null=True)

    # The claim: who reconciles it now. `fence` grows with every claim, so a late writer is found out.
    # `wakes` counts hints; a hint that arrives during a reconcile makes it look once more.
    next_look = models.DateTimeField(default=timezone.now, db_index=True)
    claimed_until = models.DateTimeField(null=True)
    fence = models.PositiveBigIntegerField(default=0)
    wakes = models.PositiveBigIntegerField(default=0)

    objects = ClusterQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "name"], condition=~models.Q(phase="deleted"), name="provisioning_cluster_name_unique"
            )
        ]
        permissions = [("read_cluster", "Read a shared cluster"), ("use_cluster", "Use a shared cluster")]

    def __str__(self) -> str:
        return f"{self.tenant_id}/{self.name}"


class ClusterGrant(UserObjectPermissionBase):
    """django-guardian's row for one cluster and one person, with real foreign keys."""

    content_object = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="grants")

    class Meta(UserObjectPermissionBase.Meta):
        abstract = False

    @property
    def right(self) -> str:
        """ "read" or "use". Wants `permission` loaded."""
        return next(right for right, codename in RIGHTS.items() if codename == self.permission.codename)


@receiver([post_save, post_delete], sender=Membership)
def end_grants(instance: Membership, created: bool = True, **signal: object) -> None:
    """Whoever joins a tenant is its guest no more, and does not become one again by leaving.

    Here, at the rows themselves, because memberships begin and end in many ways: by an owner, an invitation, a group of
    the identity provider, a command; and `tenants` knows nothing of clusters. A change of role ends nothing.
    """
    if created:
        ClusterGrant.objects.filter(content_object__tenant=instance.tenant_id, user=instance.user_id).delete()


def _shared_ids(user: User) -> models.QuerySet[ClusterGrant, dict[str, str]]:
    """Ids of the clusters shared with `user`, as a subquery: the one place that asks for them.

    The rows themselves and not guardian's get_objects_for_user, whose nested subqueries the planner of a database with
    old statistics may work off row by row for minutes.
    """
    grants = ClusterGrant.objects.filter(user=user, permission__codename__in=RIGHTS.values())
    return grants.values("content_object")


class OperationState(models.TextChoices):
    """A state is terminal or not; an operation always ends in a terminal one, by its deadline at the latest."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


TERMINAL_STATES = (OperationState.SUCCEEDED, OperationState.FAILED, OperationState.CANCELED)
OPEN_STATES = (OperationState.QUEUED, OperationState.RUNNING)


class OperationQuerySet(models.QuerySet["Operation"]):
    def visible_to(self, user: User | AnonymousUser) -> OperationQuerySet:
        """Operations on the clusters `user` may see."""
        return self.filter(cluster__in=Cluster.objects.visible_to(user))

    def open(self) -> OperationQuerySet:
        """Operations that have not ended."""
        return self.filter(state__in=OPEN_STATES)


class Operation(models.Model):
    """One change to one cluster, and its own outbox: reconcile works it off, beat re-dispatches what nobody holds.

    `steps`: [{"key", "title", "state": waiting|running|done|failed, "started", "ended", "reason", "object"}].
    `error`: {"code", "message", "remedy"} once failed.
    """

    id = models.CharField(primary_key=True, max_length=40, default=new_operation_id, editable=False)
    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="operations")
    # create, update, upgrade, restart, rebalance-masters, accept-loss, change-users, delete
    kind = models.CharField(max_length=30)
    state = models.CharField(max_length=16, choices=OperationState.choices, default=OperationState.QUEUED)
    generation = models.PositiveIntegerField()
    # {"pods": 6, "estimate": {"seconds", "based_on"} or null}; of a change also {"changes": [effects]}, of one of the
    # spec {"before": the spec as it was}, of rebalancing {"hand_overs": 2},
    # of a deletion {"volumes": "keep"}; {"overridden": [{"gate", "by", "reason", "at"}]}.
    params = models.JSONField(default=dict)
    steps = models.JSONField(default=list)
    percent = models.PositiveSmallIntegerField(default=0)
    reason = models.TextField(default="", blank=True)  # what it waits for right now
    proof = models.JSONField(null=True)
    # The health gate it waits at: {"key", "message", "risk", "refusal", "since"}; null while it waits at none.
    gate = models.JSONField(null=True)
    error = models.JSONField(null=True)
    actor = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    request_id = models.CharField(max_length=64, default="", blank=True)
    created = models.DateTimeField(auto_now_add=True)
    started = models.DateTimeField(null=True)
    ended = models.DateTimeField(null=True)
    deadline = models.DateTimeField()
    # Grows with every visible change: long polls wait for it to pass what the caller has seen.
    revision = models.PositiveIntegerField(default=1)

    objects = OperationQuerySet.as_manager()

    class Meta:
        constraints = [
            # One at a time per cluster; a second request gets a 409 from this, not from a check that can race.
            models.UniqueConstraint(
                fields=["cluster"],
                condition=models.Q(state__in=["queued", "running"]),
                name="provisioning_operation_one_open",
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.cluster_id} {self.state}"


class ClusterEvent(models.Model):
    """Something people may want to read later. Repeats within a reconcile are counted, not added."""

    id = models.CharField(primary_key=True, max_length=40, default=new_event_id, editable=False)
    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="events")
    operation = models.ForeignKey(Operation, null=True, on_delete=models.SET_NULL, related_name="events")
    warning = models.BooleanField(default=False)
    reason = models.CharField(max_length=60)
    message = models.TextField()
    object = models.CharField(max_length=200, default="", blank=True)
    count = models.PositiveIntegerField(default=1)
    created = models.DateTimeField(auto_now_add=True)
    last_seen = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class Principal(models.Model):
    """A credential's metadata; the credential itself is in a Kubernetes Secret only.

    Where an engine has users of its own, this is one: the wish is written by services, the rest by reconcile. `version`
    is the number of the newest password, `old_version` that of the one before, while it still works.
    """

    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="principals")
    name = models.CharField(max_length=60)
    secret_name = models.CharField(max_length=63)
    secret_key = models.CharField(max_length=60, default="password")
    version = models.PositiveIntegerField(default=1)
    created = models.DateTimeField(auto_now_add=True)
    # {"key_prefixes", "channel_prefixes", "commands"}; null: everything.
    access = models.JSONField(null=True)
    enabled = models.BooleanField(default=True)
    # What people may change makes a new revision: the ETag.
    revision = models.PositiveIntegerField(default=1)
    rotated = models.DateTimeField(null=True)
    old_version = models.PositiveIntegerField(null=True)
    # Until when the old password works at the latest, and whether it ends sooner when nobody is seen to use it.
    old_until = models.DateTimeField(null=True)
    old_until_unused = models.BooleanField(default=False)

    # Written by reconcile: the newest version that worked on every member, and since when.
    settled_version = models.PositiveIntegerField(null=True)
    settled = models.DateTimeField(null=True)
    # How many connections were opened before `settled`, and so use the old password; when one of them last sent
    # something; when that was last looked at; since when there are none.
    old_connections = models.PositiveIntegerField(null=True)
    old_last_active = models.DateTimeField(null=True)
    old_checked = models.DateTimeField(null=True)
    old_unused_since = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["cluster", "name"], name="provisioning_principal_unique")]

    def __str__(self) -> str:
        return self.name
