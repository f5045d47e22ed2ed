"""Every path of admission, on the real API server and the real webhook under its own account."""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import re
import ssl
import threading
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from ipreserve import certs, errors, install, store
from ipreserve.kube import JsonObject
from ipreserve.records import State, address
from ipreserve.tests.aggregated import https
from ipreserve.tests.waiting import eventually
from ipreserve.tests.world import NAMESPACE, Service, World, insist, overwrite


def owners(world: World) -> dict[str, tuple[str, str]]:
    """Address to (pod, path) of all records."""
    return {str(one): (record.pod, record.via) for one, record in world.records().items()}


def test_graceful_delete_reserves_the_address_before_it_is_allowed(world: World, serving: Service) -> None:
    one = world.address(1)
    world.pod("cache-0", one)
    world.delete("cache-0")
    assert world.listed() == [f"{one}/32"]
    record = world.records()[address(one)]
    assert (record.namespace, record.pod, record.via, record.state) == (
        world.namespace, "cache-0", "delete", State.CLAIMED
    )  # fmt: skip


def test_the_calls_of_one_deletion_make_one_entry_and_keep_the_first_time(world: World, serving: Service) -> None:
    one = world.address(1)
    pod = world.pod("cache-0", one, node="n1")
    before = serving.value('ipreserve_admission_decisions_total{outcome="known",path="delete pods"}')
    world.delete("cache-0")
    first = world.records()[address(one)]
    world.finish(pod)
    assert world.listed() == [f"{one}/32"]
    assert world.records()[address(one)] == first
    # The API server asks at least twice more for kubelet's last DELETE.
    assert serving.value('ipreserve_admission_decisions_total{outcome="known",path="delete pods"}') >= before + 2


def test_force_delete_and_a_failed_pod_are_reserved_too(world: World) -> None:
    world.pod("cache-0", world.address(1), node="n1")
    world.pod("cache-1", world.address(2), node="n1", phase="Failed")
    world.delete("cache-0", gracePeriodSeconds=0)
    world.delete("cache-1")
    assert world.barred() == {address(world.address(1)), address(world.address(2))}


def test_dry_run_of_a_delete_and_of_an_eviction_writes_nothing(world: World) -> None:
    world.pod("cache-0", world.address(1))
    world.delete("cache-0", dryRun=["All"])
    world.evict("cache-0", dryRun=["All"])
    assert (world.barred(), world.records()) == (frozenset(), {})


def test_dry_run_of_the_request_itself_writes_nothing_for_an_eviction(world: World) -> None:
    world.pod("cache-0", world.address(1))
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "cache-0"}}
    world.kube.request("POST", world.pods("cache-0") + "/eviction", body, query={"dryRun": "All"})
    assert (world.barred(), world.records()) == (frozenset(), {})
    assert "deletionTimestamp" not in world.kube.get(world.pods("cache-0"))["metadata"]


def test_deletion_that_is_asked_for_again_while_the_pod_is_going_makes_one_record(world: World) -> None:
    one = world.address(1)
    world.pod("cache-0", one, node="n1")
    world.delete("cache-0")
    first = world.records()[address(one)]
    for again in ({}, {"gracePeriodSeconds": 20}, {"gracePeriodSeconds": 10}):
        world.delete("cache-0", **again)
    world.evict("cache-0")
    assert (world.listed(), world.records()) == ([f"{one}/32"], {address(one): first})


def test_failed_pod_that_is_deleted_makes_one_record(world: World, serving: Service) -> None:
    one = world.address(1)
    world.pod("cache-0", one, node="n1", phase="Failed")
    before = serving.value('ipreserve_admission_decisions_total{outcome="known",path="delete pods"}')
    world.delete("cache-0")
    with pytest.raises(errors.NotFound):
        world.kube.get(world.pods("cache-0"))
    assert world.listed() == [f"{one}/32"]
    assert owners(world) == {one: ("cache-0", "delete")}
    assert world.records()[address(one)].seq == 1
    # Nothing is waited for, and the API server asks more than once all the same.
    assert serving.value('ipreserve_admission_decisions_total{outcome="known",path="delete pods"}') > before


