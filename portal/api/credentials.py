"""…/credentials and …/snippets: how clients connect. The database holds no password; revealing reads the Secret."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.base import ApiView
from portal.api.pagination import PageQuery, page
from portal.api.schema import described
from portal.api.serializers import read_query, wire, wire_list
from provisioning.clusters.services import certificates_of, cluster_view, reveal_credential
from provisioning.engines.registry import ENGINES


class CredentialOut(serializers.Serializer[Any]):
    name = serializers.CharField(help_text="User name clients sign in with.")
    version = serializers.IntegerField(help_text="Grows with every rotation.")
    secret_name = serializers.CharField(help_text="The Kubernetes Secret that holds it, in the tenant's namespace.")
    secret_key = serializers.CharField(help_text="Key in that Secret.")
    created = serializers.DateTimeField()


class CredentialPage(serializers.Serializer[Any]):
    items = CredentialOut(many=True)
    next = serializers.CharField(allow_null=True)


class RevealedOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    password = serializers.CharField()


class SnippetOut(serializers.Serializer[Any]):
    language = serializers.CharField(help_text="Such as shell, python, java.")
    title = serializers.CharField()
    code = serializers.CharField(help_text="Works as it stands once `{password}` is replaced by the revealed password.")


class SnippetPage(serializers.Serializer[Any]):
    items = SnippetOut(many=True)
    next = serializers.CharField(allow_null=True)


class CertificateOut(serializers.Serializer[Any]):
    authority = serializers.CharField(
        source="bundle",
        help_text="PEM: what clients have to trust. Two certificates while the cluster's authority is being replaced; "
        "then fetch it anew within two weeks.",
    )
    names = serializers.ListField(child=serializers.CharField(), help_text="DNS names it is good for.")
    serial = serializers.CharField(help_text="Hexadecimal. Of the newest one; nodes take it up within minutes.")
    expires = serializers.DateTimeField(help_text="Renewed long before.")
    renews = serializers.DateTimeField(help_text="When it is renewed.")
    authority_expires = serializers.DateTimeField(help_text="Of the authority that signed it.")


class CredentialsView(ApiView):
    guest_rights = {"GET": "use"}

    @described("listCredentials", tag="Clusters", summary="List a cluster's credentials", query=PageQuery,
               answers={200: CredentialPage}, problems=(404, 422), about="Without passwords.")  # fmt: skip
    def get(self, request: Request, tenant: str, name: str) -> Response:
        query = read_query(PageQuery, request)
        rows = self.cluster.principals.all()
        return page(request, rows, query, lambda found: wire_list(CredentialOut, found), order="name")


class RevealView(ApiView):
    """Reads the Secret over the network, so not in a transaction: the row in the audit is written before the answer."""

    in_transaction = False
    guest_rights = {"POST": "use"}

    @described("revealCredential", tag="Clusters", summary="Reveal a password", answers={200: RevealedOut},
               problems=(403, 404, 409, 503),
               about="Needs the role developer or owner, or the grant `use`; noted in the audit and in the cluster's "
               "events. The answer must not be stored: `Cache-Control: no-store`.")  # fmt: skip
    def post(self, request: Request, tenant: str, name: str, principal: str) -> Response:
        found = reveal_credential(cluster=self.cluster, name=principal, by=self.user)
        return Response({"name": found.name, "password": found.password})


class SnippetsView(ApiView):
    guest_rights = {"GET": "use"}

    @described("listSnippets", tag="Clusters", summary="Show connection snippets", answers={200: SnippetPage},
               problems=(404,), about="For several languages, with `{password}` in the password's place.")  # fmt: skip
    def get(self, request: Request, tenant: str, name: str) -> Response:
        snippets = ENGINES[self.cluster.engine].snippets(cluster_view(self.cluster))
        return Response({"items": wire_list(SnippetOut, snippets), "next": None})


class CertificateView(ApiView):
    """Asks the target, so not in a transaction."""

    in_transaction = False
    guest_rights = {"GET": "use"}

    @described("getCertificate", tag="Clusters", summary="Show a cluster's certificate and CA",
               answers={200: CertificateOut}, problems=(404, 409, 503),
               about="What clients need to verify its servers. 409 `not_encrypted` for clusters without "
               "TLS. Nothing of it is secret.")  # fmt: skip
    def get(self, request: Request, tenant: str, name: str) -> Response:
        return Response(wire(CertificateOut, certificates_of(cluster=self.cluster)))
