"""The policy for what cannot be recorded: refused for the stated time, then let go; told for each shard by itself. And
what is believed of a request: what the API server has of its pod."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import threading
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pytest
from aiohttp import web

from ipreserve import certs, errors, install, kube, layout, review, settings, store, sweeper
from ipreserve import webhook as serving
from ipreserve.kube import JsonObject
from ipreserve.records import Address, Claim, Record
from ipreserve.settings import Live
from ipreserve.tests.paper import CALICO, Paper
from ipreserve.tests.waiting import eventually
from ipreserve.webhook import Webhook

DENY = 60.0
SHARDS = 16
A, B = Address("10.0.0.1"), Address("10.0.0.2")


class Time:
    """Moved by hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> Time:
    found = Time()
    monkeypatch.setattr(store.Failing, "now", staticmethod(found))
    return found


@pytest.fixture
def paper() -> Paper:
    return Paper()


def webhook(paper: Paper, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Webhook:
    monkeypatch.setattr(kube, "detect", lambda door, wanted="auto": CALICO)
    chosen: dict[str, Any] = {"deny": DENY, "deadline": 5.0} | options
    found = Webhook(settings.Settings(**chosen), paper)
    found.reserver.shards = SHARDS
    return found


def of_shard(index: int, number: int = 0) -> Address:
    """An address that belongs to this shard."""
    every = (Address(f"10.{a}.{b}.1") for a in range(256) for b in range(256))
    return next(islice((one for one in every if layout.shard_of(one, SHARDS) == index), number, None))


def pod_of(*addresses: Address, uid: str = "", **policies: str) -> JsonObject:
    return {
        "metadata": {
            "name": "cache-0", "namespace": "team", "uid": uid or f"uid-{addresses[0]}",
            "labels": {"statefulset.kubernetes.io/pod-name": "cache-0"},
            "annotations": {f"ipreserve.berth.io/{name.replace('_', '-')}": text for name, text in policies.items()},
        },
        "spec": {"nodeName": "n1"}, "status": {"phase": "Running", "podIPs": [{"ip": one} for one in addresses]},
    }  # fmt: skip


def deletion(one: Address, *, uid: str = "") -> bytes:
    return deletion_of(pod_of(one, uid=uid))


def deletion_of(pod: JsonObject) -> bytes:
    return asked(operation="DELETE", resource={"resource": "pods"}, oldObject=pod)


def report(one: Address) -> bytes:
    """Kubelet says that a pod has failed."""
    old, new = pod_of(one), pod_of(one)
    new["status"]["phase"] = "Failed"
    about = {"namespace": "team", "name": "cache-0", "subResource": "status"}
    return asked(operation="UPDATE", resource={"resource": "pods"}, oldObject=old, object=new, **about)


def eviction() -> bytes:
    return asked(
        operation="CREATE", resource={"resource": "pods"}, subResource="eviction", namespace="team", name="cache-0"
    )


def asked(**request: Any) -> bytes:
    body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u", **request}}
    return json.dumps(body).encode()


POD, SPACE = "/api/v1/namespaces/team/pods/cache-0", "/api/v1/namespaces/team"


def there(paper: Paper, pod: JsonObject, **labels: str) -> None:
    """What the API server has: this pod, in a namespace with these labels, normally the one that protects."""
    paper.objects[POD] = pod
    paper.objects[SPACE] = {"metadata": {"name": "team", "labels": labels or {"ip-reserve": "enabled"}}}


def outcome(of: Webhook, body: bytes) -> str:
    """The answer to a request for a pod that is there as the request says."""
    request = review.parse(body)
    assert isinstance(of.kube, Paper)
    if request.old is not None:
        there(of.kube, dict(request.old))
    return answered(of, body)


def answered(of: Webhook, body: bytes) -> str:
    """The same, whatever is there."""
    return asyncio.run(of._answer(review.parse(body)))[1]


def refuse(paper: Paper, *indexes: int) -> None:
    """These shards cannot be written, and nobody would be helped by trying again."""
    names = {store.shard_name(index) for index in indexes}

    def before(method: str, path: str) -> None:
        if method != "GET" and path.rpartition("/")[2] in names:
            raise errors.ApiError("no", 403)

    paper.before = before


def make(of: Webhook, *indexes: int) -> None:
    """Both objects of these shards, so that writing them names them."""
    for index in indexes:
        assert outcome(of, deletion(of_shard(index, 8))) == "reserved"


def test_one_shard_that_cannot_be_written_is_given_up_though_others_work(
    paper: Paper, moved: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = webhook(paper, monkeypatch)
    make(one, 3, 4)
    refuse(paper, 3)
    for number in range(3):
        assert outcome(one, deletion(of_shard(3))) == "refused"
        assert outcome(one, deletion(of_shard(4, number))) == "reserved"
        moved.at += DENY / 3
    assert outcome(one, deletion(of_shard(3))) == "unprotected"
    # And that is no reason to let go what belongs elsewhere.
    refuse(paper, 3, 4)
    assert outcome(one, deletion(of_shard(4, 3))) == "refused"


def test_failure_that_ended_without_an_answer_is_not_counted_into_the_next(
    paper: Paper, moved: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = webhook(paper, monkeypatch, deadline=0.2)
    make(one, 3)
    refuse(paper, 3)
    assert outcome(one, deletion(of_shard(3))) == "refused"
    # Written, but later than anybody waits for; the pod's retry is answered from memory.
    go = threading.Event()
    paper.before = lambda method, path: none_of(path == POD or go.wait(10))
    one.reserver.forget()
    assert outcome(one, deletion(of_shard(3))) == "refused"
    go.set()
    late = one.reserver.reserve(claims_of(deletion(of_shard(3, 1))), seconds=10.0)
    assert [future.result(10) for future in late] == [None]
    assert outcome(one, deletion(of_shard(3))) == "known"
    moved.at += 10 * DENY
    refuse(paper, 3)
    assert outcome(one, deletion(of_shard(3, 2))) == "refused"


def test_failure_of_hours_ago_says_nothing_of_today(paper: Paper, moved: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    one = webhook(paper, monkeypatch)
    make(one, 3)
    refuse(paper, 3)
    assert outcome(one, deletion(of_shard(3))) == "refused"
    # Another replica wrote it, so nobody asked this one again.
    moved.at += 7200
    assert outcome(one, deletion(of_shard(3, 1))) == "refused"
    moved.at += DENY
    assert outcome(one, deletion(of_shard(3, 1))) == "unprotected"


def none_of(_: object) -> None:
    """For lambdas that only act."""


def claims_of(body: bytes) -> tuple[Claim, ...]:
    decision = review.decide(review.parse(body), at=0.0)
    assert isinstance(decision, review.Reserve)
    return tuple(decision.claims)


def test_pod_that_cannot_be_read_follows_the_same_policy(
    paper: Paper, moved: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = webhook(paper, monkeypatch)

    def fail(method: str, path: str) -> None:
        raise errors.Unreachable("no answer")

    paper.before = fail
    assert outcome(one, eviction()) == "refused"
    moved.at += DENY
    assert outcome(one, eviction()) == "unprotected"
    paper.before = lambda method, path: None
    there(paper, pod_of(of_shard(3)))
    del paper.objects[POD]
    assert outcome(one, eviction()) == "gone"
    paper.before = fail
    assert outcome(one, eviction()) == "refused"


def test_pod_that_nobody_reads_in_time_is_answered_before_the_api_server_gives_up(
    paper: Paper, moved: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = webhook(paper, monkeypatch, deadline=0.2)
    go = threading.Event()
    paper.before = lambda method, path: none_of(go.wait(10))

    async def answers() -> list[str]:
        # More than there are threads: the last ones never begin to look.
        several = await asyncio.gather(*(one._answer(review.parse(eviction())) for _ in range(20)))
        assert not go.is_set()
        go.set()
        return [outcome for _, outcome in several]

    assert asyncio.run(answers()) == ["refused"] * 20


def test_report_is_answered_within_its_own_shorter_timeout_while_a_deletion_still_waits(
    paper: Paper, moved: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = webhook(paper, monkeypatch, deadline=9.0)
    monkeypatch.setattr(serving, "SHORT_DEADLINE", 0.1)
    there(paper, pod_of(A))
    go = threading.Event()
    paper.before = lambda method, path: none_of(go.wait(10))

    async def both() -> tuple[str, str]:
        later, first = (asyncio.ensure_future(one._answer(review.parse(body))) for body in (deletion(A), report(A)))
        done, _ = await asyncio.wait([later, first], return_when=asyncio.FIRST_COMPLETED)
        assert done == {first}
        go.set()
        return (await first)[1], (await later)[1]

    assert asyncio.run(both()) == ("unprotected", "reserved")


def test_request_for_giving_back_is_answered_within_its_shorter_timeout(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = webhook(paper, monkeypatch, deadline=5.0, give_back=True)
    monkeypatch.setattr(serving, "SHORT_DEADLINE", 0.1)
    go = threading.Event()

    def calico() -> kube.CalicoApi:
        go.wait(10)
        return CALICO

    monkeypatch.setattr(one, "calico", calico)
    pod = pod_of(of_shard(3), give_back="true")
    pod["metadata"]["ownerReferences"] = [{"kind": "StatefulSet", "name": "cache", "controller": True}]
    body = asked(operation="CREATE", resource={"resource": "pods"}, namespace="team", object=pod)

    async def answer() -> int:
        status = (await one.on_give_back(Posted(body))).status
        assert not go.is_set()
        go.set()
        return status

    assert asyncio.run(answer()) == 200


class Posted(web.BaseRequest):
    """A request of which only the body counts."""

    def __init__(self, body: bytes) -> None:
        self._read_bytes = body


def test_report_of_kubelet_is_never_refused_and_the_address_that_it_costs_is_counted(
    paper: Paper, moved: Time, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = webhook(paper, monkeypatch)
    make(one, 3)
    refuse(paper, 3)
    assert outcome(one, deletion(of_shard(3))) == "refused"
    answer, said = asyncio.run(one._answer(review.parse(report(of_shard(3)))))
    assert (answer["response"]["allowed"], said) == (True, "unprotected")  # type: ignore[index]
    assert one.metrics.registry.get_sample_value("ipreserve_unprotected_total") == 1
    assert "team/cache-0 goes without a hold: no" in caplog.text

    def fail(method: str, path: str) -> None:
        raise errors.Unreachable("no answer")

    # Nor when the pod cannot be looked at.
    paper.before = fail
    one._protected.clear()
    assert outcome(one, report(of_shard(3, 1))) == "unprotected"


@pytest.mark.parametrize(
    ("spec", "named", "given"),
    [
        ({}, (), True),
        ({"assignmentMode": "Manual"}, (), False),
        ({"namespaceSelector": "team == 'red'"}, (), False),
        ({"assignmentMode": "Manual"}, ((4, "mine"),), True),
        ({"nodeSelector": "rack == 'a'"}, ((4, "10.0.0.0/24"),), True),
        ({}, ((4, "other"),), False),
        ({}, ((6, "other"),), True),
        ({"disabled": True}, ((4, "mine"),), False),
    ],
)
def test_pools_that_a_pod_names_are_the_only_ones_an_address_is_given_back_of(
    spec: dict[str, Any], named: tuple[tuple[int, str], ...], given: bool
) -> None:
    six = {"metadata": {"name": "six"}, "spec": {"cidr": "fd00::/64"}}
    four = {"metadata": {"name": "mine"}, "spec": {"cidr": "10.0.0.0/24", **spec}}
    assert serving.is_given(A, sweeper.ranges([six, four]), named) is given


# --- what is believed -----------------------------------------------------------------------------------------------


def kept_of(one: Webhook) -> dict[Address, Record]:
    return {a: record for shard in one.store.all_kept().values() for a, record in shard.ledger.records.items()}


@pytest.mark.parametrize(
    ("pod", "says"),
    [
        (pod_of(A, uid="nobody"), "not_there"),
        (pod_of(B, uid="real"), "not_there"),
        ({**pod_of(A), "metadata": {**pod_of(A)["metadata"], "name": "cache-1"}}, "gone"),
        ({**pod_of(A), "metadata": {**pod_of(A)["metadata"], "name": "../../x"}}, "not_there"),
    ],
    ids=["uid", "address", "name", "path"],
)
def test_claim_of_what_no_pod_has_is_allowed_and_written_nowhere(
    paper: Paper, monkeypatch: pytest.MonkeyPatch, pod: JsonObject, says: str
) -> None:
    one = webhook(paper, monkeypatch)
    there(paper, pod_of(A, uid="real"))
    assert answered(one, deletion_of(pod)) == says
    assert not [path for path in paper.objects if "ipreserv" in path or "configmaps" in path]


def test_claim_of_a_pod_in_a_namespace_that_is_not_protected_is_written_nowhere(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = webhook(paper, monkeypatch)
    there(paper, pod_of(A), team="blue")
    for body in (deletion(A), eviction()):
        assert answered(one, body) == "not_protected"
    # And counts from when it is: nobody remembers a no.
    there(paper, pod_of(A))
    assert answered(one, deletion(A)) == "reserved"


def test_owner_node_and_policies_of_a_claim_are_those_of_the_pod_and_not_of_the_request(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = webhook(paper, monkeypatch)
    there(paper, pod_of(A, hold="2h"))
    forged = pod_of(A, B, hold="skip", on_scale_down="skip")
    forged["spec"]["nodeName"] = "elsewhere"
    forged["metadata"]["ownerReferences"] = [{"kind": "StatefulSet", "name": "other", "controller": True}]
    assert answered(one, deletion_of(forged)) == "reserved"
    ((address, record),) = kept_of(one).items()
    assert (address, record.policy, record.node, record.owner) == (A, {"hold": "2h"}, "n1", "")


def test_pod_that_was_seen_as_the_request_says_is_not_read_again_and_one_that_has_changed_is(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = webhook(paper, monkeypatch)
    there(paper, pod_of(A, hold="2h"))
    paper.objects["/api/v1/pods"] = {"metadata": {}, "items": [pod_of(A, hold="2h"), pod_of(B)]}
    one._pods.relist()
    reads: list[str] = []

    def before(method: str, path: str) -> None:
        reads.extend([path] if path == POD else [])

    paper.before = before
    assert answered(one, deletion_of(pod_of(A, hold="2h"))) == "reserved"
    assert reads == []
    # The watch is behind: the owner has changed the policy of this one since.
    there(paper, pod_of(B, hold="3h"))
    assert answered(one, deletion_of(pod_of(B, hold="3h"))) == "reserved"
    assert reads == [POD]
    assert {address: record.policy for address, record in kept_of(one).items()} == {
        A: {"hold": "2h"},
        B: {"hold": "3h"},
    }


@pytest.mark.parametrize(
    ("policies", "kept", "says"),
    [
        ({"hold": "9" * 250_000}, {}, ["ipreserve.berth.io/hold: longer than 64 characters, so it does not count"]),
        ({"hold": "31d"}, {}, ["hold: '31d' is longer than 30 days. Set 30d or less. It does not count"]),
        ({"hold": "soon"}, {}, ["hold: 'soon' is not a duration such as 90s, 30m or 2h. It does not count"]),
        (
            {"on_scale_down": "keep", "on_owner_delete": "short"},
            {"on-owner-delete": "short"},
            ["on-scale-down: 'keep' is none of reserve, short, skip, so it does not count"],
        ),
        ({"hold": "skip"}, {"hold": "skip"}, []),
    ],
)
def test_policy_that_makes_no_sense_is_named_in_a_warning_and_does_not_reach_the_ledger(
    paper: Paper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, policies: dict[str, str],
    kept: dict[str, str], says: list[str],
) -> None:  # fmt: skip
    one = webhook(paper, monkeypatch)
    for number, body in enumerate([deletion_of(pod_of(A, **policies)), eviction()]):
        there(paper, pod_of((A, B)[number], **policies))
        answer = asyncio.run(one._answer(review.parse(body)))[0]
        warned = answer["response"].get("warnings", [])  # type: ignore[attr-defined]
        assert len(warned) == len(says)
        assert all(a.endswith(b) and len(a) < 200 for a, b in zip(warned, says, strict=True))
        assert all(text in caplog.text for text in says)
    assert [record.policy for record in kept_of(one).values()] == [kept, kept]


def test_words_that_a_caller_chooses_make_no_metric_of_their_own(paper: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    one = webhook(paper, monkeypatch)
    for number in range(5):
        body = asked(operation=f"O{number}", resource={"resource": f"r{number}"}, subResource=f"s{number}")
        assert asyncio.run(one.on_review(Posted(body))).status == 200
    paths = {
        sample.labels["path"]
        for metric in one.metrics.registry.collect()
        for sample in metric.samples
        if "path" in sample.labels
    }
    assert paths == {"other"}


# --- what is kept up ------------------------------------------------------------------------------------------------


def test_defect_in_one_part_of_what_is_kept_up_does_not_end_the_others(
    paper: Paper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = webhook(paper, monkeypatch)
    done: list[str] = []

    def defective() -> None:
        raise KeyError("x")

    monkeypatch.setattr(one, "_reload", defective)
    monkeypatch.setattr(one, "_certificates", defective)
    monkeypatch.setattr(one, "_arm", lambda: done.append("armed"))
    one.keep()
    assert (one.readiness(), done) == ((True, ""), ["armed"])
    assert caplog.text.count("KeyError: 'x'") == 2


def test_webhook_that_cannot_write_is_still_believed_and_changes_nothing_else_of_the_configuration(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = webhook(paper, monkeypatch)
    path = f"{install.VALIDATING}/{install.CONFIGURATION}"

    def put(*, bundle: bytes, armed: bool) -> None:
        found = install.validating(namespace="ip-reserve", live=Live(), bundle=bundle, armed=armed)
        paper.objects[path] = {**found, "metadata": {**found["metadata"], "resourceVersion": "0"}}

    def says() -> tuple[set[str], set[str | None]]:
        entries = paper.objects[path]["webhooks"]
        return {e["failurePolicy"] for e in entries}, {e["clientConfig"].get("caBundle") for e in entries}

    pair = certs.Pair(b"certificate", b"key")
    one._served = certs.Served(pair=pair, bundle=b"new", words=("word",), expires=datetime(2027, 1, 1, tzinfo=UTC))
    one._problem = "the database is full"
    # Armed by an authority that is gone, since somebody deleted the Secret.
    put(bundle=b"old", armed=True)
    one._arm()
    assert says() == ({"Fail", "Ignore"}, {base64.b64encode(b"new").decode()})
    # Nobody is asked before something can be written.
    put(bundle=b"", armed=False)
    one._arm()
    assert says() == ({"Ignore"}, {None})
    one._problem = ""
    one._arm()
    assert says() == ({"Fail", "Ignore"}, {base64.b64encode(b"new").decode()})


class Listed(kube.Kube):
    """Lists three pages of objects, and shows one change. `breaks` are raised by the watches, one after the other."""

    def __init__(self, breaks: list[Exception]) -> None:
        super().__init__("https://127.0.0.1:1", context=ssl.create_default_context())
        self.breaks, self.lists, self.pages_left = breaks, 0, list[weakref.ref[Page]]()

    def pages(self, path: str, **more: str) -> Iterator[tuple[Page, str]]:
        self.lists += 1
        for number in range(3):
            # What the reader has in its hands is the page before.
            assert [one() for one in self.pages_left[:-1] if one() is not None] == []
            if number == 1 and self.lists == 1:
                raise errors.Expired("too old", 410)
            page = Page([{"metadata": {"name": f"pod-{number}", "resourceVersion": "1"}}])
            self.pages_left.append(weakref.ref(page))
            yield page, str(self.lists)
            del page

    def watch(self, path: str, version: str, **more: Any) -> Iterator[kube.JsonObject]:
        if self.breaks:
            raise self.breaks.pop()
        yield {"type": "ADDED", "object": {"metadata": {"name": "pod-9", "resourceVersion": "9"}}}
        raise errors.Expired("the end", 410)


class Page(list[kube.JsonObject]):
    """A page of which one can tell whether anybody has it."""


def test_mirror_outlives_whatever_its_watch_or_an_object_raises_and_keeps_one_page_in_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    door = Listed([ZeroDivisionError("odd"), RecursionError("deep")])

    def project(one: kube.JsonObject) -> str | None:
        name = str(one["metadata"]["name"])
        if name == "pod-1":
            raise RecursionError("deep")
        return name

    mirror = kube.Mirror(door, "/api/v1/pods", project)
    mirror.start()
    try:
        eventually(lambda: "pod-9" in mirror.rows(), "the watch goes on after both")
    finally:
        mirror.stop()
    assert set(mirror.rows()) <= {"pod-0", "pod-2", "pod-9"}
    # The first was begun anew in the middle.
    assert door.lists >= 4
    assert caplog.text.count("/api/v1/pods /pod-1 is left out: RecursionError('deep')") == 1
    assert caplog.text.count("watch of /api/v1/pods broke") == 2


def test_webhook_that_runs_on_beside_a_purge_makes_nothing_again_until_a_pod_is_claimed(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = webhook(paper, monkeypatch)
    only_writing(one, monkeypatch)
    for _ in range(3):
        one.keep()
        assert (one.readiness(), paper.objects) == ((True, ""), {})
    assert outcome(one, deletion(A)) == "reserved"
    assert one.store.read_barred(0).addresses == set(kept_of(one)) == {A}


def test_webhook_that_can_no_longer_write_says_so_and_looks_for_calicos_api_at_once(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    found = webhook(paper, monkeypatch)

    def detect(door: kube.Kube, wanted: str = "auto") -> kube.CalicoApi:
        looked.append("once")
        return CALICO

    monkeypatch.setattr(kube, "detect", detect)
    only_writing(found, monkeypatch)
    found.keep()
    assert (found.readiness(), looked) == ((True, ""), ["once"])
    found.keep()
    assert looked == ["once"], "twice a minute is enough while all is well"

    def gone(method: str, path: str) -> None:
        if method != "GET" and "ipreservations" in path:
            raise errors.ApiError("the group is gone", 500)

    paper.before = gone
    found.keep()
    assert "the group is gone" in found.readiness()[1]
    found.keep()
    assert looked == ["once", "once"]
    paper.before = lambda method, path: None
    found.keep()
    assert found.readiness() == (True, "")


def only_writing(found: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of what is kept up is not about writing addresses, and wants a real API server."""
    for other in ("_reload", "_certificates", "_arm"):
        monkeypatch.setattr(found, other, lambda: None)


def kept_up(one: Webhook) -> str:
    """What cannot be written after one more round."""
    one.keep()
    return one.readiness()[1]


@pytest.mark.parametrize("name", [store.NAME, store.shard_name(3)])
@pytest.mark.parametrize("kind", ["configmaps", "ipreservations"])
def test_each_object_that_may_have_to_be_written_is_tried_in_turn(
    paper: Paper, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    one = webhook(paper, monkeypatch)
    only_writing(one, monkeypatch)
    monkeypatch.setattr(serving, "PROBE_SECONDS", 0.0)
    one.keep()
    ledger = one.store.read_kept(0)
    one.store.write_kept(ledger, ledger.ledger, shards=SHARDS)
    one.keep()
    make(one, 0, 3)

    def before(method: str, path: str) -> None:
        if method != "GET" and path.endswith(f"/{kind}/{name}"):
            raise errors.ApiError(f"{kind} {name} no", 403)

    paper.before = before
    said = [kept_up(one) for _ in range(2 * SHARDS)]
    assert f"{kind} {name} no" in said
    # It stays with what failed.
    assert said[-1] == f"{kind} {name} no"
    paper.before = lambda method, path: None
    one.keep()
    assert one.readiness() == (True, "")
    assert one.store.read_barred(0).addresses == {of_shard(0, 8)}


def test_shard_that_could_not_be_written_when_it_was_needed_is_tried_at_once(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = webhook(paper, monkeypatch)
    only_writing(one, monkeypatch)
    one.keep()
    ledger = one.store.read_kept(0)
    one.store.write_kept(ledger, ledger.ledger, shards=SHARDS)
    one.keep()
    make(one, 3)
    assert one.readiness() == (True, "")
    refuse(paper, 3)
    assert outcome(one, deletion(of_shard(3))) == "refused"
    one.keep()
    assert one.readiness() == (True, "no")


def test_replica_leaves_the_answers_to_others_only_for_reasons_of_its_own_and_not_for_ever(
    paper: Paper, moved: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = webhook(paper, monkeypatch)
    only_writing(one, monkeypatch)
    assert one.readiness() == (False, "not looked yet")

    def failing(error: errors.IpreserveError) -> tuple[bool, str]:
        def before(method: str, path: str) -> None:
            raise error

        paper.before = before
        one.keep()
        return one.readiness()

    no, lost = errors.ApiError("no", 403), errors.Unreachable("lost")
    # Never could: another may. But should that be true of all, the stated time ends it.
    assert failing(no) == (False, "no")
    moved.at += DENY
    assert failing(no) == (True, "no")
    paper.before = lambda method, path: None
    one.keep()
    assert one.readiness() == (True, "")
    # The API server refuses it to everybody, so somebody has to answer.
    assert failing(no) == (True, "no")
    paper.before = lambda method, path: None
    one.keep()
    assert failing(lost) == (False, "lost")
    moved.at += DENY
    assert failing(lost) == (True, "lost")
