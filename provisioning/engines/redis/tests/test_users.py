"""Users: what they may do, rotation with overlap, and that nobody else notices; with real servers."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from redis.cluster import RedisCluster
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from provisioning.engines.base import Access, LinkError, User, UsersSeen
from provisioning.engines.redis import users
from provisioning.engines.redis.admin import Connection
from provisioning.engines.redis.manifests import PORT
from provisioning.engines.redis.tests.conftest import Start
from provisioning.engines.redis.tests.servers import ENGINE, PASSWORD, Fleet, view

EVERYBODY = User("default", (1,))
ORDERS = Access(("orders:",), ("orders:",), ("read", "write", "transaction", "pubsub", "scripting"))
SMALL: dict[str, Any] = {"shards": 3, "replicasPerShard": 0}


def wish(fleet: Fleet, *others: User, default: User = EVERYBODY) -> UsersSeen:
    """Have a fleet know these users, and return how they stand then."""
    fleet.cluster = replace(fleet.cluster, users=(default, *others))
    fleet.settle()
    return look(fleet)


def look(fleet: Fleet) -> UsersSeen:
    seen = ENGINE.advance(fleet.cluster, fleet.world(), fleet).users
    assert seen is not None
    return seen


def password(fleet: Fleet, name: str, version: int) -> str:
    return fleet.stored[users.password_key(name, version)]


def signs_in(fleet: Fleet, name: str, password: str, server: int = 0) -> bool:
    """Whether one node takes this user's password."""
    client = Redis(fleet.servers[server].address, PORT, username=name, password=password)
    try:
        return bool(client.ping())
    except AuthenticationError:
        return False
    finally:
        client.close()


def cluster_client(fleet: Fleet, name: str, version: int) -> RedisCluster:
    return RedisCluster(
        host=fleet.servers[0].address, port=PORT, username=name, password=password(fleet, name, version)
    )


def connection(fleet: Fleet, *account: tuple[str, str], server: int = 0) -> Connection:
    return Connection(socket.create_connection((fleet.servers[server].address, PORT), 2), *account)


def test_a_user_reaches_its_prefix_and_groups_and_nothing_else(start: Start) -> None:
    fleet = start(view(**SMALL))
    assert wish(fleet, User("app", (2,), ORDERS)).in_force
    client = cluster_client(fleet, "app", 2)
    for number in range(20):
        assert client.set(f"orders:{number}", number)
    assert client.get("orders:7") == b"7"
    assert client.eval("return redis.call('get', KEYS[1])", 1, "orders:7") == b"7"
    client.publish("orders:news", "x")
    refused: list[tuple[str, ...]] = [
        ("GET", "stock:1"), ("SET", "stock:1", "1"), ("RENAME", "orders:1", "stock:1"),
        ("PUBLISH", "stock:news", "x"),
        ("KEYS", "*"), ("SCAN", "0"), ("RANDOMKEY",), ("DBSIZE",), ("FLUSHALL",), ("FLUSHDB",), ("SWAPDB", "0", "0"),
        ("CONFIG", "GET", "masterauth"), ("ACL", "LIST"), ("ACL", "SETUSER", "app", "+@all"), ("CLIENT", "LIST"),
        ("CLIENT", "KILL", "TYPE", "normal"), ("CLUSTER", "RESET"), ("CLUSTER", "FAILOVER"), ("SHUTDOWN", "NOSAVE"),
        ("REPLICAOF", "NO", "ONE"), ("MIGRATE", "127.0.0.1", "1", "orders:1", "0", "1"),
        ("MONITOR",), ("SAVE",), ("MODULE", "LIST"), ("FUNCTION", "FLUSH"), ("SCRIPT", "FLUSH"), ("LATENCY", "RESET"),
        ("PUBSUB", "CHANNELS"), ("RESTORE", "orders:x", "0", "x"), ("SLOWLOG", "GET"), ("SYNC",),
    ]  # fmt: skip
    secret = password(fleet, "app", 2)
    with connection(fleet, ("app", secret)) as one:
        replies = one.pipeline(refused)
    said = {words: str(reply) for words, reply in zip(refused, replies, strict=True)}
    assert {words: text for words, text in said.items() if not text.startswith("NOPERM")} == {}
    with pytest.raises(ResponseError, match="can't access"):
        client.eval("return redis.call('get', 'stock:1')", 1, "orders:7")


