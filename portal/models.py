"""What the HTTP door itself must remember."""

from __future__ import annotations

from django.db import models


class IdempotencyKey(models.Model):
    """A POST that was answered: the same key from the same caller gets the same answer, another body is refused.

    `fingerprint` is the SHA-256 of method, path and body; `status` 0 means the first request is still under way.
    """

    caller = models.CharField(max_length=60)  # "user:<id>" or "token:<id>"
    key = models.CharField(max_length=200)
    fingerprint = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(default=0)
    headers = models.JSONField(default=dict)
    body = models.JSONField(null=True)
    created = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["caller", "key"], name="portal_idempotencykey_unique")]

    def __str__(self) -> str:
        return f"{self.caller} {self.key}"
