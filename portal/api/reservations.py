"""/tenants/{tenant}/ip-reservations: which addresses rest, until when and why, and who had them."""

from __future__ import annotations

import ipaddress
from datetime import UTC
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.base import ApiView
from portal.api.pagination import PageQuery, page_of
from portal.api.schema import described
from portal.api.serializers import read_query
from portal.problems import invalid
from provisioning.apply.reservations import ENDS, RELEASED, STATES, WAYS, Standing
from provisioning.clusters.reservations import Reservation, reservations_of
from provisioning.models import Target
from tenants.refusals import FieldError

HELD = "held"
NOT_INSTALLED = (
    "Addresses of deleted pods are given to the next pod at once. A platform administrator installs ipreserve on this "
    "target: kubectl apply -k deploy/ipreserve/base, see docs/ip-reservation.md."
)
NOT_ARMED = (
    "No webhook of ipreserve was ready since it was installed, so pods may be deleted without a hold. A platform "
    "administrator looks at its Deployment ipreserve-webhook."
)
WHY = {
    "claimed": "Its pod is about to be deleted or evicted, or lost the address.",
    "terminating": "Its pod is ending; the rest begins when the address is free.",
    "freed": "It rests, so that nobody who still dials it reaches somebody else.",
    "releasing": "Its rest is over; it is being opened.",
    "expired": "It rested as long as it should.",
    "crowded": "More addresses rested than are allowed; the oldest was opened.",
    "quota": "More addresses of the namespace rested than one may have; the oldest of them was opened.",
    "pressure": "Addresses ran short; the oldest was opened before a pod would have lacked one.",
    "cancelled": "Its pod lives on: the eviction or deletion did not happen.",
    "returned": "The same pod of the same StatefulSet has it again.",
    "skipped": "A policy says that it needs no rest.",
}


class ReservationOut(serializers.Serializer[Any]):
    address = serializers.CharField(help_text="IPv4 or IPv6.")
    cluster = serializers.CharField(allow_null=True, help_text="Name; null when it cannot be told.")
    target = serializers.CharField()
    pod = serializers.CharField(help_text="Who had the address.")
    node = serializers.CharField(help_text="Where that pod ran.")
    state = serializers.ChoiceField(choices=STATES, help_text="Anything but released: nobody else gets the address.")
    since = serializers.DateTimeField(help_text="When it was taken note of that the pod goes.")
    freed = serializers.DateTimeField(allow_null=True, help_text="When the pod had let go of it: the rest begins.")
    until = serializers.DateTimeField(
        allow_null=True, help_text="When the rest ends by time; null while that is not known."
    )
    released = serializers.DateTimeField(allow_null=True, help_text="When the rest ended; null while it is held.")
    noticed = serializers.ChoiceField(
        choices=WAYS,
        help_text=(
            "By a deletion, an eviction, kubelet's announcement of one, a pod's report; or found barred, or written by "
            "other tools."
        ),
    )
    end = serializers.ChoiceField(choices=ENDS, allow_null=True, help_text="Why it was released.")
    why = serializers.CharField(help_text="Why it is held, or why it was released, in a sentence.")


class ReservingTargetOut(serializers.Serializer[Any]):
    target = serializers.CharField()
    installed = serializers.BooleanField(help_text="Whether ipreserve watches deletions there.")
    armed = serializers.BooleanField(help_text="Whether a deletion that cannot be recorded is refused for the moment.")
    remedy = serializers.CharField(help_text="What to do; empty when all is well.")


class ReservationPage(serializers.Serializer[Any]):
    targets = ReservingTargetOut(many=True, help_text="The targets that were asked; the same on every page.")
    items = ReservationOut(many=True, help_text="Newest first. With `cluster`, this is the cluster's timeline.")
    next = serializers.CharField(allow_null=True)


class ReservationQuery(PageQuery):
    cluster = serializers.CharField(
        required=False, default="", max_length=60, help_text="Name; only its target is asked."
    )
    state = serializers.ChoiceField(
        choices=(HELD, *STATES), required=False, default="", help_text="`held`: every state but released."
    )
    address = serializers.CharField(required=False, default="", max_length=50, help_text="All who had this address.")

    def validate_address(self, value: str) -> str:
        try:
            return str(ipaddress.ip_address(value)) if value else ""
        except ValueError as error:
            raise serializers.ValidationError("It is not an IPv4 or IPv6 address.", code="invalid") from error


def _body(one: Reservation) -> dict[str, Any]:
    hold = one.hold
    end = hold.end if hold.state == RELEASED else ""
    return {
        "address": hold.address, "cluster": one.cluster.name if one.cluster else None, "target": one.target,
        "pod": hold.pod, "node": hold.node, "state": hold.state, "since": hold.first, "freed": hold.freed,
        "until": hold.until, "released": hold.released, "noticed": hold.via, "end": end or None,
        "why": WHY.get(end or hold.state, ""),
    }  # fmt: skip


def _place(one: Reservation) -> tuple[str, str]:
    """The newest are on the first page; pod and address tell apart what was claimed at the same moment."""
    since = one.hold.first.astimezone(UTC).isoformat(timespec="microseconds")
    return since, f"{one.target} {one.hold.address} {one.hold.pod}"


def _target_body(name: str, found: Standing) -> dict[str, Any]:
    remedy = NOT_ARMED if found.installed else NOT_INSTALLED
    return {
        "target": name, "installed": found.installed, "armed": found.armed, "remedy": "" if found.armed else remedy
    }  # fmt: skip


class ReservationsView(ApiView):
    @described("listIpReservations", tag="Clusters", summary="List addresses that rest, and who had them",
               query=ReservationQuery, answers={200: ReservationPage}, problems=(404, 503),
               about="An address of a deleted pod is held back for a while, so that clients and members that still "
               "dial it do not reach somebody else's pod. Read from the targets at this moment; ended holds as far "
               "back as ipreserve remembers. Where ipreserve is missing, `targets[].installed` is false.")  # fmt: skip
    def get(self, request: Request, tenant: str) -> Response:
        query = read_query(ReservationQuery, request)
        clusters = list(self.clusters())
        asked = [one for one in clusters if query["cluster"] in ("", one.name)]
        if query["cluster"] and not asked:
            message = f"{self.tenant.slug} has and had no cluster of this name."
            raise invalid([FieldError("?cluster", "unknown_cluster", message)])
        targets = Target.objects.filter(pk__in={one.target_id for one in asked}).order_by("pk")
        all_found = reservations_of(tenant=self.tenant, clusters=clusters, targets=list(targets))
        rows = [
            one
            for one in all_found.found
            if query["cluster"] in ("", one.cluster.name if one.cluster else None)
            and query["address"] in ("", one.hold.address)
            and (query["state"] in ("", one.hold.state) or (query["state"] == HELD and one.hold.state != RELEASED))
        ]
        answer = page_of(rows, query, lambda found: [_body(one) for one in found], order="-since", key=_place)
        standings = [_target_body(name, found) for name, found in all_found.targets.items()]
        return Response(ReservationPage({"targets": standings, **answer.data}).data)