def test_without_a_group_its_commands_are_refused(start: Start) -> None:
    fleet = start(view(**SMALL))
    wish(fleet, User("report", (2,), Access(("*",), (), ("read",))))
    client = cluster_client(fleet, "report", 2)
    assert client.get("anything") is None
    assert list(client.scan_iter()) == []
    with pytest.raises(NoPermissionError):
        client.set("anything", 1)
    with pytest.raises(NoPermissionError):
        client.publish("anything", "x")


def test_rotation_lets_both_passwords_work_until_the_old_one_is_taken_back(start: Start) -> None:
    fleet = start(view(**SMALL))
    wish(fleet, User("app", (2,), ORDERS))
    assert wish(fleet, User("app", (3, 2), ORDERS)).in_force
    old, new = password(fleet, "app", 2), password(fleet, "app", 3)
    assert old != new
    assert all(signs_in(fleet, "app", one, server) for one in (old, new) for server in range(3))
    assert fleet.stored["user.app"] == new
    with connection(fleet, ("app", old)) as opened:
        assert opened.call("PING") == "PONG"
        wish(fleet, User("app", (3,), ORDERS))
        # Who signed in with it does not stay either.
        with pytest.raises(Exception, match="connection to Redis broke"):
            opened.call("PING")
    assert [signs_in(fleet, "app", old, server) for server in range(3)] == [False] * 3
    assert [signs_in(fleet, "app", new, server) for server in range(3)] == [True] * 3
    assert old not in fleet.stored.values()


def test_the_old_passwords_use_is_told_by_connections_that_are_older_than_the_new_one(start: Start) -> None:
    fleet = start(view(**SMALL))
    wish(fleet, User("app", (2,), ORDERS))
    with connection(fleet, ("app", password(fleet, "app", 2))) as early:
        early.call("PING")
        in_force = datetime.now(UTC)
        user = User("app", (3, 2), ORDERS, newest_since=in_force, watched=True)
        seen = wish(fleet, user).old["app"]
        assert seen.connections == 1
        assert seen.last_active is not None
        assert seen.last_active > in_force - timedelta(seconds=30)
        # Ages are whole seconds: what was opened well after the moment is told from what was opened before.
        user = replace(user, newest_since=in_force - timedelta(seconds=60))
        assert wish(fleet, user).old["app"].connections == 0
    assert look(replaced(fleet, replace(user, newest_since=in_force))).old["app"].connections == 0
    assert look(replaced(fleet, replace(user, watched=False))).old == {}


def replaced(fleet: Fleet, *others: User) -> Fleet:
    fleet.cluster = replace(fleet.cluster, users=(EVERYBODY, *others))
    return fleet


def test_rotating_default_disturbs_neither_replication_nor_berth_nor_scripts(start: Start) -> None:
    fleet = start(view(shards=3, replicasPerShard=1))
    fleet.settle()
    seen = wish(fleet, default=User("default", (5,)))
    assert seen.in_force
    assert not signs_in(fleet, "default", PASSWORD)
    assert signs_in(fleet, "default", fleet.stored["password"])
    # A replica whose link breaks signs in to its master anew; one that starts does, too.
    for server in fleet.servers:
        with connection(fleet, ("berth", fleet.stored["system"]), server=fleet.servers.index(server)) as one:
            one.call("CLIENT", "KILL", "TYPE", "replica")
            one.call("CLIENT", "KILL", "TYPE", "master")
    fleet.end(fleet.servers[1])
    fleet.run(fleet.servers[1])
    fleet.settle()
    assert ENGINE.prove(fleet.cluster, fleet.world(), fleet).ok


