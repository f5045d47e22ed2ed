"""Makes wire.json: what the ledger and the history hold in each state, as this service writes it.

Programs that read the ConfigMaps (Berth's portal) test against the same file, so neither side can change the format
alone. Run `python -m ipreserve.tests.wire` after a change that is meant, and tell the readers.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ipreserve import records, store
from ipreserve.records import Address, Claim, End, Ledger, Record, State

FILE = Path(__file__).with_name("wire.json")
AT = 1_764_039_845.123  # 2025-11-25 03:04:05 UTC


def _claimed(pod: str, owner: str, *, namespace: str = "berth-acme", via: str = "delete") -> Record:
    one = Address("10.0.0.1")
    claim = Claim(
        address=one, namespace=namespace, pod=pod, node="n1", uid=f"uid-{pod}", owner=owner, via=via, at=AT,
        policy={"hold": "1h"},
    )  # fmt: skip
    return records.claimed(claim, before=None, seq=1)


def content() -> dict[str, Any]:
    """`ledger` and `history` are the data of the two ConfigMaps, `labels` what each of them is found by."""
    redis, keeper = "StatefulSet/orders-s0", "StatefulSet/keeper"
    freed = replace(
        _claimed("orders-s0-1", redis), state=State.FREED, terminating=AT + 1, freed=AT + 3, hold=3600.0, last=AT + 1
    )
    held = {
        Address("10.0.0.1"): _claimed("orders-s0-0", redis, via="evict"),
        Address("10.0.0.2"): freed,
        Address("10.0.0.3"): replace(
            _claimed("keeper-0", keeper, via="kubelet"), state=State.TERMINATING, terminating=AT + 1
        ),
        Address("10.0.0.4"): replace(freed, pod="orders-s0-2", state=State.RELEASING, end=End.EXPIRED),
        Address("fd00::1"): replace(freed, pod="stranger-0", namespace="berth-other", owner="StatefulSet/stranger"),
        Address("10.0.0.9"): records.unknown(at=AT),
    }
    ended = [
        replace(freed, pod=f"orders-s0-{index}", state=State.RELEASING, end=end, first=AT - 9000 + index)
        for index, end in enumerate(End)
    ]
    mixed = [replace(ended[0], namespace="berth-other", pod="stranger-0"), *ended]
    return {
        "labels": {part: {**store.MANAGED, store.PART: part} for part in ("ledger", "history")},
        "ledger": records.write(Ledger(records=held)),
        "history": {"10.0.0.2": store.history_text(mixed, at=AT + 3604)},
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(content(), indent=1, sort_keys=True) + "\n")
