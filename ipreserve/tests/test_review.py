"""Selectors, records, settings and certificates: the parts without any cluster."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ipreserve import certs, errors, install, kube, layout, pool, records, review, settings, store, sweeper
from ipreserve.book import Book
from ipreserve.records import Address, End, Ledger, Record, State
from ipreserve.settings import Live
from ipreserve.tests import wire
from ipreserve.tests.world import ROOT

# --- selectors ------------------------------------------------------------------------------------------------------


def test_all_terms_of_a_selector_must_match_as_everywhere_in_kubernetes() -> None:
    found = review.selector(
        {
            "matchLabels": {"app": "redis"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]},
                {"key": "legacy", "operator": "DoesNotExist"},
            ],
        }
    )
    assert found.matches({"app": "redis", "tier": "a"})
    assert not found.matches({"app": "redis"})
    assert not found.matches({"tier": "a"})
    assert not found.matches({"app": "redis", "tier": "a", "legacy": "1"})
    assert review.selector({"matchExpressions": [{"key": "x", "operator": "NotIn", "values": ["1"]}]}).matches({})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"labels": {}}, "a label selector is an object with matchLabels and matchExpressions"),
        ({"matchExpressions": [{"key": "a", "operator": "Is"}]}, "matchExpressions[0].operator: 'Is' is none of"),
        ({"matchExpressions": [{"key": "a", "operator": "In"}]}, "matchExpressions[0].values: needed with In"),
        ({"matchExpressions": [{"operator": "Exists"}]}, "matchExpressions[0].key"),
        ({"matchLabels": {"a b!": "x"}}, "matchLabels: 'a b!' is no name of a label"),
        ({"matchLabels": {"a": "x y"}}, "matchLabels['a']: 'x y' is no value of a label"),
        ({"matchLabels": {"a": 1}}, "matchLabels['a']: '1' is no value of a label"),
        ({"matchLabels": {"A.b/a": "x"}}, "matchLabels: 'A.b/a' is no name of a label"),
        ({"matchLabels": {"/a": "x"}}, "matchLabels: '/a' is no name of a label"),
        ({"matchLabels": {"a" * 64: "x"}}, "is no name of a label"),
        ({"matchLabels": {"a": "x" * 64}}, "is no value of a label"),
        ({"matchExpressions": [{"key": "-a", "operator": "Exists"}]}, "matchExpressions[0].key: '-a' is no name"),
        (
            {"matchExpressions": [{"key": "a", "operator": "In", "values": [1]}]},
            "matchExpressions[0].values: '1' is no",
        ),
    ],
)
def test_wrong_selector_is_refused_with_its_field(content: object, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        review.selector(content)


@pytest.mark.parametrize("said", ["[" * 5000, '{"a":' * 5000, "7", "nonsense", '["no address"]', "null"])
def test_annotation_that_nobody_can_read_costs_the_pod_its_wish_and_nothing_else(said: str) -> None:
    annotations = {review.IP_ADDRS: said, review.POOLS.format(4): said}
    row = sweeper.pod_row(
        {
            "metadata": {
                "uid": "u", "namespace": "team", "name": "cache-0", "creationTimestamp": "2026-11-25T00:00:00Z",
                "annotations": annotations,
            },
            "spec": {"nodeName": "n1"}, "status": {"podIPs": [{"ip": "10.0.0.1"}]},
        }
    )  # fmt: skip
    assert row is not None
    assert (row.addresses, row.asks) == (("10.0.0.1",), ())


def test_pool_with_a_selector_that_nobody_can_read_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    fine = {"metadata": {"name": "fine"}, "spec": {"cidr": "10.0.0.0/16"}}
    deep = {"metadata": {"name": "deep"}, "spec": {"cidr": "10.1.0.0/16", "nodeSelector": "!" * 5000 + "all()"}}
    assert [one.name for one in sweeper.ranges([deep, fine])] == ["fine"]
    assert "IPPool deep is left out" in caplog.text


def test_block_whose_lists_a_hand_made_longer_than_itself_is_read_as_far_as_it_goes() -> None:
    spec = {
        "cidr": "10.0.0.0/30",
        "affinity": "host:n1",
        "allocations": [0, None, None, None, 0],
        "unallocated": [1, 7],
    }
    found = sweeper.block_row({"spec": spec})
    assert found is not None
    assert (found.allocated, found.queue) == ({Address("10.0.0.0")}, (Address("10.0.0.1"),))


def test_owner_of_another_group_that_is_called_statefulset_too_is_not_taken_for_one() -> None:
    def owner(version: str | None) -> str:
        reference = {"kind": "StatefulSet", "name": "cache", "controller": True}
        return review.owner(
            {"metadata": {"ownerReferences": [reference | ({"apiVersion": version} if version else {})]}}
        )

    assert owner("apps/v1") == owner(None) == "StatefulSet/cache"
    assert owner("apps.kruise.io/v1beta1") == "StatefulSet.apps.kruise.io/cache"


# --- records --------------------------------------------------------------------------------------------------------

names = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)
times = st.integers(0, 4_000_000_000_000).map(lambda ms: ms / 1000)
written = st.builds(
    Record, namespace=names, pod=names, node=names, uid=names, owner=names, via=names, state=st.sampled_from(State),
    first=times, last=times, seq=st.integers(0, 10**9), terminating=st.none() | times, freed=times,
    hold=st.none() | times, end=st.none() | st.sampled_from(End), swapped=st.booleans(), spared=st.booleans(),
    dual=st.booleans(), policy=st.dictionaries(names, names, max_size=2),
    space=st.dictionaries(names, names, max_size=2),
)  # fmt: skip
addresses = st.ip_addresses().map(str).map(records.address)


@given(st.dictionaries(addresses, written, max_size=5))
@hypothesis_settings(deadline=None, max_examples=40)
def test_ledger_that_was_written_is_read_the_same(found: dict[Address, Record]) -> None:
    data = records.write(Ledger(records=found))
    assert records.read(data) == Ledger(records=found)
    # Older tools read four fields and nothing else.
    assert all(len(data[records.key(one)].split("_")) == 4 for one in found)


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=30), max_size=6))
def test_no_content_of_the_configmap_is_lost_or_fatal(data: dict[str, str]) -> None:
    ledger = records.read(data)
    kept = records.write(ledger)
    understood = {one for one in data if records.address_of_key(one.removesuffix(".json")) in ledger.records}
    assert {data[name] for name in set(data) - understood} <= set(kept.values())


@pytest.mark.parametrize("text", ["", "a_b_c", "a_b_c_d_e", "a_b_c_2022-12-24T10:00:00", "a_b_c_2022-13-45-10:00:00"])
def test_record_of_another_form_is_quarantined_and_not_skipped(text: str) -> None:
    ledger = records.read({"10.0.0.1": text, "fd00--1": "team_cache-0_n1_2022-12-24-10:00:00"})
    assert ledger.broken == {"10.0.0.1": (text,)}
    assert set(ledger.records) == {"fd00::1"}
    assert records.write(ledger)["10.0.0.1.bad"] == text


def test_every_text_of_an_address_that_broke_more_than_once_is_kept() -> None:
    data = {"10.0.0.1": "half", "10.0.0.1.json": "{half", "10.0.0.2.json": "{other"}
    for again in ("{again", "{half", "{more"):
        first = records.read(data)
        data = records.write(first)
        assert records.read(data) == records.written(first)
        data |= {"10.0.0.1.json": again}
    data = records.write(records.read(data))
    assert data == {
        "10.0.0.1.bad": "{half", "10.0.0.1.2.bad": "half", "10.0.0.1.3.bad": "{again", "10.0.0.1.4.bad": "{more",
        "10.0.0.2.bad": "{other",
    }  # fmt: skip
    two_ways = records.read({"fd00--1": "one", "fd00-0-0-0-0-0-0-1": "two"})
    assert set(records.write(two_ways).values()) == {"one", "two"}
    assert two_ways.strange == frozenset()


def test_records_are_written_as_the_example_that_their_readers_test_against() -> None:
    assert wire.content() == json.loads(wire.FILE.read_text())


def test_large_hand_written_range_is_left_as_it_is() -> None:
    found = records.expand(["10.0.0.0/8", "10.0.0.0/31", "oops", "fd00::1"])
    assert found == (frozenset({"10.0.0.0", "10.0.0.1", "fd00::1"}), ("10.0.0.0/8",), ("oops",))


@pytest.mark.parametrize("text", ["9" * 400, "31d", "2592001", "721h"])
def test_hold_of_more_than_thirty_days_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"is longer than 30 days. Set 30d or less") as caught:
        records.parse_duration(text)
    assert len(str(caught.value)) < 120
    kept = settings.reload({"hold": text}, Live(hold=60.0))
    assert (kept.live.hold, len(kept.problems)) == (60.0, 1)
    with pytest.raises(errors.Misconfigured, match=r"--short-hold: .* is longer than 30 days"):
        settings.from_arguments({"short_hold": text}, {})
    record = replace(records.unknown(at=0.0), policy={"hold": text})
    picture = pool.Picture(now=0.0, book=Book.of({}, ()), pods=(), ipam=None)
    assert pool.hold_for(record, picture, pool.Rules(hold=60.0)) == 60.0
    assert records.parse_duration("30d") == 30 * 86_400


@pytest.mark.parametrize("said", ["500000", "17", "2", "-1", "2048", "9" * 5000, "sixteen"])
def test_number_of_shards_that_this_service_never_chooses_is_not_believed(said: str) -> None:
    def shards(text: str) -> int:
        return store.Kept(0, raw={"metadata": {"annotations": {store.SHARDS: text}}}).shards

    assert shards(said) == 1
    grown = [1]
    while (more := layout.shards_for(10, grown[-1], largest=layout.SHARD_BYTES + 1)) != grown[-1]:
        grown.append(more)
    assert [shards(str(one)) for one in grown] == grown == [1, 16, 32, 64, 128, 256, 512, 1024]


# --- the clock ------------------------------------------------------------------------------------------------------


class Monotonic:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_jump_of_the_server_s_clock_is_believed_only_after_ten_minutes(caplog: pytest.LogCaptureFixture) -> None:
    local, jumps = Monotonic(), list[float]()
    clock = kube.Clock(monotonic=local, on_jump=jumps.append)
    clock.observe(1_000_000)
    local.now = 60
    clock.observe(1_000_060 + 86_400)
    assert clock.now() == 1_000_060
    local.now = 120
    clock.observe(1_000_120 + 86_400)
    assert (clock.now(), jumps) == (1_000_120, [86_400])
    assert caplog.text.count("the API server's clock jumped by 86400 s; holds go on by the time it had before") == 1
    local.now = 700
    clock.observe(1_000_700 + 86_400)
    assert clock.now() == 1_000_700 + 86_400
    assert caplog.text.count("the API server's clock has been 86400 s off for ten minutes: taken as right") == 1


def test_jump_that_goes_back_changes_nothing() -> None:
    local = Monotonic()
    clock = kube.Clock(monotonic=local)
    clock.observe(1_000_000)
    local.now = 10
    clock.observe(900_000)
    local.now = 1000
    clock.observe(1_001_000)
    assert clock.now() == 1_001_000


def test_clock_that_starts_after_a_jump_goes_by_that_of_a_process_that_saw_it() -> None:
    monotonic = Monotonic()
    jumps: list[float] = []
    clock = kube.Clock(monotonic=monotonic, on_jump=jumps.append)
    clock.follow(5.0)
    clock.observe(1_086_400)
    # What is not far off is none.
    clock.follow(1_086_390)
    assert clock.now() == 1_086_400
    clock.follow(1_000_000)
    assert clock.now() == 1_000_000
    # The server goes on saying otherwise, and is believed ten minutes later.
    clock.observe(1_086_400)
    assert (clock.now(), jumps) == (1_000_000, [86_400])
    monotonic.now = 600.0
    clock.observe(1_087_000)
    assert clock.now() == 1_087_000
    # By then it knows better than others.
    clock.follow(1_000_600)
    assert clock.now() == 1_087_000


def test_clock_that_starts_ahead_of_its_own_machine_s_goes_by_the_earlier_of_both_for_ten_minutes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    monotonic, jumps = Monotonic(), list[float]()
    clock = kube.Clock(monotonic=monotonic, on_jump=jumps.append)
    clock.local = lambda: 1_000_000 + monotonic.now
    clock.observe(1_086_400)
    assert (clock.now(), jumps, clock.doubts) == (1_000_000, [86_400], True)
    assert caplog.text.count("the API server's clock is 86400 s ahead of this machine's") == 1
    monotonic.now = 599.0
    clock.observe(1_086_999)
    assert clock.now() == 1_000_599
    # This machine was behind, and the server right.
    monotonic.now = 600.0
    clock.observe(1_087_000)
    assert (clock.now(), jumps, clock.doubts) == (1_087_000, [86_400], False)


def test_clock_that_starts_behind_its_own_machine_s_or_near_it_goes_by_the_server_s() -> None:
    for server in (900_000, 1_000_020):
        clock = kube.Clock(monotonic=Monotonic())
        clock.local = lambda: 1_000_000.0
        clock.observe(server)
        assert (clock.now(), clock.doubts) == (server, False)


def test_leader_s_time_ends_the_doubt_of_a_process_that_started_ahead_of_its_machine() -> None:
    monotonic = Monotonic()
    clock = kube.Clock(monotonic=monotonic)
    clock.local = lambda: 1_000_000.0
    clock.observe(1_086_400)
    # Who leads has gone by the server's time for longer, so it is this machine that is behind.
    clock.follow(1_086_400)
    clock.observe(1_086_400)
    assert (clock.now(), clock.doubts) == (1_086_400, False)
    # A later jump is one that this process saw itself.
    monotonic.now = 10.0
    clock.observe(1_172_810)
    clock.follow(1_172_810)
    assert (clock.now(), clock.doubts) == (1_086_410, True)


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("hold", "soon", "--hold: 'soon' is not a duration such as 90s, 30m or 2h"),
        ("listen", "9443", "'9443' is not HOST:PORT"),
        ("calico_api", "v2", "--calico-api: 'v2' is none of auto, v3, v1, aggregated"),
        ("url", "http://x", "--url: 'http://x' is not https://HOST:PORT"),
        ("max_count", "-1", "--max-count: '-1' is not a number from 0"),
        ("namespace", "No", "--namespace: 'No' is not a name of a namespace"),
        ("period", "0", "--period: 0 is below 0.1 seconds"),
        ("cancel_after", "49s", "--cancel-after: 49s is below 50 seconds, for which a webhook takes a claim"),
        ("cancel_after", "soon", "--cancel-after: 'soon' is not a duration such as 90s, 30m or 2h"),
    ],
)
def test_wrong_option_is_refused_with_its_name_and_what_would_be_right(flag: str, value: str, says: str) -> None:
    with pytest.raises(errors.Misconfigured) as caught:
        settings.from_arguments({flag: value}, {})
    assert says in str(caught.value)


def test_claims_are_never_dropped_while_webhooks_still_take_them_for_granted() -> None:
    good = settings.reload({"cancel-after": "50s"}, Live())
    assert (good.live.cancel_after, good.problems) == (50.0, ())
    assert settings.from_arguments({"cancel_after": "50"}, {}).cancel_after == 50.0
    kept = settings.reload({"cancel-after": "45s"}, good.live)
    assert kept.live.cancel_after == 50.0
    (problem,) = kept.problems
    assert problem.startswith("ip-reserve-config: cancel-after: 45s is below 50 seconds, ")
    assert problem.endswith("Set 50s or more; the last good value stays")
    # A record of another replica that is just young enough to be taken for granted, and is remembered from then on.
    assert max(2 * store.REMEMBERED_SECONDS, store.FRESH_SECONDS) < settings.LEAST_CANCEL_AFTER


def test_flag_wins_over_environment_and_both_over_the_default() -> None:
    found = settings.from_arguments({"hold": "10m"}, {"IPRESERVE_HOLD": "5m", "IPRESERVE_PERIOD": "2"})
    assert (found.hold, found.period, found.short_hold) == (600.0, 2.0, 120.0)


def test_own_deadlines_are_below_the_timeouts_of_all_entries() -> None:
    entries = install.validating(namespace="ip-reserve", live=Live(), armed=True)["webhooks"]
    must = [one for one in entries if one["failurePolicy"] == "Fail"]
    assert [one["name"].partition(".")[0] for one in must] == ["delete", "delete-opted-in", "evict"]
    assert all(settings.Settings().deadline < one["timeoutSeconds"] for one in must)
    rest = [one for one in entries if one not in must]
    rest += install.mutating(namespace="ip-reserve", live=Live())["webhooks"]
    assert [one["name"].partition(".")[0] for one in rest] == ["status", "status-opted-in", "give-back"]
    assert all(one["timeoutSeconds"] > settings.SHORT_DEADLINE for one in rest)
    for allowed in ("9.9", "0.1"):
        assert settings.from_arguments({"deadline": allowed}, {}).deadline < must[0]["timeoutSeconds"]
    for late in ("10", "1m"):
        with pytest.raises(errors.Misconfigured, match=f"--deadline: {late} is not below 10 seconds.* 9 or less"):
            settings.from_arguments({"deadline": late}, {})


def test_no_to_an_eviction_is_a_429_with_the_time_to_wait() -> None:
    status = review.try_later("1", "not yet", seconds=5)["response"]["status"]
    assert (status["code"], status["reason"], status["details"]) == (429, "TooManyRequests", {"retryAfterSeconds": 5})


# --- certificates ---------------------------------------------------------------------------------------------------

START = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ["ipreserve-webhook.ip-reserve.svc", "127.0.0.1"]


def trusts(bundle: bytes, served: bytes, at: datetime) -> None:
    """As the API server checks. Raises when it would not."""
    trusted = x509.verification.Store(x509.load_pem_x509_certificates(bundle))
    builder = x509.verification.PolicyBuilder().store(trusted).time(at)
    leaf = x509.load_pem_x509_certificate(served)
    builder.build_server_verifier(x509.DNSName(NAMES[0])).verify(leaf, [])


def test_certificates_are_renewed_for_years_and_every_step_is_trusted_by_what_was_announced() -> None:
    data = certs.advance({}, NAMES, START)
    assert data is not None
    now, steps = START, 0
    while now < START + timedelta(days=9000):
        announced = data[certs.CA]
        after = certs.advance(data, NAMES, now)
        # The new certificate must be trusted by the bundle that was patched a round before.
        trusts(announced if certs.NEXT not in data else data[certs.CA], (after or data)[certs.TLS], now)
        steps += after is not None
        data = after or data
        now += timedelta(minutes=6) if certs.NEXT in data else timedelta(days=20)
    assert steps > 100
    assert len(x509.load_pem_x509_certificates(data[certs.CA])) <= 3


def test_secret_that_cannot_be_read_is_made_anew_and_a_good_one_is_left_alone() -> None:
    data = certs.advance({certs.CA: b"nonsense"}, NAMES, START)
    assert data is not None
    assert certs.advance(data, NAMES, START + timedelta(days=1)) is None
    more = certs.advance(data, [*NAMES, "other.example"], START)
    assert more is not None
    assert more[certs.CA] == data[certs.CA]


def broken(data: dict[str, bytes], change: dict[str, bytes | None]) -> dict[str, bytes]:
    """With these entries written over, or gone."""
    return {name: value for name, value in {**data, **change}.items() if value is not None}


STRANGER = certs.make_authority(START)


@pytest.mark.parametrize(
    "change",
    [
        {certs.NEXT: STRANGER.certificate},
        {certs.NEXT_KEY: b"junk"},
        {certs.NEXT_KEY: STRANGER.key},
        {certs.NEXT_KEY: None},
        {certs.NEXT: None},
        {certs.NEXT_SINCE: None},
        {certs.NEXT_SINCE: b"2026-01-01T00:00:00"},
        {certs.NEXT_SINCE: b"\xff"},
        {certs.NEXT_SINCE: b"2999-01-01T00:00:00+00:00"},
    ],
)
def test_next_authority_that_cannot_be_read_is_dropped_and_announced_anew(change: dict[str, bytes | None]) -> None:
    first = certs.advance({}, NAMES, START)
    assert first is not None
    old = START + certs.AUTHORITY_LIFE * 0.7
    announced = certs.advance({**first, **_fresh(first, old)}, NAMES, old)
    assert announced is not None
    later = old + certs.ANNOUNCE * 2
    after = certs.advance(broken(announced, change), NAMES, later)
    assert after is not None
    # The authority in use stays, and so does what it signed; the next one is another.
    assert after[certs.CA].startswith(first[certs.CA])
    assert after[certs.TLS] == announced[certs.TLS]
    assert after[certs.NEXT] not in (announced[certs.NEXT], STRANGER.certificate)
    assert certs.advance(after, NAMES, later) is None
    signed = certs.advance(after, NAMES, later + certs.ANNOUNCE)
    assert signed is not None
    trusts(after[certs.CA], signed[certs.TLS], later + certs.ANNOUNCE)


def _fresh(data: dict[str, bytes], now: datetime) -> dict[str, bytes]:
    """A server's certificate that need not be renewed then."""
    pair = certs.issue(certs.Pair(data[certs.CA], data[certs.CA_KEY]), NAMES, now)
    return {certs.TLS: pair.certificate, certs.TLS_KEY: pair.key}


