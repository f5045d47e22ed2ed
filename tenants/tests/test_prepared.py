"""Prepared queries answer what the queryset they were made of answers."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import Value
from django.db.models.expressions import DatabaseDefault
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tenants.models import ApiToken, EntryKind, LedgerEntry, Membership, QuotaLimit, Role, Tenant, User
from tenants.prepared import Prepared, insert
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


def test_new_rows_of_several_models_are_written_in_one_message(people: list[User]) -> None:
    acme = Tenant.objects.get()
    token = ApiToken(
        user=people[0], name="it's \\ 100%s", prefix="brt_", sha256="0" * 64, scopes=["read", 'a"b'],
        expires=timezone.now(),
    )  # fmt: skip
    entry = LedgerEntry(tenant=acme, kind=EntryKind.RESERVE, place="p", holder="h", cause="c", resource="pods")
    limits = [QuotaLimit(tenant=acme, resource=resource, limit=7) for resource in ("pods", "cpu")]
    with CaptureQueriesContext(connection) as queries:
        insert(token, entry, *limits)
    assert len(queries) == 1
    again = ApiToken.objects.get(pk=token.pk)
    for field in ApiToken._meta.concrete_fields:
        assert getattr(again, field.attname) == getattr(token, field.attname), field.name
    assert LedgerEntry.objects.get().created == entry.created
    assert sorted(acme.quota_limits.values_list("resource", "limit")) == [("cpu", 7), ("pods", 7)]
    # Saved again, a row that was inserted is updated.
    token.name = "other"
    token.save()
    assert ApiToken.objects.filter(name="other").count() == 1


def test_what_the_database_has_a_value_for_is_left_to_it(people: list[User]) -> None:
    member = Membership(tenant=Tenant.objects.get(), user=User.objects.create(username="carol"), role=Role.VIEWER)
    member.from_groups = DatabaseDefault(Value(False))
    insert(member)
    assert Membership.objects.get(user__username="carol").from_groups is False


def test_a_constraint_refuses_all_of_them(people: list[User]) -> None:
    acme, carol = Tenant.objects.get(), User.objects.create(username="carol")
    with pytest.raises(IntegrityError), transaction.atomic():
        insert(*(Membership(tenant=acme, user=user, role=Role.VIEWER) for user in (carol, people[0])))
    assert not carol.memberships.exists()


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
