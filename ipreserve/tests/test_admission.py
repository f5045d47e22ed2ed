"""Every path of admission, on the real API server and the real webhook under its own account."""

from __future__ import annotations

from ipreserve.tests.world import Service, World


def test_graceful_delete_reserves_the_address_before_it_is_allowed(world: World, serving: Service) -> None:
    one = world.address(1)
    world.pod("cache-0", one)
    world.delete("cache-0")
    assert world.listed() == [f"{one}/32"]
    record = next(iter(world.records().values()))
    assert (record.namespace, record.pod, record.via) == (world.namespace, "cache-0", "delete")
