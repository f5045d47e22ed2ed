"""Ids are in the order in which they were made."""

from __future__ import annotations

import itertools

from tenants.ids import ALPHABET, new_id


def test_ids_of_one_process_are_in_order_also_within_a_millisecond() -> None:
    made = [new_id("clu") for _ in range(5000)]
    assert made == sorted(set(made))
    assert all(len(one) == 30 and set(one.removeprefix("clu_")) <= set(ALPHABET) for one in made)


def test_ids_cannot_be_guessed_from_the_one_before() -> None:
    tails = [int.from_bytes(one[-8:].encode()) for one in (new_id("clu") for _ in range(1000))]
    assert len({later - earlier for earlier, later in itertools.pairwise(tails)}) > 900
