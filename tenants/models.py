"""Who there is: users, tenants, memberships, tokens. This app knows nothing of clusters."""

from __future__ import annotations

from datetime import datetime

from django.contrib.auth.models import AbstractUser, AnonymousUser
from django.core.validators import RegexValidator
from django.db import models
from django.utils import timezone

from tenants.ids import SLUG, new_id

SLUG_RULE = RegexValidator(
    SLUG,
    "Use 1 to 30 lower-case letters, digits and hyphens; start with a letter, end with a letter or digit.",
)


def new_tenant_id() -> str:
    """Default of Tenant.id."""
    return new_id("ten")


def new_token_id() -> str:
    """Default of ApiToken.id."""
    return new_id("tok")


def new_entry_id() -> str:
    """Default of LedgerEntry.id."""
    return new_id("led")


def new_audit_id() -> str:
    """Default of AuditEvent.id."""
    return new_id("aud")


def new_invitation_id() -> str:
    """Default of Invitation.id."""
    return new_id("inv")


class User(AbstractUser):
    """A person, or a service of a tenant. Platform administrators are `is_superuser`.

    A service has a service token and a membership, no password; it is not listed among the people.
    """

    service_of = models.ForeignKey("Tenant", null=True, blank=True, on_delete=models.CASCADE, related_name="services")


class TenantQuerySet(models.QuerySet["Tenant"]):
    def visible_to(self, user: User | AnonymousUser) -> TenantQuerySet:
        """The tenants `user` is a member of; all of them for a platform administrator."""
        if not user.is_authenticated:
            return self.none()
        if user.is_superuser:
            return self
        return self.filter(memberships__user=user)

    def with_role_of(self, user: User | AnonymousUser) -> TenantQuerySet:
        """Fill `my_role` of each tenant with the role `user` has in it, None without one."""
        roles = Membership.objects.filter(tenant=models.OuterRef("pk"), user=user.pk).values("role")[:1]
        return self.annotate(**{"my_role": models.Subquery(roles)})


class Tenant(models.Model):
    """A team with its own namespace, members and limits."""

    id = models.CharField(primary_key=True, max_length=40, default=new_tenant_id, editable=False)
    slug = models.CharField(max_length=30, unique=True, validators=[SLUG_RULE])
    name = models.CharField(max_length=100)
    suspended = models.BooleanField(default=False)
    created = models.DateTimeField(auto_now_add=True)

    # Filled by TenantQuerySet.with_role_of.
    my_role: str | None

    objects = TenantQuerySet.as_manager()

    def __str__(self) -> str:
        return self.slug


class Role(models.TextChoices):
    """What a member may do; each includes the ones below it."""

    OWNER = "owner"
    DEVELOPER = "developer"
    VIEWER = "viewer"


class Membership(models.Model):
    """One person in one tenant."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role.choices)
    # Given by a group of the identity provider, and taken away when the person is no longer in it (tenants/groups.py).
    from_groups = models.BooleanField(default=False, db_default=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "user"], name="tenants_membership_unique")]

    def __str__(self) -> str:
        return f"{self.user_id} {self.role} of {self.tenant_id}"


class Identity(models.Model):
    """Who a person is at an identity provider. Names and e-mail addresses change hands there; this pair never does.

    https://openid.net/specs/openid-connect-core-1_0.html#ClaimStability; `subject` has at most 255 characters.
    """

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="identities")
    issuer = models.CharField(max_length=500)
    subject = models.CharField(max_length=255)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["issuer", "subject"], name="tenants_identity_unique")]

    def __str__(self) -> str:
        return f"{self.user_id} at {self.issuer}"


class QuotaLimit(models.Model):
    """The most a tenant may hold of one resource: at one place, or (`place` empty) over all of them.

    Resources and their units are in tenants/quota.py; without a row there is no limit.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="quota_limits")
    place = models.CharField(max_length=30, default="", blank=True)
    resource = models.CharField(max_length=270)
    limit = models.PositiveBigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "place", "resource"], name="tenants_quota_limit_unique")
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.resource} {self.place or 'overall'}: {self.limit}"


