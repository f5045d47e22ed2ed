"""The fast wire form is REST framework's own, value for value."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import pytest
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer

from portal.api.clusters import ClusterOut, complete
from portal.api.operations import OperationOut
from portal.api.shaping import shape_of
from portal.tests.conftest import World, make_operation
from provisioning.models import Cluster, Operation, OperationState, Phase


def same(serializer: serializers.BaseSerializer[Any], value: Any) -> None:
    fast, plain = shape_of(serializer)(value), serializer.to_representation(value)
    assert JSONRenderer().render(fast) == JSONRenderer().render(plain)


@pytest.fixture
def rich(world: World) -> World:
    world.orders.conditions = [{"type": "Ready", "status": "True", "since": "2026-01-01T00:00:00Z"}, {"type": "Odd",
        "status": "Unknown", "reason": "r", "message": "m", "since": None}]  # fmt: skip
    world.orders.endpoints = [{"name": "redis", "host": "orders", "port": 6379, "scope": "cluster"}]
    world.orders.members = [{"pod": "p", "healthy": False, "detail": {"role": "x", "lag": 1.5}}, {"pod": "q"}]
    world.orders.created_by = world.alice
    world.orders.ready_at = datetime.datetime(2026, 1, 1, 12, 30, 0, 5, datetime.UTC)
    world.orders.labels = {"a": "b", "empty": ""}
    world.orders.save()
    make_operation(
        world.orders, state=OperationState.RUNNING, kind="update", percent=40, proof=None,
        error={"code": "c", "message": "m"},
        steps=[{"key": "a", "title": "A", "state": "running", "started": "", "ended": None}, {"key": "b",
            "title": "B", "state": "waiting", "object": "pod/p", "reason": "why"}],
    )  # fmt: skip
    return world


def test_clusters_look_as_rest_framework_shows_them(rich: World) -> None:
    found = list(complete(Cluster.objects.all()))
    assert len(found) == 2
    for one in found:
        same(ClusterOut(), one)
    same(ClusterOut(many=True), found)


def test_operations_look_as_rest_framework_shows_them(rich: World) -> None:
    for one in Operation.objects.select_related("cluster__tenant", "actor"):
        same(OperationOut(), one)


@dataclass
class Odd:
    """Values of other types than the fields name, as a program may hold them before they are saved."""

    text: Any = 5
    number: Any = "7"
    flag: Any = "true"
    choice: Any = Phase.READY
    time: Any = ""
    table: Any = None
    secret: Any = "hidden"

    def method(self) -> str:
        return "called"


class OddOut(serializers.Serializer[Any]):
    text = serializers.CharField()
    number = serializers.IntegerField()
    flag = serializers.BooleanField()
    choice = serializers.ChoiceField(choices=Phase.choices)
    time = serializers.DateTimeField(allow_null=True)
    table = serializers.DictField(child=serializers.IntegerField())
    method = serializers.CharField()
    absent = serializers.CharField(default="there")
    skipped = serializers.CharField(required=False)
    nobody = serializers.CharField(source="table.name", default=None, allow_null=True)
    secret = serializers.CharField(write_only=True)


@pytest.mark.parametrize(
    "value",
    [
        Odd(), Odd(text="", flag=0, number=True, table={1: "2", "x": None}), Odd(choice="other", table={}),
        Odd(time=datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=8)))),
        {"text": "t", "number": 1, "flag": True, "choice": "", "time": None, "table": {"a": 1}, "method": "m"},
    ],
)  # fmt: skip
def test_odd_values_look_as_rest_framework_shows_them(value: Any) -> None:
    same(OddOut(), value)


def test_what_is_missing_is_complained_about_as_before() -> None:
    with pytest.raises(KeyError, match="Got KeyError when attempting to get a value for field `text`"):
        shape_of(OddOut())({})


class Own(serializers.CharField):
    """A field that finds its value in a way of its own."""

    def get_attribute(self, instance: Any) -> str:
        return "found elsewhere"


class OwnOut(serializers.Serializer[Any]):
    text = Own()


def test_a_field_with_a_way_of_its_own_is_left_to_it() -> None:
    same(OwnOut(), Odd(text="not this"))
