"""What a writer does when something happens between two of its requests."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import Any

import pytest

from ipreserve import errors, layout, records, store
from ipreserve.kube import CalicoApi
from ipreserve.metrics import WebhookMetrics
from ipreserve.records import Address, Claim, Ledger, State
from ipreserve.tests.paper import CALICO, Paper

A, B = Address("10.0.0.1"), Address("10.0.0.2")
OLD = replace(CALICO, group="crd.projectcalico.org", version="v1")
BARRED, LEDGER = f"ipreservations/{store.NAME}", f"configmaps/{store.NAME}"


def claim(one: Address) -> Claim:
    return Claim(
        address=one, namespace="team", pod="cache-0", node="n1", uid=f"uid-{one}", owner="", via="delete", at=1.0
    )


def test_claim_of_a_pod_that_has_ended_does_not_replace_that_of_the_pod_that_has_its_address_now() -> None:
    now_its, stale = claim(A), replace(claim(A), uid="stale", pod="old-0", policy={"hold": "skip"}, ended=True, at=2.0)
    first = store.with_claims(Ledger(), [now_its])
    assert first is not None
    assert store.with_claims(first, [stale]) is None
    # It counts where nobody else was claimed, and where nobody knows who it was.
    alone = store.with_claims(Ledger(), [stale])
    unknown = store.with_claims(Ledger(records={A: records.unknown(at=1.0)}), [stale])
    assert alone is not None
    assert unknown is not None
    assert alone.records[A].uid == unknown.records[A].uid == "stale"
    again = store.with_claims(alone, [replace(now_its, at=3.0)])
    assert again is not None
    assert again.records[A].uid == now_its.uid


def test_pod_that_ended_long_ago_and_is_cleared_away_changes_nothing_of_an_address_that_rests() -> None:
    rests = replace(records.claimed(claim(A), before=None, seq=1), state=State.FREED, freed=5.0, hold=7200.0)
    late = replace(claim(A), uid="stale", pod="old-0", policy={"hold": "skip"}, ended=True, at=9.0)
    assert store.with_claims(Ledger(records={A: rests}), [late]) is None
    # Nor does the pod that it rests for, whose hold runs since it was freed.
    assert store.with_claims(Ledger(records={A: rests}), [replace(claim(A), ended=True, at=9.0)]) is None
    # Who runs has got the address, and is claimed.
    anew = store.with_claims(Ledger(records={A: rests}), [replace(late, ended=False)])
    assert anew is not None
    assert anew.records[A].state is State.CLAIMED


def test_owner_that_another_tool_wrote_without_a_uid_stays_in_the_history() -> None:
    old = records.from_legacy("team_cache-0_n1_2022-12-24-10:00:00")
    # The same pod's claim is the one that tool wrote down, with more in it.
    for by, kept in ((claim(A), set[Address]()), (replace(claim(A), pod="web-0"), {A})):
        after = store.with_claims(Ledger(records={A: old}), [by])
        assert after is not None
        assert set(store.replaced(Ledger(records={A: old}), after)) == kept


def test_history_that_came_back_without_what_was_sent_is_not_believed() -> None:
    case = Case()
    answer = case.paper.request

    def forgetful(method: str, path: str, *arguments: Any, **more: Any) -> Any:
        found = answer(method, path, *arguments, **more)
        return {**found, "data": {}} if method == "POST" else found

    with pytest.MonkeyPatch.context() as meanwhile:
        meanwhile.setattr(case.paper, "request", forgetful)
        with pytest.raises(errors.NotStored, match=f"ConfigMap {store.HISTORY}: the API server stored something else"):
            case.store.add_history(0, {A: records.unknown(at=1.0)}, at=2.0)


def test_what_others_keep_in_a_ledger_or_its_history_stays_there_through_every_write() -> None:
    case = Case()
    case.reserve(A)
    path = f"/api/v1/namespaces/ip-reserve/{LEDGER}"
    # Under a key of their own, and under one that this service is about to need.
    mine = {"note": "bm90ZQ==", B: "aGFsZg=="}
    case.paper.objects[path]["binaryData"] = mine
    case.reserver.forget()
    case.reserve(B)
    case.reserve(Address("10.0.0.3"))
    written = case.paper.objects[path]
    assert written["binaryData"] == {"note": "bm90ZQ==", f"{B}.bad": "aGFsZg=="}
    assert {A, B, f"{B}.json"} <= set(written["data"])
    ended = {A: records.unknown(at=1.0)}
    case.store.add_history(0, ended, at=2.0)
    history = f"/api/v1/namespaces/ip-reserve/configmaps/{store.HISTORY}"
    case.paper.objects[history]["binaryData"] = mine
    case.store.add_history(0, ended, at=3.0)
    assert case.paper.objects[history]["binaryData"] == mine


def test_owner_whose_record_another_pod_s_claim_takes_the_place_of_stays_in_the_history() -> None:
    case = Case()
    case.reserve(A)
    path = f"/api/v1/namespaces/ip-reserve/configmaps/{store.HISTORY}"

    def freed() -> None:
        kept = case.store.read_kept(0)
        rests = {one: replace(record, state=State.FREED, freed=2.0) for one, record in kept.ledger.records.items()}
        case.store.write_kept(kept, replace(kept.ledger, records=rests))
        case.reserver.forget()

    freed()
    case.claim(replace(claim(A), uid="next", at=3.0))
    freed()
    case.claim(replace(claim(A), uid="other", pod="web-0", at=4.0))
    entries = json.loads(case.paper.objects[path]["data"][A])
    assert [(one["uid"], one["pod"], one.get("end")) for one in entries] == [
        (f"uid-{A}", "cache-0", "returned"), ("next", "cache-0", None)
    ]  # fmt: skip
    # Who is claimed again is not replaced.
    case.claim(replace(claim(A), uid="other", pod="web-0", at=60.0))
    assert json.loads(case.paper.objects[path]["data"][A]) == entries


def test_claim_is_written_though_the_history_of_who_was_there_before_cannot_be(
    caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    case = Case()
    case.reserve(A)

    def full(method: str, path: str) -> None:
        if store.HISTORY in path:
            raise errors.ApiError("full", 422)

    case.paper.before = full
    case.claim(replace(claim(A), uid="next", at=3.0))
    assert case.store.read_kept(0).ledger.records[A].uid == "next"
    assert f"history of ['{A}'] is lost: full" in caplog.text


def test_claim_that_the_api_server_refuses_does_not_take_the_others_of_its_commit_along() -> None:
    case = Case()
    case.reserve(A)
    claims = [claim(Address(f"10.0.1.{number}")) for number in range(20)]
    bad = {claims[3].address, claims[17].address}

    def refuse(method: str, path: str, body: Any) -> None:
        if method in ("PUT", "POST") and path.endswith(LEDGER) and bad & set(body["data"]):
            raise errors.ApiError("data: Too long", 422)

    case.paper.written = refuse
    answers = case.together(claims)
    failed = {one.address for one, error in zip(claims, answers, strict=True) if error is not None}
    assert failed == bad
    assert set(case.store.read_kept(0).ledger.records) == {A, B, *(one.address for one in claims)} - bad


def test_claims_that_come_while_one_is_written_are_written_by_one_commit_together() -> None:
    case = Case()
    claims = [claim(Address(f"10.0.1.{number}")) for number in range(60)]
    assert case.together(claims) == [None] * 60
    # The one that they waited for, and theirs.
    assert case.metrics.registry.get_sample_value("ipreserve_commits_total", {"outcome": "written"}) == 2
    assert case.barred(CALICO) >= {one.address for one in claims}


def limit(case: Case, most: int) -> None:
    """Refuse ConfigMaps of more than so many bytes, as the API server does at 1 MiB."""

    def refuse(method: str, path: str, body: Any) -> None:
        if "/configmaps/" in path and sum(map(len, (body.get("data") or {}).values())) > most:
            raise errors.ApiError("data: Too long", 422)

    case.paper.written = refuse


def ledgers(case: Case) -> dict[int, set[Address]]:
    return {index: set(kept.ledger.records) for index, kept in case.store.all_kept().items()}


def test_ledger_that_fills_up_while_nobody_sweeps_says_that_there_are_sixteen_and_no_claim_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = Case()
    case.reserve(A)
    each = case.store.read_kept(0).size
    monkeypatch.setattr(layout, "SHARD_BYTES", 20 * each)
    limit(case, 40 * each)
    addresses = [Address(f"10.1.{number}.1") for number in range(200)]
    for one in addresses:
        case.reserve(one)
    assert case.store.read_kept(0).shards == layout.FIRST_SPLIT
    found = ledgers(case)
    assert set().union(*found.values()) == {A, *addresses}
    barred = set().union(*(one.addresses for one in case.store.all_barred().values()))
    assert barred == {A, *addresses}
    # What was there before is moved by a sweep; all that came later is where it belongs.
    old = found[0] - {one for one in addresses if layout.shard_of(one, layout.FIRST_SPLIT) == 0}
    assert {A} < old <= {A, *addresses[:22]}
    for index, there in found.items():
        if index:
            assert {layout.shard_of(one, layout.FIRST_SPLIT) for one in there} == {index}


def test_claims_that_wait_for_a_ledger_that_has_become_full_go_on_to_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case()
    case.reserve(A)
    each = case.store.read_kept(0).size
    monkeypatch.setattr(layout, "SHARD_BYTES", 20 * each)
    limit(case, 40 * each)
    claims = [claim(Address(f"10.1.{number}.1")) for number in range(100)]
    answers = case.together(claims)
    # One commit of a hundred does not fit, whoever looks; its halves do until the ledger says that there are others.
    refused = {one.address for one, error in zip(claims, answers, strict=True) if error is not None}
    assert {layout.shard_of(one, layout.FIRST_SPLIT) for one in refused} <= {0}
    assert len(refused) < 10
    found = ledgers(case)
    assert set().union(*found.values()) == {A, B, *(one.address for one in claims)} - refused


class Hurried:
    """A clock by which each pause takes longer than anybody waits."""

    at = 1000.0

    def monotonic(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += 100.0


def test_claim_that_ran_out_of_time_is_told_why_and_not_only_that_it_did(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    case = Case()
    monkeypatch.setattr(store, "time", Hurried())

    def full(method: str, path: str) -> None:
        raise errors.ApiError("the database is full", 500)

    case.paper.before = full
    (future,) = case.reserver.reserve([claim(A)], seconds=5.0)
    with pytest.raises(errors.CannotRecord, match="the database is full"):
        future.result(10)
    assert "shard 0: 1 addresses could not be recorded: the database is full" in caplog.text


def test_history_that_nobody_can_read_is_kept_for_people_and_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case()
    ended = {A: records.unknown(at=1.0)}
    case.store.add_history(0, ended, at=2.0)
    path = f"/api/v1/namespaces/ip-reserve/configmaps/{store.HISTORY}"
    case.paper.objects[path]["data"][A] = "[half"
    # Full: the oldest go, and never what waits for a person.
    monkeypatch.setattr(store, "HISTORY_BYTES", 1)
    assert case.store.add_history(0, ended, at=3.0) == 1
    assert case.paper.objects[path]["data"] == {f"{A}.bad": "[half"}
    assert f"history {store.HISTORY}: what stood for {A} is unreadable, kept as {A}.bad" in caplog.text


class Case:
    """A reserver on paper, whose Calico may be another one at any moment."""

    def __init__(self) -> None:
        self.paper, self.calico, self.metrics = Paper(), CALICO, WebhookMetrics()
        self.store = store.Store(self.paper, "ip-reserve", lambda: self.calico)
        self.reserver = store.Reserver(self.store, gather=0.0, metrics=self.metrics)

    def reserve(self, one: Address) -> None:
        self.claim(claim(one))

    def claim(self, one: Claim) -> None:
        for future in self.reserver.reserve([one], seconds=5.0):
            future.result(10)

    def together(self, claims: list[Claim]) -> list[BaseException | None]:
        """Why each of these failed, which all wait while the write of another one is under way."""
        begun, go = threading.Event(), threading.Event()

        def before(method: str, path: str) -> None:
            begun.set()
            go.wait(10)

        self.paper.before = before
        first = self.reserver.reserve([claim(B)], seconds=20.0)
        assert begun.wait(10)
        futures = self.reserver.reserve(claims, seconds=20.0)
        self.paper.before = lambda method, path: None
        go.set()
        for future in first:
            future.result(10)
        return [future.exception(20) for future in futures]

    def switch(self, to: CalicoApi, *, at: tuple[str, str]) -> None:
        """Calico's API changes while the next such request is under way."""

        def before(method: str, path: str) -> None:
            if method == at[0] and path.endswith(at[1]):
                self.paper.before = lambda method, path: None
                self.calico = to
                self.reserver.forget()

        self.paper.before = before

    def barred(self, calico: CalicoApi) -> frozenset[Address]:
        self.calico = calico
        return self.store.read_barred(0).addresses


