"""The ledger's records and how they are written down. Pure.

A record is two keys of a ConfigMap: the address holds the four fields that older tools read, and the address with
`.json` appended holds everything. What cannot be read is kept under `.bad`, then `.2.bad` and so on, for people to look
at.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, NewType

import orjson

Address = NewType("Address", str)
"""An IPv4 or IPv6 address in its shortest text."""

LEGACY_TIME = "%Y-%m-%d-%H:%M:%S"
MORE = ".json"
BAD = ".bad"
UNKNOWN = "unknown"
# What the service in the article keeps in its list so that JSON patches find one; no address of a pod.
SENTINEL = "1.1.1.1"
VERSION = 1
# A range that somebody added by hand and that is larger than this is left alone instead of being followed.
MOST_EXPANDED = 4096
# Addresses whose parsed form is remembered: a write has all of its shard's, and a sweep has all of them.
REMEMBERED = 1 << 18
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_UNITS = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# No client keeps an address for longer, and a number that is no number (infinity) could not be read again.
LONGEST_DAYS = 30
# Of a text that is quoted.
SHOWN_TEXT = 40


class BadRecord(ValueError):
    """A record of the ledger cannot be read; the message says why."""


class State(StrEnum):
    """Where an address is on its way from one owner to the next."""

    CLAIMED = "claimed"
    TERMINATING = "terminating"
    FREED = "freed"
    RELEASING = "releasing"


class End(StrEnum):
    """Why a hold ended."""

    EXPIRED = "expired"
    CROWDED = "crowded"
    QUOTA = "quota"
    PRESSURE = "pressure"
    CANCELLED = "cancelled"
    RETURNED = "returned"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A pod is about to lose an address. `at` is in seconds since 1970, UTC.

    `ended` are pods that have failed or succeeded: they may have kept in their status what is another pod's by now.
    `dual` pods had addresses of both IP versions. `space` are the policies of its namespace.
    """

    address: Address
    namespace: str
    pod: str
    node: str
    uid: str
    owner: str
    via: str
    at: float
    policy: Mapping[str, str] = field(default_factory=dict)
    ended: bool = False
    dual: bool = False
    space: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What the ledger knows of one barred address. Times are seconds since 1970, UTC.

    `hold` is the length that applies, known once the address is freed. `end` is set while it is being released.
    `swapped` and `spared` say that this hold was already counted as a swap seen, or a swap prevented; `dual` that the
    pod had addresses of both IP versions. `policy` are the pod's own policies, `space` those its namespace had, which
    may be gone by the time they count.
    """

    namespace: str
    pod: str
    node: str
    uid: str
    owner: str
    via: str
    state: State
    first: float
    last: float
    seq: int = 0
    terminating: float | None = None
    freed: float | None = None
    hold: float | None = None
    end: End | None = None
    swapped: bool = False
    spared: bool = False
    dual: bool = False
    policy: Mapping[str, str] = field(default_factory=dict)
    space: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_unknown(self) -> bool:
        """Whether an address was found barred and nobody had written down why."""
        return self.pod == UNKNOWN


@dataclass(frozen=True)
class Ledger:
    """The content of one shard's ConfigMap. `bad` holds keys nobody understands, as they are."""

    records: Mapping[Address, Record] = field(default_factory=dict)
    bad: Mapping[str, str] = field(default_factory=dict)
    # Addresses whose record was unreadable, with what stood there: their protection stays, under a record made anew.
    broken: Mapping[Address, tuple[str, ...]] = field(default_factory=dict)

    @property
    def strange(self) -> frozenset[str]:
        """Keys that are no address's; those that this service made are not among them."""
        return frozenset(name for name in self.bad if not name.endswith(BAD))


def address(text: str) -> Address:
    """The shortest text of an address. Raises ValueError."""
    found = ipaddress.ip_address(text)
    if isinstance(found, ipaddress.IPv6Address) and found.scope_id is not None:
        raise ValueError(f"{text!r} has a zone, which no pod address has")
    return Address(str(found))


def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """A network from its text. Raises ValueError."""
    return ipaddress.ip_network(text, strict=False)


def canonical(one: Address) -> str:
    """As Calico's list takes it in every version: `/32` or `/128`."""
    return f"{one}/{128 if ':' in one else 32}"


@lru_cache(maxsize=REMEMBERED)
def order(text: str) -> tuple[int, int, int]:
    """Sort key of an address or network: IPv4 first, then by number, then by length."""
    network = ipaddress.ip_network(text, strict=False)
    return network.version, int(network.network_address), network.prefixlen


def key(one: Address) -> str:
    """The ConfigMap key of an address: `:` is not allowed there, and no address contains `-`."""
    return one.replace(":", "-")


@lru_cache(maxsize=REMEMBERED)
def address_of_key(text: str) -> Address | None:
    """The address a key stands for; None when it is none."""
    try:
        return address(text.replace("-", ":"))
    except ValueError:
        return None