class QuotaHold(models.Model):
    """What one holder (an opaque id) has of one resource now: the sum of its ledger entries; no row for nothing.

    `used_by` and `reserved_by` name the operation that last changed the number. Written by tenants/quota.py only,
    under the lock of the tenant's row.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="quota_holds")
    place = models.CharField(max_length=30)
    holder = models.CharField(max_length=40)
    resource = models.CharField(max_length=270)
    # The columns' own CHECK (>= 0) is the database's word against a release of more than is held.
    used = models.PositiveBigIntegerField(default=0)
    reserved = models.PositiveBigIntegerField(default=0)
    used_by = models.CharField(max_length=40, default="", blank=True)
    reserved_by = models.CharField(max_length=40, default="", blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["holder", "resource"], name="tenants_quota_hold_unique")]
        indexes = [models.Index(fields=["tenant", "holder"], name="tenants_quota_hold_tenant")]

    def __str__(self) -> str:
        return f"{self.holder} {self.resource}: {self.used} + {self.reserved}"


class QuotaTotal(models.Model):
    """What a tenant holds of one resource at one place: the sum of its ledger entries there, so that an order in a
    tenant of 1,000 clusters need not add up all of theirs while others wait. Written as QuotaHold is.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="quota_totals")
    place = models.CharField(max_length=30)
    resource = models.CharField(max_length=270)
    used = models.PositiveBigIntegerField(default=0)
    reserved = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "place", "resource"], name="tenants_quota_total_unique")
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.resource} at {self.place}: {self.used} + {self.reserved}"


class EntryKind(models.TextChoices):
    """Why a number of the ledger moved."""

    RESERVE = "reserve"
    COMMIT = "commit"
    RELEASE = "release"


class LedgerEntry(models.Model):
    """One movement of one resource, tied to the operation that caused it. Never changed, never deleted (a trigger)."""

    id = models.CharField(primary_key=True, max_length=40, default=new_entry_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="quota_entries")
    kind = models.CharField(max_length=16, choices=EntryKind.choices)
    place = models.CharField(max_length=30)
    holder = models.CharField(max_length=40, db_index=True)
    cause = models.CharField(max_length=40)
    resource = models.CharField(max_length=270)
    used_change = models.BigIntegerField(default=0)
    reserved_change = models.BigIntegerField(default=0)
    created = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.kind} {self.resource} {self.used_change:+} {self.reserved_change:+} of {self.holder}"


