"""What the services' accounts may do, and what the API server refuses them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipreserve import certs, errors, install, kube, store
from ipreserve.kube import Kube
from ipreserve.tests.world import NAMESPACE, World, ensure

CALICO = ("projectcalico.org", "crd.projectcalico.org")
# Every account has these, of Kubernetes' own roles: to ask about itself, and whom to trust.
ITS_OWN = {"selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews", "clustertrustbundles"}

Right = tuple[str, str, str, str]
"""API group, resource, name ("" for any), verb."""


def rights(resource: str, verbs: str, *, groups: tuple[str, ...] = ("",), name: str = "") -> set[Right]:
    return {(group, resource, name, verb) for group in groups for verb in verbs.split()}


EVERYWHERE = {
    "webhook": {
        # Bars the address.
        *rights("ipreservations", "get list create update", groups=CALICO),
        # Calico's own cooldown; pools and blocks of addresses to give back.
        *rights("ipamconfigs", "get", groups=CALICO),
        *rights("ipamconfigurations", "get", groups=CALICO),
        *rights("ippools", "list", groups=CALICO),
        *rights("ipamblocks", "get", groups=CALICO),
        *rights("apiservices", "get", groups=("apiregistration.k8s.io",), name="v3.projectcalico.org"),
        # Whose address it is; kubelet's evictions; whether the namespace is protected.
        *rights("pods", "get list watch"),
        *rights("events", "list watch"),
        *rights("namespaces", "get"),
        # Arms its own.
        *rights(
            "validatingwebhookconfigurations", "get update", groups=("admissionregistration.k8s.io",),
            name=install.CONFIGURATION,
        ),
        *rights(
            "mutatingwebhookconfigurations", "get update", groups=("admissionregistration.k8s.io",),
            name=install.GIVE_BACK,
        ),
    },
    "sweeper": {
        *rights("ipreservations", "get list create update", groups=CALICO),
        *rights("ipamblocks", "list watch", groups=CALICO),
        *rights("ippools", "list", groups=CALICO),
        *rights("ipamconfigs", "get", groups=CALICO),
        *rights("ipamconfigurations", "get", groups=CALICO),
        *rights("apiservices", "get", groups=("apiregistration.k8s.io",), name="v3.projectcalico.org"),
        *rights("pods", "list watch"),
        *rights("nodes", "list"),
        *rights("namespaces", "list"),
        *rights("statefulsets", "list", groups=("apps",)),
    },
}  # fmt: skip
AT_HOME = {
    "webhook": {
        *rights("configmaps", "get list create update"),
        *rights("secrets", "create"),
        *rights("secrets", "get update", name=certs.SECRET),
    },
    "sweeper": {
        *rights("configmaps", "get list create update"),
        *rights("events", "create"),
        *rights("leases", "create", groups=("coordination.k8s.io",)),
        *rights("leases", "get update", groups=("coordination.k8s.io",), name=install.LEASE),
    },
}
ACCOUNTS = ("webhook", "sweeper")


@pytest.fixture
def doors(webhook_kubeconfig: Path, sweeper_kubeconfig: Path) -> dict[str, Kube]:
    return {"webhook": kube.connect(webhook_kubeconfig), "sweeper": kube.connect(sweeper_kubeconfig)}


def granted(door: Kube, namespace: str) -> set[Right]:
    """All that the API server would let this account do in a namespace, as it says itself."""
    asked: dict[str, Any] = {
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}
    }  # fmt: skip
    status = door.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", asked)["status"]
    assert not status.get("incomplete"), status.get("evaluationError")
    return {
        (group, resource, name, verb)
        for rule in status["resourceRules"]
        for group in rule.get("apiGroups") or ("",)
        for resource in rule.get("resources") or ()
        for name in rule.get("resourceNames") or ("",)
        for verb in rule["verbs"]
        if resource not in ITS_OWN
    }


@pytest.mark.parametrize("account", ACCOUNTS)
def test_account_has_the_rights_that_are_explained_here_and_no_other(
    account: str, doors: dict[str, Kube], quiet_world: World
) -> None:
    assert granted(doors[account], quiet_world.namespace) == EVERYWHERE[account]
    assert granted(doors[account], NAMESPACE) == EVERYWHERE[account] | AT_HOME[account]


@pytest.fixture(scope="module")
def others(admin: Kube) -> Iterator[World]:
    """A team with a Secret, a ConfigMap and a pod; ipreserve's own namespace has a Secret of somebody."""
    world = World(admin)
    secret = {"metadata": {"name": "theirs"}, "stringData": {"password": "kept"}}
    for namespace in (world.namespace, NAMESPACE):
        ensure(admin, f"/api/v1/namespaces/{namespace}/secrets", secret)
    ensure(admin, f"/api/v1/namespaces/{world.namespace}/configmaps", {"metadata": {"name": store.NAME}})
    ensure(admin, f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases", {"metadata": {"name": "theirs"}})
    world.pod("cache-0", world.address(1), node="n1")
    yield world
    for namespace in (world.namespace, NAMESPACE):
        admin.request("DELETE", f"/api/v1/namespaces/{namespace}/secrets/theirs")
    admin.request("DELETE", f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/theirs")
    world.close()


# What would hurt most if somebody took over a service: for each the method, the path, and who is refused.
REFUSED = {
    "read a team's Secret": ("GET", "/api/v1/namespaces/{team}/secrets/theirs", ACCOUNTS),
    "list all Secrets": ("GET", "/api/v1/secrets", ACCOUNTS),
    "list the Secrets at home": ("GET", "/api/v1/namespaces/{home}/secrets", ACCOUNTS),
    "read another Secret at home": ("GET", "/api/v1/namespaces/{home}/secrets/theirs", ACCOUNTS),
    "read the webhook's key": ("GET", "/api/v1/namespaces/{home}/secrets/" + certs.SECRET, ("sweeper",)),
    "write a team's ConfigMap": ("PUT", "/api/v1/namespaces/{team}/configmaps/" + store.NAME, ACCOUNTS),
    "read a team's ConfigMap": ("GET", "/api/v1/namespaces/{team}/configmaps/" + store.NAME, ACCOUNTS),
    "delete the ledger": ("DELETE", "/api/v1/namespaces/{home}/configmaps/" + store.NAME, ACCOUNTS),
    "delete the reservations": ("DELETE", "/apis/crd.projectcalico.org/v1/ipreservations/" + store.NAME, ACCOUNTS),
    "delete a pod": ("DELETE", "/api/v1/namespaces/{team}/pods/cache-0", ACCOUNTS),
    "write a pod": ("PUT", "/api/v1/namespaces/{team}/pods/cache-0", ACCOUNTS),
    "evict a pod": ("POST", "/api/v1/namespaces/{team}/pods/cache-0/eviction", ACCOUNTS),
    "run a command in a pod": ("POST", "/api/v1/namespaces/{team}/pods/cache-0/exec", ACCOUNTS),
    "start a pod at home": ("POST", "/api/v1/namespaces/{home}/pods", ACCOUNTS),
    "write a node": ("PUT", "/api/v1/nodes/n1", ACCOUNTS),
    "write a namespace": ("PUT", "/api/v1/namespaces/{team}", ACCOUNTS),
    "free addresses in Calico's blocks": ("PUT", "/apis/crd.projectcalico.org/v1/ipamblocks/any", ACCOUNTS),
    "write a pool": ("PUT", "/apis/crd.projectcalico.org/v1/ippools/any", ACCOUNTS),
    "install a webhook": ("POST", install.VALIDATING, ACCOUNTS),
    "write another's webhook": ("PUT", install.VALIDATING + "/theirs", ACCOUNTS),
    "write another's mutating webhook": ("PUT", install.MUTATING + "/theirs", ACCOUNTS),
    "write the webhook's configuration": ("PUT", f"{install.VALIDATING}/{install.CONFIGURATION}", ("sweeper",)),
    "remove the webhook": ("DELETE", f"{install.VALIDATING}/{install.CONFIGURATION}", ACCOUNTS),
    "take another's Lease": ("PUT", "/apis/coordination.k8s.io/v1/namespaces/{home}/leases/theirs", ACCOUNTS),
    "give itself rights": ("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", ACCOUNTS),
    "make a token of another account": ("POST", "/api/v1/namespaces/{team}/serviceaccounts/default/token", ACCOUNTS),
}


@pytest.mark.parametrize(
    ("what", "account"), [(what, one) for what, (_, _, accounts) in REFUSED.items() for one in accounts]
)
def test_account_that_somebody_took_over_is_refused_to(
    what: str, account: str, doors: dict[str, Kube], others: World
) -> None:
    method, path, _ = REFUSED[what]
    at = path.format(team=others.namespace, home=NAMESPACE)
    with pytest.raises(errors.ApiError) as refused:
        doors[account].request(method, at, {} if method in ("PUT", "POST") else None)
    assert refused.value.status == 403, refused.value
    assert f"system:serviceaccount:{NAMESPACE}:ipreserve-{account}" in str(refused.value)