@pytest.mark.parametrize("change", [{certs.TLS_KEY: STRANGER.key}, {certs.CA_KEY: STRANGER.key}, {certs.CA_KEY: b"x"}])
def test_key_of_another_certificate_makes_all_anew(change: dict[str, bytes | None]) -> None:
    first = certs.advance({}, NAMES, START)
    assert first is not None
    after = certs.advance(broken(first, change), NAMES, START)
    assert after is not None
    assert after[certs.CA] != first[certs.CA]
    trusts(after[certs.CA], after[certs.TLS], START)
    assert certs.advance(after, NAMES, START) is None


# --- deployables ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("base", install.validating(namespace="ip-reserve", live=Live())),
        ("give-back", install.mutating(namespace="ip-reserve", live=Live())),
    ],
)
def test_shipped_configuration_is_what_install_writes_and_fail_open(path: str, wanted: dict[str, Any]) -> None:
    shipped = yaml.safe_load((ROOT / "deploy/ipreserve" / path / "webhook-configuration.yaml").read_text())
    assert shipped == wanted
    assert {one["failurePolicy"] for one in shipped["webhooks"]} == {"Ignore"}


def test_every_manifest_is_listed_and_every_alert_says_what_to_do() -> None:
    folder: Path = ROOT / "deploy/ipreserve/base"
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(one.name for one in folder.glob("*.yaml") if one.name != "kustomization.yaml")
    rules = yaml.safe_load((folder.parent / "monitoring/rules.yaml").read_text())["spec"]["groups"][0]["rules"]
    assert all({"summary", "do"} <= set(rule["annotations"]) for rule in rules)


def test_every_promise_in_the_documentation_names_a_test_that_is_there() -> None:
    text = (ROOT / "docs/ip-reservation.md").read_text()
    named = re.findall(r"`(test_\w+)`", text)
    there = {
        name
        for file in (ROOT / "ipreserve/tests").glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    assert len(named) > 50
    assert set(named) <= there


def test_give_back_patch_asks_for_the_address_and_leaves_other_annotations() -> None:
    answer = review.allowed("1", patch=review.patch_for([Address("10.0.0.1")]))
    (operation,) = json.loads(base64.b64decode(answer["response"]["patch"]))
    assert operation["path"] == "/metadata/annotations/cni.projectcalico.org~1ipAddrs"
    assert operation["value"] == '["10.0.0.1"]'
