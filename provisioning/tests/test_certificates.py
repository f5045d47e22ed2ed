"""Certificates over the years, by the calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from provisioning.credentials import certificates
from provisioning.credentials.certificates import BUNDLE, SERVER, Data, advance, read_bundle

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("orders.berth-acme.svc.cluster.local", "*.orders-nodes.berth-acme.svc.cluster.local", "localhost")
MEMBER = "orders-s0-0.orders-nodes.berth-acme.svc.cluster.local"


def step(state: tuple[Data, Data], days: float) -> tuple[Data, Data]:
    return advance(*state, NAMES, "orders", NOW + timedelta(days=days))


def verify(bundle: str, server: Data, days: float, name: str = MEMBER) -> None:
    """As a client does that knows these authorities. Raises VerificationError."""
    policy = PolicyBuilder().store(Store(read_bundle(bundle))).time(NOW + timedelta(days=days))
    verifier = policy.build_server_verifier(x509.DNSName(name))
    verifier.verify(x509.load_pem_x509_certificate(server[SERVER].encode()), [])


def test_a_first_certificate_is_good_for_the_service_every_member_and_nobody_else() -> None:
    _, server = step(({}, {}), 0)
    for name in (MEMBER, "orders.berth-acme.svc.cluster.local", "localhost"):
        verify(server[BUNDLE], server, 1, name)
    with pytest.raises(VerificationError):
        verify(server[BUNDLE], server, 1, "orders.berth-other.svc.cluster.local")
    _, other = step(({}, {}), 0)
    with pytest.raises(VerificationError):
        verify(other[BUNDLE], server, 1)


def test_nothing_changes_until_two_thirds_of_its_life_are_over() -> None:
    first = step(({}, {}), 0)
    assert step(first, 59.9) == first
    authority, server = step(first, 60.1)
    assert authority == first[0]
    assert server[SERVER] != first[1][SERVER]
    assert server[BUNDLE] == first[1][BUNDLE], "clients need nothing new"
    verify(first[1][BUNDLE], server, 61)


@pytest.mark.parametrize("key", ["ca.crt", "tls.crt", "tls.key"])
def test_a_server_secret_that_cannot_be_read_is_made_anew_by_the_same_authority(key: str) -> None:
    first = step(({}, {}), 0)
    authority, server = step((first[0], {**first[1], key: "no PEM"}), 1)
    assert authority == first[0]
    verify(first[1][BUNDLE], server, 1)
    verify(server[BUNDLE], server, 1)


def test_a_name_that_is_missing_is_added() -> None:
    first = step(({}, {}), 0)
    _, server = advance(*first, (*NAMES, "extra"), "orders", NOW)
    verify(server[BUNDLE], server, 1, "extra")


def test_a_new_authority_is_announced_before_it_signs_and_clients_of_either_bundle_never_fail() -> None:
    state = step(({}, {}), 0)
    old = state[1][BUNDLE]
    announced: float | None = None
    signed: float | None = None
    due = 3650 * 2 / 3
    for day in range(0, round(due) + 200):
        before = state
        state = step(state, day)
        if announced is None and state[1][BUNDLE] != old:
            announced = day
            assert state[1][SERVER] != before[1][SERVER], "its being served shows that the bundle was read"
        if announced is None or day < announced + 14:
            verify(old, state[1], day)
        verify(before[1][BUNDLE], state[1], day)
        verify(state[1][BUNDLE], before[1], day)
        if announced is not None and signed is None and state[0]["ca.crt"] != before[0]["ca.crt"]:
            signed = day
    assert announced is not None
    assert signed is not None
    assert 0 <= announced - due < 1
    assert signed - announced == 14
    assert len(read_bundle(state[1][BUNDLE])) == 1, "the old one is trusted no more when nothing of it can be served"
    with pytest.raises(VerificationError):
        verify(old, state[1], due + 200)


def test_a_lost_authority_is_replaced_and_its_last_certificate_is_served_while_it_lasts() -> None:
    first = step(({}, {}), 0)
    second = step(({}, first[1]), 10)
    assert second[1][SERVER] == first[1][SERVER]
    assert len(read_bundle(second[1][BUNDLE])) == 2
    assert step(second, 11) == second
    third = step(second, 60.1)
    verify(second[1][BUNDLE], third[1], 61)


def test_what_is_told_of_a_certificate() -> None:
    _, server = step(({}, {}), 0)
    told = certificates.described(server)
    assert told is not None
    assert told.names == NAMES
    assert (told.expires - NOW, told.authority_expires - NOW) == (timedelta(days=90), timedelta(days=3650))
    assert abs(told.renews - (NOW + timedelta(days=60))) < timedelta(minutes=10)
    assert certificates.described({**server, "tls.crt": "x"}) is None
