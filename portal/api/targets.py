"""/targets: the Kubernetes clusters Berth delivers to; registered, changed and removed by platform administrators."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.audited import note_success
from portal.api.etags import content_revision, etag, expected_revision
from portal.api.pagination import PageQuery, page
from portal.api.parsers import JsonParser, MergePatchParser
from portal.api.schema import ETAG, IF_MATCH, described
from portal.api.serializers import Body, Text, read_body, read_query, wire, wire_list
from portal.api.tenants import AdminView
from provisioning import targets
from provisioning.models import Target
from tenants.refusals import Missing

SOURCES = [(source, source) for source in ("file", "in-cluster")]
REACHES = [(reach, reach) for reach in ("direct", "port-forward")]


class StorageClassOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    provisioner = serializers.CharField(default="")
    default = serializers.BooleanField(default=False, help_text="The target's own default.")
    expandable = serializers.BooleanField(default=False, help_text="Volumes can grow later.")


class TargetOut(serializers.Serializer[Any]):
    name = serializers.CharField(help_text="Key, for requests.")
    title = serializers.CharField()
    enabled = serializers.BooleanField(help_text="false: it takes no new orders; what runs there runs on.")
    reachable = serializers.BooleanField(allow_null=True, help_text="null until it was looked at for the first time.")
    reason = serializers.CharField(help_text="Why it is not reachable, and what to do.")
    checked = serializers.DateTimeField(allow_null=True)
    uid = serializers.CharField(help_text="Which Kubernetes cluster it is: the UID of its namespace kube-system.")
    source = serializers.ChoiceField(  # type: ignore[assignment]
        choices=SOURCES, help_text="Where its kubeconfig comes from."
    )
    reach = serializers.ChoiceField(choices=REACHES, help_text="How Berth reaches pods there.")
    kubernetes_version = serializers.CharField()
    nodes = serializers.SerializerMethodField(help_text="Nodes that are ready and take pods.")
    zones = serializers.SerializerMethodField(help_text="Different zones among them.")
    cpu_millicores = serializers.SerializerMethodField(help_text="What these nodes offer to pods, together.")
    memory_mib = serializers.SerializerMethodField(help_text="What these nodes offer to pods, together.")
    storage_classes = StorageClassOut(many=True)

    def get_nodes(self, target: Target) -> int:
        return len(usable_nodes(target))

    def get_zones(self, target: Target) -> int:
        return len({node.get("zone") for node in usable_nodes(target) if node.get("zone")})

    def get_cpu_millicores(self, target: Target) -> int:
        return sum(node.get("cpu_millicores", 0) for node in usable_nodes(target))

    def get_memory_mib(self, target: Target) -> int:
        return sum(node.get("memory_mib", 0) for node in usable_nodes(target))


class TargetPage(serializers.Serializer[Any]):
    items = TargetOut(many=True)
    next = serializers.CharField(allow_null=True)


class TargetFindingOut(serializers.Serializer[Any]):
    check = serializers.CharField(help_text="answers, identity, version, rights, nodes or storage.")
    ok = serializers.BooleanField()
    message = serializers.CharField()
    remedy = serializers.CharField(help_text="What an administrator can do; empty when all is well.")
    vital = serializers.BooleanField(help_text="Without it nothing can be delivered there.")


class TargetCheckOut(serializers.Serializer[Any]):
    target = TargetOut()
    findings = TargetFindingOut(many=True)


KUBECONFIG_HELP = (
    "As `kubectl config view --flatten --minify --raw` prints it: one cluster over https, with a token or a "
    "certificate written out. Programs, files and unchecked certificates are refused. It is kept as a file or Secret, "
    "never in the database, and never shown."
)


class TargetOrder(Body):
    """A Kubernetes cluster to deliver to. It is looked at before anything is kept."""

    name = Text(help_text="1 to 30 lower-case letters, digits and hyphens; never changes.")
    title = Text(required=False, default="", allow_blank=True, max_length=100, help_text="For people. Default: name.")
    kubeconfig = Text(
        required=False, allow_null=True, default=None, max_length=65536,
        help_text=f"{KUBECONFIG_HELP} Default: the file <name>.kubeconfig that is in BERTH_TARGETS_DIR already.",
    )  # fmt: skip
    in_cluster = serializers.BooleanField(required=False, default=False, help_text="The cluster Berth itself runs in.")
    reach = serializers.ChoiceField(
        choices=REACHES, required=False, default="direct",
        help_text="direct: Berth can open connections to pods; port-forward: through the API server.",
    )  # fmt: skip


class TargetPatch(Body):
    """A merge patch: what is absent stays."""

    title = Text(required=False, max_length=100)
    enabled = serializers.BooleanField(required=False)
    reach = serializers.ChoiceField(choices=REACHES, required=False)
    kubeconfig = Text(required=False, max_length=65536, help_text=f"A new one for the same cluster. {KUBECONFIG_HELP}")
    uid = Text(
        required=False, max_length=64,
        help_text="Accept the cluster of this UID from now on: for one that was built anew. What ran in the old one is "
        "made again, empty.",
    )  # fmt: skip


def usable_nodes(target: Target) -> list[dict[str, Any]]:
    """The nodes pods can be placed on."""
    return [node for node in target.nodes if node.get("ready") and node.get("schedulable")]


def _revision(target: Target) -> str:
    """Of what people change of a target and can read, so of its kubeconfig nothing."""
    return content_revision(
        {"title": target.title, "enabled": target.enabled, "reach": target.reach, "uid": target.uid}
    )


def _told(target: Target, status: int = 200) -> Response:
    return Response(wire(TargetOut, target), status=status, headers={"ETag": etag(_revision(target))})


class TargetAdminView(AdminView):
    """Asks Kubernetes, so outside of transactions; the change and its row in the audit share one after that."""

    in_transaction = False

    @cached_property
    def target(self) -> Target:
        """The target in the address. Raises Missing."""
        found = Target.objects.filter(pk=self.kwargs["target"]).first()
        if found is None:
            raise Missing("not_found", f"There is no target {self.kwargs['target']}.")
        return found

    def unchanged(self, target: Target) -> None:
        """Refuse when the target is not as If-Match says. Raises Stale."""
        expected_revision(self.request, _revision(target))


class TargetsView(TargetAdminView):
    @described("listTargets", tag="Catalogue", summary="List the targets", query=PageQuery, answers={200: TargetPage},
               problems=(422,), about="By name. Clusters can only be ordered on enabled ones.")  # fmt: skip
    def get(self, request: Request) -> Response:
        query = read_query(PageQuery, request)
        return page(request, Target.objects.all(), query, lambda rows: wire_list(TargetOut, rows), order="id")

    @described("registerTarget", tag="Administration", summary="Register a Kubernetes cluster", request=TargetOrder,
               answers={201: TargetOut}, problems=(400, 403, 409, 415, 422), parameters=[ETAG],
               about="For platform administrators. Refused unless it answers, is new enough, lets Berth do what it "
               "needs to, and is not registered yet. A repeat is refused, since the name is taken.")  # fmt: skip
    def post(self, request: Request) -> Response:
        sent = read_body(TargetOrder, request)
        self.audit_object = f"targets/{sent['name']}"[:200]

        def note(made: Target) -> None:
            self.audit_detail = {"uid": made.uid, "source": made.source, "reach": made.reach}
            note_success(self, 201)

        return _told(targets.register(**sent, note=note), 201)


class TargetView(TargetAdminView):
    parser_classes = [JsonParser, MergePatchParser]

    @described("getTarget", tag="Catalogue", summary="Show a target", answers={200: TargetOut}, problems=(404,),
               parameters=[ETAG])  # fmt: skip
    def get(self, request: Request, target: str) -> Response:
        return _told(self.target)

    @described("changeTarget", tag="Administration", summary="Change a target", request=TargetPatch,
               answers={200: TargetOut}, problems=(400, 403, 404, 409, 412, 415, 422),
               parameters=[IF_MATCH, ETAG],
               about="For platform administrators. A new kubeconfig, reach or uid is tried out first. The ETag knows "
               "nothing of the kubeconfig.")  # fmt: skip
    def patch(self, request: Request, target: str) -> Response:
        sent = read_body(TargetPatch, request)
        told = {key: value for key, value in sent.items() if key != "kubeconfig"}
        self.audit_detail = {**told, **({"kubeconfig": "replaced"} if "kubeconfig" in sent else {})}
        return _told(
            targets.change(
                target=self.target, **sent, note=lambda changed: note_success(self, 200), expect=self.unchanged
            )
        )

    @described("removeTarget", tag="Administration", summary="Remove a target", answers={204: None},
               problems=(403, 404, 409, 412), parameters=[IF_MATCH],
               about="For platform administrators. Only one that never held a cluster; disable others. Its limits and "
               "its kubeconfig go with it.")  # fmt: skip
    def delete(self, request: Request, target: str) -> Response:
        targets.remove(target=self.target, note=lambda removed: note_success(self, 204), expect=self.unchanged)
        return Response(status=204)


class TargetCheckView(TargetAdminView):
    @described("checkTarget", tag="Administration", summary="Look at a target now", answers={200: TargetCheckOut},
               problems=(403, 404),
               about="For platform administrators. Every question about it with its answer and what to do about a no: "
               "whether it answers, is the cluster that was registered, is new enough, lets Berth do what it needs to, "
               "and has nodes and storage.")  # fmt: skip
    def post(self, request: Request, target: str) -> Response:
        found, findings = targets.check(target=self.target, note=lambda found: note_success(self, 200))
        return Response(wire(TargetCheckOut, {"target": found, "findings": findings}))