def parse_duration(text: str) -> float:
    """Seconds in `90`, `90s`, `30m`, `2h`, `1d`; 30 days at most. Raises ValueError, which quotes the text."""
    found, shown = _DURATION.fullmatch(text.strip()), repr(text[:SHOWN_TEXT])
    if found is None:
        raise ValueError(f"{shown} is not a duration such as 90s, 30m or 2h")
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds > LONGEST_DAYS * _UNITS["d"]:
        raise ValueError(f"{shown} is longer than {LONGEST_DAYS} days. Set {LONGEST_DAYS}d or less")
    return seconds


def expand(cidrs: Iterable[str]) -> tuple[frozenset[Address], tuple[str, ...], tuple[str, ...]]:
    """What a list of CIDRs bars: single addresses, ranges too large to follow, and entries that are no CIDR."""
    single: set[Address] = set()
    ranges: list[str] = []
    malformed: list[str] = []
    for text in cidrs:
        try:
            found = _parts(text)
        except (ValueError, TypeError):
            malformed.append(str(text))
            continue
        if isinstance(found, str):
            ranges.append(found)
        else:
            single.update(found)
    return frozenset(single), tuple(ranges), tuple(malformed)


@lru_cache(maxsize=REMEMBERED)
def _parts(text: str) -> tuple[Address, ...] | str:
    """The addresses of a CIDR; its shortest text when they are too many. Raises ValueError."""
    network = ipaddress.ip_network(text, strict=False)
    if network.num_addresses > MOST_EXPANDED:
        return str(network)
    return tuple(Address(str(one)) for one in network)


def iso(at: float) -> str:
    """RFC 3339 in UTC, milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _time(value: object) -> float:
    if not isinstance(value, str):
        raise BadRecord(f"{value!r} is not a time")
    try:
        found = datetime.fromisoformat(value)
    except ValueError as error:
        raise BadRecord(f"{value!r} is not a time") from error
    if found.tzinfo is None:
        raise BadRecord(f"{value!r} has no time zone")
    return found.timestamp()


def legacy(record: Record) -> str:
    """The four fields of the article's service."""
    at = record.freed if record.freed is not None else record.first
    stamp = datetime.fromtimestamp(at, UTC).strftime(LEGACY_TIME)
    return "_".join((record.namespace, record.pod, record.node, stamp))


def from_legacy(text: str) -> Record:
    """A record that another tool, or a person, wrote. Its time is read as UTC. Raises BadRecord."""
    parts = text.split("_")
    if len(parts) != 4:
        raise BadRecord(f"{len(parts)} fields instead of namespace_pod_node_time")
    namespace, pod, node, stamp = parts
    try:
        at = datetime.strptime(stamp, LEGACY_TIME).replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise BadRecord(f"{stamp!r} is not a time like 2026-11-25-03:04:05") from error
    return Record(
        namespace=namespace, pod=pod, node=node, uid="", owner="", via="foreign", state=State.CLAIMED, first=at, last=at
    )


def to_json(record: Record) -> str:
    """The full record, without what is empty."""
    found: dict[str, Any] = {
        "v": VERSION, "state": record.state, "namespace": record.namespace, "pod": record.pod, "node": record.node,
        "uid": record.uid, "owner": record.owner, "via": record.via, "seq": record.seq, "first": iso(record.first),
        "last": iso(record.last), "terminating": None if record.terminating is None else iso(record.terminating),
        "freed": None if record.freed is None else iso(record.freed), "hold": record.hold, "end": record.end,
        "swapped": record.swapped or None, "spared": record.spared or None, "dual": record.dual or None,
        "policy": dict(record.policy) or None, "space": dict(record.space) or None,
    }  # fmt: skip
    return orjson.dumps({name: value for name, value in found.items() if value is not None}).decode()


def from_json(text: str) -> Record:
    """Raises BadRecord, which says what is wrong."""
    try:
        found = orjson.loads(text)
    except ValueError as error:
        raise BadRecord("not JSON") from error
    if not isinstance(found, dict) or found.get("v") != VERSION:
        raise BadRecord(f"not a record of version {VERSION}")
    try:
        for name in ("namespace", "pod", "node", "uid", "owner", "via"):
            if not isinstance(found[name], str):
                raise BadRecord(f"{name}: not text")
        policy, space = found.get("policy", {}), found.get("space", {})
        for name, value in (("policy", policy), ("space", space)):
            if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
                raise BadRecord(f"{name}: not an object of texts")
        state = State(found["state"])
        if state is State.FREED and "freed" not in found:
            raise BadRecord("freed: missing in state freed")
        return Record(
            namespace=found["namespace"], pod=found["pod"], node=found["node"], uid=found["uid"], owner=found["owner"],
            via=found["via"], state=state, seq=int(found.get("seq", 0)), first=_time(found["first"]),
            last=_time(found["last"]),
            terminating=_time(found["terminating"]) if "terminating" in found else None,
            freed=_time(found["freed"]) if "freed" in found else None,
            hold=float(found["hold"]) if "hold" in found else None,
            end=End(found["end"]) if "end" in found else None,
            swapped=bool(found.get("swapped")), spared=bool(found.get("spared")), dual=bool(found.get("dual")),
            policy=policy, space=space,
        )  # fmt: skip
    except KeyError as error:
        raise BadRecord(f"{error.args[0]}: missing") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRecord(str(error)) from error


