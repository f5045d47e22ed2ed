"""What the short soak of the suite holds, and when it ends by what a client has read."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, cast

import pytest

from dev.portal import Api
from dev.redis_watch import Watched
from dev.soak import FAULTS, SHORT, Round, Soak, SoakError
from dev.stack import Stack


class Seen:
    """A client that reads something older than confirmed in each round that it is asked about."""

    def mark(self) -> Mapping[str, Any]:
        gaps = {"accepted_gap": 0.0, "confirmed_gap": 0.0}
        return {"confirmed": 9, "stale": 1, "refusals": {}, **gaps}

    def stop(self) -> Mapping[str, Any]:
        return {"suspects": ["key-7 at 10.0.0.1: 6, and 7 was confirmed"]}


def soak() -> Soak:
    nobody = cast(Any, None)
    return Soak(cast(Stack, nobody), cast(Api, nobody), "", cast(Watched, Seen()), random.Random(1), lambda line: None)


def test_the_short_soak_has_every_fault_and_takes_shards_and_replicas_out_and_in() -> None:
    assert {fault for one in SHORT for fault in one.faults} == FAULTS.keys()
    changes = [one.change for one in SHORT if isinstance(one.change, Mapping)]
    assert [one["shards"] for one in changes if "shards" in one] == [4, 3]
    assert [one["replicasPerShard"] for one in changes if "replicasPerShard" in one] == [2, 1]


def test_only_a_thawed_master_and_a_replaced_giver_of_slots_may_tell_something_old() -> None:
    assert [one.title for one in SHORT if one.may_read_old] == ["a fourth shard", "nothing"]
    moves = {"shards": 4}
    assert not Round("", moves, False, ("kill-replica",)).may_read_old
    assert not Round("", {"replicasPerShard": 2}, False, ("kill-master",)).may_read_old
    assert Round("", moves, False, ("lose-disk-of-master",)).may_read_old


def test_a_read_that_is_older_than_what_was_confirmed_ends_the_soak_and_is_shown() -> None:
    with pytest.raises(SoakError, match=r"1 reads of what is older than confirmed, such as .*7 was confirmed"):
        soak().round(Round("nothing", None, False, ()))