def test_eviction_of_a_pod_that_nobody_selected_reserves_nothing(world: World) -> None:
    world.pod("web", world.address(1), stateful=False)
    world.pod("cache-0", world.address(2), annotations={"ipreserve.berth.io/reserve": "false"})
    for name in ("web", "cache-0"):
        world.evict(name)
    assert (world.barred(), world.records()) == (frozenset(), {})


class Refuser(BaseHTTPRequestHandler):
    """Another team's webhook, which says no to everything."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        response = {"uid": asked["request"]["uid"], "allowed": False, "status": {"message": "not today"}}
        answer = json.dumps({**asked, "request": None, "response": response}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        return


def test_deletion_that_another_webhook_refuses_is_cancelled_and_its_pod_keeps_running(
    world: World, sweeper_kubeconfig: Path
) -> None:
    pod = world.pod("cache-0", world.address(1), node="n1")
    path = f"{install.VALIDATING}/refuser"
    with https(Refuser) as (port, authority):
        one = {
            "name": "refuser.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {"url": f"https://127.0.0.1:{port}/", "caBundle": base64.b64encode(authority).decode()},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["pods"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}},
        }  # fmt: skip
        world.kube.request("POST", install.VALIDATING, {"metadata": {"name": "refuser"}, "webhooks": [one]})
        try:
            # A configuration takes a moment until it counts; this service may have to write meanwhile, too.
            eventually(lambda: _refused(world, "cache-0") and world.barred(), "refused and reserved")
        finally:
            world.kube.request("DELETE", path)
    sweeper = world.sweeper(sweeper_kubeconfig, cancel_after=1.0)
    eventually(lambda: any(row.uid == pod["metadata"]["uid"] for row in sweeper.pods.rows()), "the pod is seen")
    eventually(lambda: sweeper.sweep().ended, "the claim is cancelled")
    assert (world.barred(), world.records()) == (frozenset(), {})
    assert [entry["end"] for entry in world.store().history(address(world.address(1)))] == ["cancelled"]
    assert "deletionTimestamp" not in world.kube.get(world.pods("cache-0"))["metadata"]


def _refused(world: World, name: str) -> bool:
    """Whether somebody says no. Only tries, until then."""
    try:
        world.delete(name, dryRun=["All"])
    except errors.ApiError:
        with pytest.raises(errors.ApiError, match="not today"):
            world.delete(name)
        return True
    return False


def test_reservation_without_a_list_takes_a_claim_and_no_address_that_is_nobody_s_is_kept_in_it(world: World) -> None:
    collection = "/apis/crd.projectcalico.org/v1/ipreservations"
    body = {"apiVersion": "crd.projectcalico.org/v1", "kind": "IPReservation", "metadata": {"name": store.NAME}}
    overwrite(world, collection, {**body, "spec": {}})
    world.pod("cache-0", world.address(1))
    world.delete("cache-0")
    assert world.listed() == [f"{world.address(1)}/32"]


def test_deletecollection_reserves_every_pod_though_it_names_none(world: World) -> None:
    for number in range(3):
        world.pod(f"cache-{number}", world.address(number))
    world.kube.request("DELETE", world.pods(), {})
    assert sorted(owners(world).values()) == [(f"cache-{number}", "delete") for number in range(3)]


def test_deleting_a_namespace_reserves_its_pods_and_is_not_blocked(world: World) -> None:
    policies = {"ipreserve.berth.io/hold": "2h", "ipreserve.berth.io/on-owner-delete": "nonsense"}
    path, merge = f"/api/v1/namespaces/{world.namespace}", "application/merge-patch+json"
    world.kube.request("PATCH", path, {"metadata": {"annotations": policies}}, content_type=merge)
    world.pod("cache-0", world.address(1))
    world.kube.request("DELETE", path)

    selector = f"metadata.name={world.namespace}"
    eventually(lambda: not world.kube.get("/api/v1/namespaces", fieldSelector=selector)["items"], "it is gone")
    assert owners(world) == {world.address(1): ("cache-0", "delete")}
    # Nobody can ask the namespace any longer when its addresses are free.
    assert world.records()[address(world.address(1))].space == {"hold": "2h"}


def test_eviction_reserves_the_address_of_a_pod_it_does_not_carry(world: World) -> None:
    world.pod("cache-0", world.address(1))
    world.evict("cache-0")
    assert owners(world) == {world.address(1): ("cache-0", "evict")}


def test_eviction_of_a_pod_that_is_gone_says_not_found(world: World) -> None:
    with pytest.raises(errors.NotFound):
        world.evict("cache-0")
    assert world.barred() == frozenset()


def test_dual_stack_pod_is_deleted_and_both_addresses_rest(world: World) -> None:
    world.pod("cache-0", world.address(1), "fd00:0:0:0::a")
    world.delete("cache-0")
    assert world.listed() == [f"{world.address(1)}/32", "fd00::a/128"]
    assert set(owners(world)) == {world.address(1), "fd00::a"}


def test_host_network_pod_s_address_is_its_node_s_and_is_left_alone(world: World) -> None:
    world.pod("cache-0", world.address(1), hostNetwork=True)
    world.delete("cache-0")
    assert world.barred() == frozenset()


def test_only_labelled_namespaces_and_selected_pods_are_protected(world: World) -> None:
    wish = "ipreserve.berth.io/reserve"
    world.pod("web", world.address(1), stateful=False)
    world.pod("asked", world.address(2), stateful=False, annotations={wish: "true"})
    world.pod("cache-0", world.address(3), annotations={wish: "false"})
    elsewhere = World(world.kube, namespace=f"{world.namespace}-x")
    world.kube.request(
        "PATCH", f"/api/v1/namespaces/{elsewhere.namespace}", {"metadata": {"labels": {"ip-reserve": "enable"}}},
        content_type="application/merge-patch+json",
    )  # fmt: skip
    elsewhere.pod("cache-0", elsewhere.address(4))
    for name in ("web", "asked", "cache-0"):
        world.delete(name)
    elsewhere.delete("cache-0")
    assert owners(world) == {world.address(2): ("asked", "delete")}


def test_pods_of_a_deployment_that_opts_in_by_its_template_are_protected_also_when_it_is_deleted(world: World) -> None:
    wish = {"ipreserve.berth.io/reserve": "true"}
    path = f"/apis/apps/v1/namespaces/{world.namespace}/deployments"

    def pods(app: str) -> list[JsonObject]:
        found: list[JsonObject] = world.kube.get(world.pods(), labelSelector=f"app={app}")["items"]
        return found

    # The second one says it where it does not count: on itself.
    for number, (app, own, template) in enumerate([("broker", {}, wish), ("web", wish, {})], start=1):
        body = {
            "metadata": {"name": app, "annotations": own},
            "spec": {
                "replicas": 1, "selector": {"matchLabels": {"app": app}},
                "template": {
                    "metadata": {"labels": {"app": app}, "annotations": template},
                    "spec": {"containers": [{"name": "main", "image": "busybox"}]},
                },
            },
        }  # fmt: skip
        world.kube.request("POST", path, body)
        (pod,) = eventually(lambda app=app: pods(app), "the pod is made")  # type: ignore[misc]
        world.report(pod["metadata"]["name"], world.address(number))
    for app in ("broker", "web"):
        world.kube.request("DELETE", f"{path}/{app}", {"propagationPolicy": "Background"})
        eventually(lambda app=app: not pods(app), "its pod is gone")  # type: ignore[misc]
    (record,) = world.records().values()
    assert (world.listed(), record.owner.partition("/")[0]) == ([f"{world.address(1)}/32"], "ReplicaSet")


def test_selectors_change_while_running_and_the_api_server_asks_for_what_they_say(world: World) -> None:
    merge, numbers = "application/merge-patch+json", itertools.count(1)
    space = f"/api/v1/namespaces/{world.namespace}"
    world.kube.request("PATCH", space, {"metadata": {"labels": {"tier": "gold"}}}, content_type=merge)

    def rests(*, stateful: bool, app: str) -> bool:
        """Whether the address of a new pod is barred when the pod is deleted."""
        number = next(numbers)
        world.pod(f"x-{number}", world.address(number), stateful=stateful)
        world.kube.request(
            "PATCH", world.pods(f"x-{number}"), {"metadata": {"labels": {"app": app}}}, content_type=merge
        )
        world.delete(f"x-{number}")
        return address(world.address(number)) in world.barred()

    selectors = {
        "namespace-selector": {"matchLabels": {"tier": "gold"}},
        "pod-selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["db"]}]},
    }
    path = f"{world.store().configmaps}/{store.CONFIG}"
    config = {"metadata": {"name": store.CONFIG}, "data": {name: json.dumps(one) for name, one in selectors.items()}}
    world.kube.request("POST", world.store().configmaps, config)
    try:
        eventually(lambda: rests(stateful=False, app="db"), "the new selectors are followed")
        assert not rests(stateful=True, app="web")
    finally:
        world.kube.request("DELETE", path)
        eventually(lambda: rests(stateful=True, app="web"), "the normal selectors are followed again")
    assert not rests(stateful=False, app="db")


def test_address_that_a_running_pod_loses_in_place_is_reserved(world: World) -> None:
    world.pod("cache-0", world.address(1))
    world.report("cache-0", world.address(2))
    assert owners(world) == {world.address(1): ("cache-0", "status")}


def test_pod_that_ends_on_a_full_node_is_reserved_when_it_is_reported(world: World) -> None:
    world.pod("cache-0", world.address(1))
    world.report("cache-0", world.address(1), phase="Failed")
    assert owners(world) == {world.address(1): ("cache-0", "status")}


def test_a_burst_is_written_in_few_commits_and_none_is_lost(world: World, serving: Service) -> None:
    names = [f"cache-{number}" for number in range(60)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: world.pod(n, world.address(int(n[6:]) + 1)), names))
        before = serving.value('ipreserve_commits_total{outcome="written"}')
        list(pool.map(world.delete, names))
    assert len(world.barred()) == len(world.records()) == 60
    # Sixteen are asked for at a time. One commit for each would be 60.
    assert serving.value('ipreserve_commits_total{outcome="written"}') - before <= 30


def test_reservations_deleted_by_hand_while_the_webhook_runs_do_not_stop_it(world: World) -> None:
    world.pod("cache-0", world.address(1))
    world.pod("cache-1", world.address(2))
    world.delete("cache-0")
    world.wipe()
    world.delete("cache-1")
    assert set(owners(world)) == {world.address(2)}
    assert world.barred() >= {address(world.address(2))}


def test_new_certificate_is_taken_up_while_an_open_connection_goes_on(world: World, serving: Service) -> None:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    before = serving.said().count("certificate in use")
    with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", serving.port, context=trusting)) as open_one:
        open_one.request("GET", "/healthz")
        assert open_one.getresponse().read() == b"ok\n"
        held = open_one.sock
        world.kube.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}/secrets/{certs.SECRET}")
        eventually(lambda: serving.said().count("certificate in use") > before, "a new one is used")
        open_one.request("GET", "/healthz")
        assert open_one.getresponse().read() == b"ok\n"
        assert open_one.sock is held
    world.pod("cache-0", world.address(1))

    def deleted() -> bool:
        with contextlib.suppress(errors.ApiError):
            world.delete("cache-0")
            return True
        return False

    eventually(deleted, "the API server trusts the new authority")
    assert set(owners(world)) == {world.address(1)}


class Secret:
    """The webhook's certificates as somebody who may write them sees them."""

    def __init__(self, world: World) -> None:
        self._kube, self._path = world.kube, f"/api/v1/namespaces/{NAMESPACE}/secrets/{certs.SECRET}"

    def read(self) -> dict[str, bytes]:
        return {name: base64.b64decode(text) for name, text in self._kube.get(self._path)["data"].items()}

    def change(self, to: dict[str, bytes]) -> None:
        """Replace some entries."""

        def write() -> None:
            raw = self._kube.get(self._path)
            changed = {name: base64.b64encode(one).decode() for name, one in to.items()}
            self._kube.request("PUT", self._path, {**raw, "data": {**raw["data"], **changed}})

        insist(write)