def read(
    data: Mapping[str, str], *, before: Ledger | None = None, texts: Mapping[str, str] | None = None
) -> Ledger:  # fmt: skip
    """The ledger in a ConfigMap. Never raises: what cannot be read is in `bad` and `broken`.

    `before` and `texts` are what was read the last time: the record of a text that is still the same is taken over,
    so that a reader of thousands parses what changed, and finds the very same object where nothing did.
    """
    was, old = texts or {}, before or Ledger()
    known = {one: record for one, record in old.records.items() if one not in old.broken}
    records: dict[Address, Record] = {}
    bad = {name: text for name, text in data.items() if name.endswith(BAD)}
    broken: dict[Address, tuple[str, ...]] = {}
    names = {name.removesuffix(MORE) for name in data if not name.endswith(BAD)}
    for name in sorted(names):
        plain, full = data.get(name), data.get(name + MORE)
        raw = full if full is not None else plain
        assert raw is not None
        found = address_of_key(name)
        if found is None:
            bad.update({one: data[one] for one in (name, name + MORE) if one in data})
            continue
        if full is not None and full == was.get(name + MORE) and key(found) == name and found in known:
            records[found] = known[found]
            continue
        try:
            records[found] = from_json(raw) if full is not None else from_legacy(raw)
        except BadRecord:
            # An address may be written in more than one way.
            broken[found] = (*broken.get(found, ()), raw)
            if full is not None and plain is not None:
                # The four fields may still say whose address it was.
                try:
                    records[found] = from_legacy(plain)
                except BadRecord:
                    broken[found] = (*broken[found], plain)
    return Ledger(records=records, bad=bad, broken=broken)


def write(
    ledger: Ledger, *, before: Mapping[Address, Record] | None = None, data: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The ConfigMap's data. What was broken is kept beside the record that replaces it.

    `before` and `data` are what was read: the text of a record that is still the same one is taken over as it stands,
    since a write changes a few of thousands.
    """
    known, texts = before or {}, data or {}
    found = _quarantined(ledger)
    for one, record in ledger.records.items():
        short = key(one)
        full = short + MORE
        if known.get(one) is record and short in texts and full in texts:
            found[short], found[full] = texts[short], texts[full]
        else:
            found[short], found[full] = legacy(record), to_json(record)
    return found


def written(ledger: Ledger) -> Ledger:
    """The ledger as a reader would find it after `write`."""
    return Ledger(records=ledger.records, bad=_quarantined(ledger))


def _quarantined(ledger: Ledger) -> dict[str, str]:
    """What nobody understands, with what is broken beside it: under the first free names, so that nothing is lost."""
    found = dict(ledger.bad)
    for one, texts in ledger.broken.items():
        for text in texts:
            # Whoever breaks it the same way again and again must not fill the object.
            found[next(name for name in bad_names(key(one)) if found.get(name, text) == text)] = text
    return found


def bad_names(name: str) -> Iterator[str]:
    """Keys under which what was found under this one is kept for people."""
    yield name + BAD
    for number in itertools.count(2):
        yield f"{name}.{number}{BAD}"


def claimed(claim: Claim, *, before: Record | None, seq: int) -> Record:
    """The record after a claim: the first time is kept over repeats of the same pod, another pod starts anew."""
    if before is not None and before.uid == claim.uid and before.state in (State.CLAIMED, State.TERMINATING):
        return replace(
            before, last=max(before.last, claim.at), policy=claim.policy or before.policy,
            space=claim.space or before.space,
        )  # fmt: skip
    return Record(
        namespace=claim.namespace, pod=claim.pod, node=claim.node, uid=claim.uid, owner=claim.owner, via=claim.via,
        state=State.CLAIMED, first=claim.at, last=claim.at, seq=seq, policy=claim.policy, dual=claim.dual,
        space=claim.space,
    )  # fmt: skip


def unknown(*, at: float, seq: int = 0) -> Record:
    """The record of an address that was found barred without one."""
    return Record(
        namespace=UNKNOWN, pod=UNKNOWN, node=UNKNOWN, uid="", owner="", via="found", state=State.CLAIMED, first=at,
        last=at, seq=seq,
    )  # fmt: skip