def test_nodes_start_with_the_users_and_new_shards_get_them(start: Start) -> None:
    fleet = start(view(**SMALL))
    wish(fleet, User("app", (2,), ORDERS))
    fleet.kill(fleet.servers[0])
    fleet.run(fleet.servers[0])
    # Before anybody looked.
    assert signs_in(fleet, "app", password(fleet, "app", 2))
    fleet.settle()
    fleet.events.clear()
    assert look(fleet).in_force
    assert [reason for reason, _ in fleet.events if reason.startswith("Users")] == []
    fleet.wish(shards=4)
    fleet.settle()
    assert signs_in(fleet, "app", password(fleet, "app", 2), server=3)
    client = cluster_client(fleet, "app", 2)
    assert all(client.set(f"orders:{number}", number) for number in range(50))


def test_a_user_that_is_no_longer_wished_is_gone_with_its_connections(start: Start) -> None:
    fleet = start(view(**SMALL))
    wish(fleet, User("app", (2,), ORDERS))
    old = password(fleet, "app", 2)
    with connection(fleet, ("app", old)) as opened:
        wish(fleet)
        with pytest.raises(Exception, match="connection to Redis broke"):
            opened.call("PING")
    assert not signs_in(fleet, "app", old)
    assert not [key for key in fleet.stored if "app" in key]
    # One of the same name later has another password.
    wish(fleet, User("app", (4,), ORDERS))
    assert not signs_in(fleet, "app", old)


def test_rights_changed_by_hand_are_put_right_and_told(start: Start) -> None:
    fleet = start(view(**SMALL))
    wish(fleet, User("app", (2,), ORDERS))
    with connection(fleet, ("berth", fleet.stored["system"])) as by_hand:
        by_hand.call("ACL", "SETUSER", "app", "~*", "+@all", ">another")
        by_hand.call("ACL", "SETUSER", "stranger", "on", ">x", "~*", "+@all")
    fleet.events.clear()
    wish(fleet, User("app", (2,), ORDERS))
    told = dict(fleet.events)
    assert told["UsersSet"].startswith("app:")
    assert told["UsersRemoved"].startswith("stranger:")
    assert not signs_in(fleet, "app", "another")
    assert not signs_in(fleet, "stranger", "x")


def test_default_can_be_limited_and_turned_off(start: Start) -> None:
    fleet = start(view(**SMALL))
    assert wish(fleet, default=User("default", (1,), Access(("*",), ("*",), ("read",)))).in_force
    with pytest.raises(NoPermissionError):
        RedisCluster(host=fleet.servers[0].address, port=PORT, password=PASSWORD).set("a", 1)
    assert ENGINE.prove(fleet.cluster, fleet.world(), fleet).ok
    assert wish(fleet, default=User("default", (1,), None, enabled=False)).in_force
    assert not signs_in(fleet, "default", PASSWORD)
    assert ENGINE.prove(fleet.cluster, fleet.world(), fleet).ok


def test_a_cluster_made_before_there_were_users_gets_them_without_a_restart(start: Start) -> None:
    fleet = start(replace(view(shards=3, replicasPerShard=1), users=None))
    fleet.settle()
    before = {server.pod: server.process for server in fleet.servers}
    # What the core does at its next apply.
    assert wish(fleet, User("app", (2,), ORDERS)).in_force
    assert signs_in(fleet, "default", PASSWORD)
    assert signs_in(fleet, "app", password(fleet, "app", 2))
    assert wish(fleet, default=User("default", (3,))).in_force
    fleet.end(fleet.servers[0])
    fleet.run(fleet.servers[0])
    fleet.settle()
    assert {server.pod: server.process for server in fleet.servers[1:]} == {
        pod: process for pod, process in before.items() if pod != fleet.servers[0].pod
    }


