"""Where what runs differs from what was wished: asked of the target by a dry run of everything Berth would apply.

Nothing is changed by asking. Berth itself applies everything again about once a minute, so most of what is found is
either younger than that, or fought over: another field manager owns the value, and Berth does not take it away.
What others add beside Berth's fields (a label, an annotation) is no drift, and stays.
"""

from __future__ import annotations

from dataclasses import dataclass

from provisioning.apply import door, errors
from provisioning.apply.rehearsal import Rehearsed, rehearse_apply, rehearse_certificates, rehearse_secrets
from provisioning.clusters.rehearsal import manifests_of
from provisioning.clusters.views import client_for, cluster_view
from provisioning.engines.registry import ENGINES
from provisioning.models import Cluster


@dataclass(frozen=True)
class Drift:
    """What one cluster's objects would change to, only those that differ. `problem`: why it could not be asked."""

    cluster: Cluster
    objects: tuple[Rehearsed, ...] = ()
    problem: errors.DoorError | None = None

    @property
    def in_step(self) -> bool | None:
        """Whether everything is as wished; None when that is not known."""
        return None if self.problem is not None else not self.objects


def drift_of(cluster: Cluster) -> Drift:
    """Compare one cluster. Takes some tens of milliseconds; never raises for what the target says or does not say."""
    view = cluster_view(cluster)
    try:
        client = client_for(cluster.target)
        look = door.look_at_namespace(client, view.namespace)()
        if look.namespace is None:
            raise errors.Absent(
                f"The namespace {view.namespace} is gone.", remedy="Berth makes it again at its next look."
            )
        door.require_namespace(look, namespace=view.namespace, tenant_id=cluster.tenant_id)
        owner_wish = door.owner_manifest(view)
        owned = rehearse_apply(client, [owner_wish])
        if owned[0].refusal is not None:
            return Drift(cluster, tuple(owned))
        path = door.path_of("ConfigMap", view.namespace, owner_wish["metadata"]["name"])
        owner = client.apply(path, owner_wish, dry_run=True)
        found = [
            *owned,
            *rehearse_secrets(client, view, ENGINES[view.engine].secrets(view), owner),
            *rehearse_certificates(client, view, ENGINES[view.engine].certificates(view)),
            *rehearse_apply(client, manifests_of(view, owner)),
        ]
    except errors.DoorError as error:
        return Drift(cluster, problem=error)
    return Drift(cluster, tuple(one for one in found if one.action != "none" or one.refusal is not None))