def test_new_connections_and_deletions_go_on_while_server_certificate_and_authority_are_renewed(
    world: World, serving: Service
) -> None:
    secret, now = Secret(world), datetime.fromtimestamp(world.kube.clock.now(), UTC)
    done, failed, opened, deleted = threading.Event(), [], itertools.count(), itertools.count(1)

    def bundle() -> bytes:
        """What the API server trusts, as it was told."""
        found = world.kube.get(f"{install.VALIDATING}/{install.CONFIGURATION}")
        return base64.b64decode(found["webhooks"][0]["clientConfig"]["caBundle"])

    def connect() -> None:
        while not done.is_set():
            trusting = ssl.create_default_context(cadata=bundle().decode())
            try:
                with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", serving.port, context=trusting)) as c:
                    c.connect()
            except OSError as error:
                failed.append(repr(error))
                return
            next(opened)

    def delete() -> None:
        while not done.is_set():
            number = next(deleted)
            if number > 250:
                return
            try:
                world.pod(f"cache-{number}", world.address(number))
                world.delete(f"cache-{number}")
            except errors.IpreserveError as error:
                failed.append(str(error))
                return

    def renewed(entry: str, before: bytes) -> bool:
        assert failed == []
        return secret.read().get(entry, b"") not in (b"", before)

    def in_use() -> int:
        return serving.said().count("certificate in use")

    with ThreadPoolExecutor(4) as workers:
        running = [workers.submit(one) for one in (connect, connect, delete, delete)]
        try:
            # 1. The server's certificate has lived two thirds of its life: a new one of the same authority.
            before, used = secret.read(), in_use()
            signer = certs.Pair(before[certs.CA], before[certs.CA_KEY])
            old = certs.issue(signer, install.server_names(NAMESPACE, serving.url), now - certs.SERVER_LIFE * 0.7)
            secret.change({certs.TLS: old.certificate, certs.TLS_KEY: old.key})
            eventually(lambda: renewed(certs.TLS, old.certificate) and in_use() > used, "a new certificate is used")
            assert secret.read()[certs.CA] == before[certs.CA]
            # 2. The authority has: the next is announced first, and signs nothing yet.
            aged = certs.make_authority(now - certs.AUTHORITY_LIFE * 0.7)
            secret.change({certs.CA: aged.certificate + before[certs.CA], certs.CA_KEY: aged.key})
            eventually(lambda: renewed(certs.NEXT, b""), "the next authority is announced")
            coming, served = secret.read()[certs.NEXT], secret.read()[certs.TLS]
            eventually(lambda: coming in bundle(), "the API server is told of the next authority")
            assert secret.read()[certs.TLS] == served
            # 3. Five minutes later it signs.
            used = in_use()
            secret.change({certs.NEXT_SINCE: (now - certs.ANNOUNCE * 2).isoformat().encode()})
            eventually(lambda: renewed(certs.TLS, served) and in_use() > used, "the next authority has signed")
            assert secret.read()[certs.CA].startswith(coming)
            some = next(opened)
            eventually(lambda: next(opened) > some + 20, "new connections are made with it")
        finally:
            done.set()
        for one in running:
            one.result()
    assert failed == []
    assert len(world.records()) == min(next(deleted), 251) - 1