class QuotaFinding(models.Model):
    """A difference between the ledger and what was observed. Reported, never mended; `ended` once it is gone."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="quota_findings")
    place = models.CharField(max_length=30)
    # Empty: what belongs to no holder.
    holder = models.CharField(max_length=40, default="", blank=True)
    resource = models.CharField(max_length=270)
    ledger = models.BigIntegerField()
    observed = models.BigIntegerField()
    note = models.TextField(default="", blank=True)
    first_seen = models.DateTimeField(auto_now_add=True)
    last_seen = models.DateTimeField()
    ended = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "place", "holder", "resource"], condition=models.Q(ended=None),
                name="tenants_quota_finding_one_open",
            )
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"{self.holder} {self.resource}: ledger {self.ledger}, observed {self.observed}"


class Invitation(models.Model):
    """For one person to join a tenant, once, until it expires. Only the SHA-256 of its secret is stored."""

    id = models.CharField(primary_key=True, max_length=40, default=new_invitation_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="invitations")
    role = models.CharField(max_length=16, choices=Role.choices)
    note = models.CharField(max_length=200, default="", blank=True)
    sha256 = models.CharField(max_length=64, unique=True)
    invited_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    created = models.DateTimeField(auto_now_add=True)
    expires = models.DateTimeField()
    accepted = models.DateTimeField(null=True)
    accepted_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    withdrawn = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.role} of {self.tenant_id}"


class SignInCounter(models.Model):
    """Attempts to sign in within a window (tenants/throttle.py). `key` is a hash of account, address or both."""

    key = models.CharField(primary_key=True, max_length=64)
    attempts = models.IntegerField()
    ends = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"{self.attempts} until {self.ends}"


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    def unended(self, now: datetime | None = None) -> ApiTokenQuerySet:
        """Neither revoked nor expired."""
        return self.filter(revoked=None, expires__gt=now or timezone.now())

    def usable(self, now: datetime | None = None) -> ApiTokenQuerySet:
        """Neither revoked nor expired, and of a user who may sign in."""
        return self.unended(now).filter(user__is_active=True)

    def service_tokens(self, tenant: Tenant) -> ApiTokenQuerySet:
        """The service tokens of a tenant, with their role in `service_role`."""
        roles = Membership.objects.filter(tenant=tenant, user=models.OuterRef("user")).values("role")[:1]
        rows = self.filter(tenant=tenant, user__service_of=tenant).select_related("tenant", "user", "created_by")
        return rows.annotate(**{"service_role": models.Subquery(roles)})


class ApiToken(models.Model):
    """A bearer token. Only its SHA-256 is stored; `prefix` is what people recognise it by."""

    id = models.CharField(primary_key=True, max_length=40, default=new_token_id, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=16)
    sha256 = models.CharField(max_length=64, unique=True)
    # null: every tenant of the user
    tenant = models.ForeignKey(Tenant, null=True, blank=True, on_delete=models.CASCADE, related_name="tokens")
    scopes = models.JSONField(default=list)
    created = models.DateTimeField(auto_now_add=True)
    expires = models.DateTimeField()
    last_used = models.DateTimeField(null=True)
    revoked = models.DateTimeField(null=True)
    # Who made a service token; `user` is the service then.
    created_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")

    # Filled by ApiTokenQuerySet.service_tokens.
    service_role: str | None

    objects = ApiTokenQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.prefix}… {self.name}"


class AuditResult(models.TextChoices):
    """What became of a request: done, refused with a reason (`code`), or broken off by an error of ours."""

    SUCCESS = "success"
    REFUSED = "refused"
    FAILED = "failed"


class AuditEvent(models.Model):
    """Who did, or tried to do, what to which object, from where. Append-only: a trigger refuses every other change.

    Texts instead of foreign keys: the row must outlive the tenant, the person and the token it names, unchanged.
    `detail` holds facts the views name one by one, such as {"role": "owner"}; never a body, never a secret.
    """

    id = models.CharField(primary_key=True, max_length=40, default=new_audit_id, editable=False)
    created = models.DateTimeField(auto_now_add=True)
    tenant_id = models.CharField(max_length=40, default="", blank=True)
    tenant = models.CharField(max_length=30, default="", blank=True)  # its slug then; another tenant may have it later
    actor_id = models.BigIntegerField(null=True)
    actor = models.CharField(max_length=150, default="", blank=True)
    token_id = models.CharField(max_length=40, default="", blank=True)
    token_prefix = models.CharField(max_length=16, default="", blank=True)
    action = models.CharField(max_length=60)  # operationId of the API
    object = models.CharField(max_length=300)  # path below the tenant, such as "clusters/orders"
    detail = models.JSONField(default=dict)
    address = models.GenericIPAddressField(null=True)
    result = models.CharField(max_length=10, choices=AuditResult.choices)
    status = models.PositiveSmallIntegerField()  # of the HTTP answer
    code = models.CharField(max_length=60, default="", blank=True)  # of the problem, when refused
    operation_id = models.CharField(max_length=40, default="", blank=True)
    request_id = models.CharField(max_length=64, default="", blank=True)

    class Meta:
        indexes = [models.Index(fields=["tenant_id", "-id"], name="tenants_audit_of_tenant")]

    def __str__(self) -> str:
        return f"{self.actor} {self.action} {self.object}: {self.result}"
