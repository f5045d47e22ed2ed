"""Plan fields of ZooKeeper and the rules between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from provisioning.engines.base import Change, Demand, Effect, Field, Problem, Spec, TargetView, plain_changes

VERSIONS = ("3.9.4",)

FIELDS = (
    Field(
        "servers", "Servers", "enum", "3", Effect.FIXED,
        "3 survive the loss of one, 5 of two. 1 is for development: its loss is an outage.", choices=("1", "3", "5"),
    ),
    Field("memoryMiB", "Memory per server", "integer", 1024, Effect.ROLL, "", "MiB", 192, 16384),
    Field("cpu", "CPU per server", "number", 0.5, Effect.ROLL, "", "cores", 0.05, 8, 0.05),
    Field("storageGiB", "Storage per server", "integer", 10, Effect.LIVE, "Can grow, never shrink.", "GiB", 1, 200),
    Field("storageClass", "Storage class", "storage-class", "standard", Effect.FIXED, group="Storage"),
    Field(
        "spread", "Spread", "enum", "hard", Effect.ROLL,
        "hard: never two servers on one node. soft: only if there is room.", choices=("hard", "soft"),
        group="Behaviour", advanced=True,
    ),
    Field(
        "tickTimeMs", "Tick", "integer", 2000, Effect.ROLL,
        "Sessions time out after 2 to 20 ticks.", "ms", 500, 10000, group="Behaviour", advanced=True,
    ),
)  # fmt: skip


def servers(spec: Spec) -> int:
    """How many servers the ensemble has."""
    return int(spec["servers"])


def preflight(spec: Spec, target: TargetView) -> list[Problem]:
    """Rules that need the target."""
    wanted = servers(spec)
    if spec["spread"] == "hard" and target.nodes is not None and target.nodes < wanted:
        text = (
            f"{wanted} servers need {wanted} nodes, and {target.name} has {target.nodes} that take pods. Choose fewer "
            "servers, or spread soft."
        )
        return [Problem("/servers", "too_few_nodes", text)]
    return []


def demand(spec: Spec) -> Demand:
    """What the spec asks of the quota."""
    count = servers(spec)
    return Demand(
        count, count * round(spec["cpu"] * 1000), count * spec["memoryMiB"],
        {spec["storageClass"]: count * spec["storageGiB"] * 1024},
    )  # fmt: skip


def plan_change(before: Spec, after: Spec, target: TargetView) -> Sequence[Change]:
    """What each changed field does to a running ensemble."""
    return [_judged(change, before, after, target) for change in plain_changes(FIELDS, before, after)]


def _judged(change: Change, before: Spec, after: Spec, target: TargetView) -> Change:
    key = change.pointer[1:]
    if key == "servers":
        return replace(change, message="The number of servers is part of every server's configuration: order anew.")
    if key == "storageClass":
        return replace(change, message="The data stays on its storage class: order a new ensemble on the other one.")
    if key == "storageGiB":
        if after[key] < before[key]:
            return replace(change, effect=Effect.FIXED, message="Storage can grow, never shrink.")
        if after["storageClass"] in target.fixed_classes:
            text = f"Volumes of class {after['storageClass']} cannot grow on {target.name}: order a new ensemble."
            return replace(change, effect=Effect.FIXED, message=text)
        return replace(change, message=f"{change.message} Volumes grow while they are in use.")
    return _with_outage(after, change)


def _with_outage(spec: Spec, change: Change) -> Change:
    if change.effect == Effect.ROLL and servers(spec) == 1:
        return replace(change, message=f"{change.message} A single server: nobody answers while it restarts.")
    return change


def plan_upgrade(spec: Spec, before: str, after: str) -> Change:
    """What going to another version does."""
    return replace(plan_restart(spec), before=before, after=after)


def plan_restart(spec: Spec) -> Change:
    """What restarting every server does."""
    return _with_outage(
        spec, Change("", None, None, Effect.ROLL, "Every server restarts, one at a time, the leader last.")
    )


def plan_rebalance(spec: Spec) -> Change:
    """There is one leader, and servers elect it."""
    return Change("", None, None, Effect.FIXED, "An ensemble has one leader, which its servers elect: nothing to even.")