def sent(serving: Service, method: str, path: str, body: bytes | None) -> tuple[int, str]:
    """Status and text of an answer of the webhook."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", serving.port, context=trusting)) as one:
        one.request(method, path, body)
        answer = one.getresponse()
        return answer.status, answer.read().decode()


def test_review_of_the_largest_pod_the_api_server_stores_is_answered(serving: Service) -> None:
    pod = {
        "metadata": {
            "name": "cache-0", "namespace": "team", "uid": "large",
            "annotations": {"ipreserve.berth.io/reserve": "false", "note": "x" * 1_500_000},
        }
    }  # fmt: skip
    request = {"uid": "1", "operation": "DELETE", "resource": {"resource": "pods"}, "oldObject": pod}
    body = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}
    status, text = sent(serving, "POST", "/review", json.dumps(body).encode())
    assert (status, json.loads(text)["response"]) == (200, {"uid": "1", "allowed": True})


def test_request_that_somebody_else_made_up_holds_no_address_and_ends_no_hold(world: World, serving: Service) -> None:
    mine = world.pod("cache-0", world.address(1), annotations={"ipreserve.berth.io/hold": "2h"})
    gone = world.pod("cache-1", world.address(2))
    world.delete("cache-1")
    hold = world.records()[address(world.address(2))]
    other = World(world.kube, namespace=f"{world.namespace}-x", protected=False)
    unprotected = other.pod("cache-0", other.address(3))

    def forged(pod: JsonObject, *addresses: str) -> str:
        """Says of a pod what its owner would like, and returns the outcome that is counted for it."""
        pod = json.loads(json.dumps(pod))
        pod["metadata"]["annotations"] = {"ipreserve.berth.io/hold": "skip"}
        pod["status"]["podIPs"] = [{"ip": one} for one in addresses]
        request = {"uid": "1", "operation": "DELETE", "resource": {"resource": "pods"}, "oldObject": pod}
        body = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}
        before = outcomes(serving)
        status, text = sent(serving, "POST", "/review", json.dumps(body).encode())
        assert (status, json.loads(text)["response"]["allowed"]) == (200, True)
        return next(iter(outcomes(serving) - before))

    gone["metadata"]["uid"] = "another"
    assert forged(gone, world.address(2)) == "gone"
    assert forged(mine, world.address(2)) == "not_there"
    assert forged(unprotected, world.address(3)) == "not_protected"
    assert world.records() == {address(world.address(2)): hold}
    # What is true of it may be said by anybody, and the claim ends as the pod lives on.
    assert forged(mine, world.address(1)) == "reserved"
    assert world.records()[address(world.address(1))].policy == {"hold": "2h"}
    assert world.barred() == {address(world.address(1)), address(world.address(2))}


def outcomes(serving: Service) -> Counter[str]:
    """How often each outcome was counted for DELETE."""
    found = re.findall(r'decisions_total\{outcome="(\w+)",path="delete pods"\} ([0-9.]+)', serving.metrics())
    return Counter({outcome: int(float(count)) for outcome, count in found})


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/review", 405, "POST is needed"),
        ("POST", "/reviews", 404, "POST /review"),
        ("GET", "/readyz", 200, "ok"),
    ],
)
def test_other_paths_and_methods_say_what_there_is(
    serving: Service, method: str, path: str, status: int, says: str
) -> None:
    found, text = sent(serving, method, path, None)
    assert found == status
    assert says in text


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"object": None, "resource": "pods"}, "request.resource.resource: a text is needed"),
        ({"object": {"metadata": {"annotations": "x"}}}, "annotations: an object is needed"),
    ],
)
def test_malformed_request_for_giving_back_gets_a_sentence_that_is_also_in_the_log(
    world: World, serving: Service, body: dict[str, object], says: str
) -> None:
    request = {"uid": "1", "operation": "CREATE", "resource": {"resource": "pods"}, **body}
    review = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}
    configuration = world.kube.get(f"{install.MUTATING}/{install.GIVE_BACK}")
    path = "/" + configuration["webhooks"][0]["clientConfig"]["url"].rpartition("/")[2]
    status, text = sent(serving, "POST", path, json.dumps(review).encode())
    assert (status, text) == (400, f"{says}\n")
    assert f"an AdmissionReview for giving back was refused: {says}" in serving.said()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "the body is not JSON"),
        (b'{"kind": "Pod"}', "kind: AdmissionReview is needed"),
        (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1"}', "admissionReviewVersions: [v1]"),
        (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}', "request: an object is needed"),
        (
            json.dumps(
                {
                    "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
                    "request": {"uid": "1", "operation": "DELETE", "resource": {"resource": "pods"}},
                }
            ).encode(),
            "request.oldObject: missing in a DELETE",
        ),
    ],
)  # fmt: skip
def test_malformed_review_gets_a_sentence_that_names_the_field(serving: Service, body: bytes, says: str) -> None:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(serving.url + "/review", data=body, method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10, context=trusting)
    with caught.value as answer:
        assert answer.code == 400
        assert says in answer.read().decode()
    assert says in serving.said()
