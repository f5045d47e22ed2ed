"""Users of a Redis cluster on a real target: rights, rotation, and that they outlive pods."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import Any

import pytest

from dev.stack import Stack
from sandbox.tests.waiting import eventually
from tests.e2e.conftest import Order, OrderCluster

pytestmark = pytest.mark.sandbox
SHOP = {"name": "shop", "key_prefixes": ["shop:"], "commands": ["read", "write"]}


class Client:
    """redis-cli inside the target's network, as one user."""

    def __init__(self, stack: Stack, placed: Order, user: str) -> None:
        self.stack, self.user, self.placed = stack, user, placed
        self.host = placed.read()["endpoints"][0]["host"]
        self.password = self.revealed()

    def revealed(self) -> str:
        """The user's newest password."""
        path = f"{self.placed.path}/credentials/{self.user}/reveal"
        password: str = self.placed.api.request("POST", path)["password"]
        return password

    def says(self, *words: str, password: str | None = None, host: str | None = None) -> str:
        """What Redis answers."""
        done = self.stack.run_inside(
            ["redis-cli", "-c", "--no-auth-warning", "--user", self.user, "-h", host or self.host, *words],
            timeout=30, env={**os.environ, "REDISCLI_AUTH": password or self.password},
        )  # fmt: skip
        return (done.stdout + done.stderr).strip()


def change(placed: Order, method: str, path: str, body: Mapping[str, Any] | None = None) -> None:
    """One change of the users, followed to its end."""
    key = {"Idempotency-Key": secrets.token_hex(16)}
    answer = placed.api.request(method, f"{placed.path}/{path}", body, headers=key)
    operation = placed.api.follow(answer["operation"])
    assert operation["state"] == "succeeded", operation["error"]


def test_users_are_limited_rotated_without_a_restart_and_outlive_pods(stack: Stack, order: OrderCluster) -> None:
    if stack.sandbox is None:
        pytest.skip("this host is outside the external cluster's network")
    placed = order(plan="redis-dev", spec={"shards": 3, "replicasPerShard": 1})
    pods = ("-n", "berth-demo", "get", "pods", "-l", f"berth.io/cluster={placed.name}", "-o")
    columns = 'jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[*].restartCount}{"\\n"}{end}'
    before = stack.kubectl(*pods, columns).stdout
    change(placed, "POST", "users", SHOP)
    shop = Client(stack, placed, "shop")
    assert shop.says("set", "shop:1", "x") == "OK"
    assert "NOPERM" in shop.says("get", "other:1")
    assert "NOPERM" in shop.says("config", "get", "maxmemory")

    old = shop.password
    change(placed, "POST", "users/shop/rotate", {"overlap_seconds": 3600})
    shop.password = shop.revealed()
    assert shop.password != old
    assert (shop.says("get", "shop:1"), shop.says("get", "shop:1", password=old)) == ("x", "x")
    assert placed.api.request("GET", f"{placed.path}/users/shop")["old_password"]["until"] is not None
    change(placed, "POST", "users/shop/revoke-old")
    assert "WRONGPASS" in shop.says("get", "shop:1", password=old)
    assert placed.api.request("GET", f"{placed.path}/users/shop")["old_password"] is None

    # An overlap ends by itself.
    old = shop.password
    change(placed, "POST", "users/shop/rotate", {"overlap_seconds": 1})
    shop.password = shop.revealed()
    eventually(lambda: "WRONGPASS" in shop.says("ping", password=old), "the old password ends", 120)
    assert shop.says("ping") == "PONG"

    # The exporter, replication and Berth do not notice.
    default = Client(stack, placed, "default")
    first = default.password
    change(placed, "POST", "users/default/rotate", {"overlap_seconds": 0})
    assert "WRONGPASS" in default.says("ping", password=first)
    assert stack.kubectl(*pods, columns).stdout == before
    address = stack.kubectl(*pods, "jsonpath={.items[0].status.podIP}").stdout
    metrics = stack.run_inside(["curl", "-s", f"http://{address}:9121/metrics"], timeout=30).stdout
    assert "\nredis_up 1" in metrics

    victim = next(member["pod"] for member in placed.read()["members"] if member["role"] == "master")
    assert stack.kubectl("-n", "berth-demo", "delete", "pod", victim, "--now").returncode == 0
    answer = placed.api.request("PATCH", placed.path, {"spec": {"shards": 4}})
    operation = placed.api.follow(answer["operation"])
    assert operation["state"] == "succeeded", operation["error"]
    addresses = stack.kubectl(*pods, "jsonpath={.items[*].status.podIP}").stdout.split()
    assert len(addresses) == 8
    assert {shop.says("ping", host=one) for one in addresses} == {"PONG"}
    assert all("WRONGPASS" in shop.says("ping", host=one, password=old) for one in addresses)
