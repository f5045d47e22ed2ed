"""Kubelet's own evictions, announced by Events as kubelet writes them, under the webhook's own account."""

from __future__ import annotations

import pytest

from ipreserve.kube import JsonObject
from ipreserve.records import State, address
from ipreserve.tests.waiting import eventually
from ipreserve.tests.world import Service, World


def announce(world: World, pod: JsonObject, *, reason: str = "Evicted", uid: str = "") -> None:
    """The Event that kubelet writes before it kills a pod."""
    about = pod["metadata"]
    body = {
        "metadata": {"generateName": f"{about['name']}."},
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "namespace": about["namespace"], "name": about["name"],
            "uid": uid or about["uid"],
        },
        "type": "Warning", "reason": reason, "source": {"component": "kubelet", "host": "n1"},
        "message": "The node was low on resource: memory.",
    }  # fmt: skip
    world.kube.request("POST", f"/api/v1/namespaces/{about['namespace']}/events", body)


def test_an_announced_eviction_is_claimed_before_the_pod_is_reported_and_rests_afterwards(
    world: World, serving: Service
) -> None:
    one = address(world.address(1))
    pod = world.pod("cache-0", str(one), node="n1")
    announce(world, pod)
    eventually(lambda: one in world.records(), "it is claimed")
    record = world.records()[one]
    assert one in world.barred()
    assert (record.via, record.uid, record.state) == ("kubelet", pod["metadata"]["uid"], State.CLAIMED)
    # Only now kubelet reports, and the same claim goes on.
    world.report("cache-0", str(one), phase="Failed")
    world.delete("cache-0", gracePeriodSeconds=0)
    again = world.records()[one]
    assert (again.first, again.uid, again.seq) == (record.first, record.uid, record.seq)
    assert serving.value('ipreserve_admission_decisions_total{outcome="reserved",path="event evicted"}') >= 1


@pytest.mark.parametrize("wrong", ["reason", "uid", "namespace"])
def test_events_of_other_things_and_of_other_namespaces_claim_nothing(world: World, wrong: str) -> None:
    last, first = address(world.address(1)), address(world.address(2))
    other = f"{world.namespace}-open"
    world.make_namespace(other, protected=False)
    spaces = {"namespace": other}
    mine, world.namespace = world.namespace, spaces.get(wrong, world.namespace)
    wronged = world.pod("cache-0", str(first), node="n1")
    world.namespace = mine
    announce(
        world,
        wronged,
        reason={"reason": "Killing"}.get(wrong, "Evicted"),
        uid={"uid": "somebody-before"}.get(wrong, ""),
    )
    # What comes later in the same watch is claimed, so the one before was looked at.
    announce(world, world.pod("cache-1", str(last), node="n1"))
    eventually(lambda: last in world.records(), "the other one is claimed")
    assert first not in world.records()
    assert first not in world.barred()
