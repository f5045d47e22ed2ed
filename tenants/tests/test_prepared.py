"""Prepared queries answer what the queryset they were made of answers."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tenants.models import ApiToken, Membership, Role, Tenant, User
from tenants.prepared import Prepared
from tenants.tokens import create_token


@pytest.fixture
def people(db: None) -> list[User]:
    acme = Tenant.objects.create(slug="acme", name="Acme")
    made = [User.objects.create(username=name) for name in ("alice", "bob")]
    for user, role in zip(made, (Role.OWNER, Role.VIEWER), strict=True):
        Membership.objects.create(tenant=acme, user=user, role=role)
        create_token(user=user, name=f"of {user.username}", scopes=["read"])
    return made


def test_the_values_of_each_call_choose_its_rows(people: list[User]) -> None:
    query = Prepared(lambda name: User.objects.filter(username=name))
    assert [query.first(name=one.username) for one in people] == people
    assert query.first(name="nobody") is None
    assert query.all(name="alice' OR '1'='1") == []


def test_related_rows_and_annotations_come_with_it(people: list[User]) -> None:
    tokens = Prepared(lambda user, now: ApiToken.objects.usable(now).filter(user=user).select_related("user"))
    tenants = Prepared(lambda user: Tenant.objects.with_role_of(User(pk=user)).order_by("slug"))
    for person in people:
        (token,) = tokens.all(user=person.pk, now=timezone.now())
        assert token.scopes == ["read"]
        with CaptureQueriesContext(connection) as queries:
            assert token.user.username == person.username
        assert len(queries) == 0
        assert [tenant.my_role for tenant in tenants.all(user=person.pk)] == [person.memberships.get().role]
    assert tokens.all(user=people[0].pk, now=timezone.now() + timedelta(days=1000)) == []


def test_tuples_and_limits_stay_what_they_are(people: list[User]) -> None:
    query = Prepared(lambda least: User.objects.filter(pk__gte=least).order_by("-pk").values_list("pk", "username")[:1])
    assert query.all(least=people[0].pk) == [(people[1].pk, "bob")]


def test_the_sql_is_composed_once_and_sent_each_time(people: list[User]) -> None:
    made: list[str] = []

    def make(name: str) -> object:
        made.append(name)
        return User.objects.filter(username=name)

    query = Prepared(make)  # type: ignore[arg-type, var-annotated]
    with CaptureQueriesContext(connection) as queries:
        for person in people:
            query.first(name=person.username)
    assert len(made) == 1
    assert ["alice" in one["sql"] for one in queries] == [True, False]


def test_a_query_that_changes_or_drops_its_values_is_refused(people: list[User]) -> None:
    with pytest.raises(ValueError, match="changes the values"):
        Prepared(lambda name: User.objects.filter(username__startswith=name)).all(name="a")
    with pytest.raises(ValueError, match="drops them: other"):
        Prepared(lambda name, other: User.objects.filter(username=name)).all(name="a", other="b")
    with pytest.raises(ValueError, match="query of its own"):
        Prepared(lambda name: User.objects.filter(username=name).prefetch_related("tokens")).all(name="a")
    with pytest.raises(TypeError, match="float"):
        Prepared(lambda name: User.objects.filter(username=name)).all(name=1.5)  # type: ignore[arg-type]


@pytest.mark.django_db(transaction=True)
def test_threads_with_connections_of_their_own_share_one_query() -> None:
    people = [User.objects.create(username=f"p-{number}") for number in range(4)]
    query = Prepared(lambda name: User.objects.filter(username=name))
    found: dict[str, list[int]] = {}

    def ask(name: str) -> None:
        try:
            found[name] = [one.pk for _ in range(20) for one in query.all(name=name)]
        finally:
            connection.close()

    threads = [threading.Thread(target=ask, args=(one.username,)) for one in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {one.username: [one.pk] * 20 for one in people}