def test_a_default_of_an_older_cluster_is_limited_at_the_same_look_that_brings_the_users(start: Start) -> None:
    fleet = start(replace(view(**SMALL), users=None))
    fleet.settle()
    fleet.cluster = replace(fleet.cluster, users=(User("default", (1,), Access(("*",), (), ("read",))),))
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(LinkError):
            if look(fleet).in_force:
                break
        assert time.monotonic() < deadline
    assert ENGINE.prove(fleet.cluster, fleet.world(), fleet).ok


def test_nodes_that_answer_are_told_though_another_is_away(start: Start) -> None:
    fleet = start(view(**SMALL))
    wish(fleet, User("app", (3, 2), ORDERS))
    old = password(fleet, "app", 2)
    fleet.kill(fleet.servers[2])
    fleet.cluster = replace(fleet.cluster, users=(EVERYBODY, User("app", (3,), ORDERS)))
    seen = look(fleet)
    assert not seen.in_force
    assert seen.waits == f"{fleet.servers[2].pod} has not been told yet"
    assert not signs_in(fleet, "app", old)
    fleet.run(fleet.servers[2])
    deadline = time.monotonic() + 20
    while not look(fleet).in_force:
        assert time.monotonic() < deadline
    assert not signs_in(fleet, "app", old, server=2)


GROUPS = st.lists(st.sampled_from(sorted(users.GROUPS)), min_size=1, unique=True)
PREFIXES = st.lists(st.from_regex(users.PREFIX, fullmatch=True), min_size=1, max_size=4)


@given(PREFIXES, PREFIXES, GROUPS)
def test_rules_hold_only_words_redis_knows_and_never_more_than_was_given(
    keys: list[str], channels: list[str], groups: list[str]
) -> None:
    access = Access(tuple(keys), tuple(channels), tuple(groups))
    assert users.check("app", access) == []
    words = users.rules(User("app", (1,), access)).split()
    assert words[0] == "on"
    assert {word for word in words if word[0] == "~"} == {f"~{prefix}*" for prefix in keys}
    assert {word for word in words if word[0] == "&"} == {f"&{prefix}*" for prefix in channels}
    assert "+@all" not in words
    assert words.index("-@dangerous") > max(words.index(word) for word in words if word[:2] == "+@")


@pytest.mark.parametrize(
    ("access", "pointer"),
    [
        (Access(("a b",), (), ("read",)), "/key_prefixes/0"),
        (Access(("a*",), (), ("read",)), "/key_prefixes/0"),
        (Access(("a", "*"), (), ("read",)), "/key_prefixes"),
        (Access(("a\n",), (), ("read",)), "/key_prefixes/0"),
        (Access(("a",), ("[",), ("read",)), "/channel_prefixes/0"),
        (Access(("a",), (), ("admin",)), "/commands/0"),
        (Access(("a",), (), ()), "/commands"),
        (Access((), (), ("read",)), "/key_prefixes"),
    ],
)
def test_access_that_redis_could_misread_is_refused(access: Access, pointer: str) -> None:
    assert [problem.pointer for problem in users.check("app", access)] == [pointer]


def test_a_secret_keeps_its_passwords_and_holds_no_more_than_is_wished() -> None:
    def content(stored: Mapping[str, str], *wished: User) -> dict[str, str]:
        return users.secret_content(wished, stored, lambda length: token_hex(length // 2))

    old = {"password": "first", "note": "somebody's own"}
    one = content(old, EVERYBODY, User("app", (2,), ORDERS))
    assert (one["password"], one["user.default.1"], one["note"]) == ("first", "first", "somebody's own")
    assert content(one, EVERYBODY, User("app", (2,), ORDERS)) == one
    two = content(one, User("default", (4, 1)), User("app", (2,), ORDERS))
    assert two["password"] == two["user.default.4"] != "first"
    assert two["user.default.1"] == "first"
    three = content(two, User("default", (4,)))
    assert set(three) == {"password", "user.default.4", "system", "acl.conf", "note"}
    assert "first" not in three["acl.conf"]
    assert three["password"] not in three["acl.conf"]
    # A first rotation without overlap does not bring the first password back under a new number.
    assert content(old, User("default", (2,)))["password"] != "first"
