"""The policy for what cannot be recorded: refused for the stated time, then let go; told for each shard by itself."""

from __future__ import annotations

import asyncio
import json
import threading
from itertools import islice
from typing import Any

import pytest

from ipreserve import errors, kube, layout, review, settings, store
from ipreserve import webhook as serving
from ipreserve.records import Address, Claim
from ipreserve.tests.paper import CALICO, Paper
from ipreserve.webhook import Webhook

DENY = 60.0
SHARDS = 16


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


def deletion(one: Address, *, uid: str = "") -> bytes:
    pod = {
        "metadata": {
            "name": "cache-0", "namespace": "team", "uid": uid or f"uid-{one}",
            "labels": {"statefulset.kubernetes.io/pod-name": "cache-0"},
        },
        "spec": {"nodeName": "n1"}, "status": {"podIPs": [{"ip": one}]},
    }  # fmt: skip
    return asked(operation="DELETE", resource={"resource": "pods"}, oldObject=pod)


def eviction() -> bytes:
    return asked(
        operation="CREATE", resource={"resource": "pods"}, subResource="eviction", namespace="team", name="cache-0"
    )


def asked(**request: Any) -> bytes:
    body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u", **request}}
    return json.dumps(body).encode()


def outcome(of: Webhook, body: bytes) -> str:
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
    paper.before = lambda method, path: none_of(go.wait(10))
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