@pytest.mark.parametrize("at", [("GET", BARRED), ("GET", LEDGER), ("PUT", BARRED), ("PUT", LEDGER)])
def test_change_of_calico_s_api_in_the_middle_of_a_commit_loses_no_claim(at: tuple[str, str]) -> None:
    case = Case()
    case.calico = OLD
    case.reserve(A)
    case.reserver.forget()
    case.switch(CALICO, at=at)
    case.reserve(B)
    assert B in case.barred(CALICO)
    assert set(case.store.read_kept(0).ledger.records) == {A, B}


def test_what_was_known_of_the_old_api_is_not_known_again_after_it_was_forgotten() -> None:
    case = Case()
    case.calico = OLD
    case.reserve(A)
    case.switch(CALICO, at=("PUT", LEDGER))
    case.reserve(B)
    # The pod asks again: nothing says that the address stands where it has to.
    case.reserve(B)
    assert case.barred(CALICO) == {B}


def test_record_that_a_commit_finds_unreadable_is_told_counted_and_kept(caplog: pytest.LogCaptureFixture) -> None:
    case = Case()
    case.reserve(A)
    ledger = case.paper.objects[f"/api/v1/namespaces/ip-reserve/{LEDGER}"]
    ledger["data"] |= {A: "half", f"{A}.json": "{half"}
    case.reserver.forget()
    case.reserve(B)
    kept = case.store.read_kept(0).ledger
    assert dict(kept.bad) == {f"{A}.bad": "{half", f"{A}.2.bad": "half"}
    assert set(kept.records) == {B}
    assert A in case.barred(CALICO)
    assert f"unreadable records of ['{A}'], kept as .bad" in caplog.text
    assert case.metrics.registry.get_sample_value("ipreserve_quarantined_total") == 1
    case.reserve(Address("10.0.0.3"))
    assert case.metrics.registry.get_sample_value("ipreserve_quarantined_total") == 1
