"""/operations/{id}/cancel, …/retry and …/override."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from portal import logs
from portal.api.base import ApiView
from portal.api.clusters import AcceptedOut, accepted
from portal.api.operations import OperationOut
from portal.api.schema import LOCATION, described
from portal.api.serializers import Body, Text, read_body, wire
from portal.idempotency import idempotent
from provisioning.clusters import obstacles
from provisioning.clusters.interventions import (
    cancel_operation,
    override_gate,
    retry_operation,
)
from provisioning.models import Operation
from tenants.models import Tenant
from tenants.refusals import Missing


class CancelOrder(Body):
    """Why; everybody who sees the cluster can read it."""

    reason = Text(required=False, default="", allow_blank=True, max_length=500)


class OverrideOrder(Body):
    """Which gate to pass, and why; everybody who sees the cluster can read it."""

    gate = Text(max_length=100, help_text="`gate.key` of the operation.")
    reason = Text(max_length=500)


class OperationChangeView(ApiView):
    """A change of the operation in the address, by the rules of the tenant whose cluster it is about."""

    @cached_property
    def operation(self) -> Operation:
        """The operation in the address. Raises Missing."""
        found = self.operations().filter(pk=self.kwargs["operation"]).first()
        if found is None:
            raise Missing("not_found", f"There is no operation {self.kwargs['operation']} that you may see.")
        return found

    @cached_property
    def tenant(self) -> Tenant:
        """The operation's tenant. Raises Missing."""
        return Tenant.objects.with_role_of(self.user).get(pk=self.operation.cluster.tenant_id)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        self.require_access(type(self), str(request.method))
        self.count_for(self.tenant)


class CancelView(OperationChangeView):
    @described("cancelOperation", tag="Operations", summary="Cancel an operation", request=CancelOrder,
               answers={200: OperationOut}, problems=(400, 403, 404, 409, 415, 422),
               about="Nothing is taken back. What a creation has made stays as it is, and no more is made, until "
               "it is retried or the cluster deleted. A change stops where nothing is half done; when the cluster is "
               "well again, `reason` says what it has left undone. A deletion goes on.")  # fmt: skip
    @idempotent(required_from_tokens=False)
    def post(self, request: Request, operation: str) -> Response:
        reason = read_body(CancelOrder, request)["reason"]
        cluster = self.operation.cluster
        self.audit_object, self.audit_detail = f"operations/{operation}", {"cluster": cluster.name, "reason": reason}
        cancel_operation(operation=self.operation, by=self.user, reason=reason)
        return Response(wire(OperationOut, self.operations().get(pk=operation)))


class RetryView(OperationChangeView):
    @described("retryOperation", tag="Operations", summary="Retry an operation that failed or was canceled",
               answers={202: AcceptedOut}, problems=(400, 403, 404, 409),
               parameters=[LOCATION],
               about="By a new operation that does the same anew; only the last one of a cluster.")  # fmt: skip
    @idempotent(required_from_tokens=False)
    def post(self, request: Request, operation: str) -> Response:
        again = retry_operation(operation=self.operation, by=self.user, request_id=logs.request_id.get())
        answer = accepted(self, again)
        self.audit_object = f"operations/{operation}"
        self.audit_detail = {"cluster": self.operation.cluster.name}
        return answer


class OverrideView(OperationChangeView):
    scope = "admin"

    @described("overrideGate", tag="Operations", summary="Let an operation pass a health gate", request=OverrideOrder,
               answers={200: OperationOut}, problems=(400, 403, 404, 409, 415, 422),
               about="For platform administrators. A change of a running cluster waits while a member is away or not "
               "ready, or no replica can take over from a master that is to restart; `gate` says so, and what going on "
               "costs. Overridden, it does not wait for that again. What would lose data is refused.")  # fmt: skip
    @idempotent(required_from_tokens=False)
    def post(self, request: Request, operation: str) -> Response:
        obstacles.raise_any(obstacles.for_administrators(self.user))
        sent = read_body(OverrideOrder, request)
        self.audit_object = f"operations/{operation}"
        self.audit_detail = {"cluster": self.operation.cluster.name, "gate": sent["gate"], "reason": sent["reason"]}
        override_gate(operation=self.operation, by=self.user, gate=sent["gate"], reason=sent["reason"])
        return Response(wire(OperationOut, self.operations().get(pk=operation)))
