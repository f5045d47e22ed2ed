"""The reservations and the ledger as objects of the API server, and the writers that commit in groups.

Order of every write: the IPReservation first, the ledger second; on release the other way round, with a mark between.
A process may be killed after any of them: what is left is an address barred without a record, or a record that is not
barred, and the sweeper mends both.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sized
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import orjson

from ipreserve import errors, layout, records
from ipreserve.kube import METADATA, METADATA_LIST, CalicoApi, JsonObject, Kube
from ipreserve.metrics import WebhookMetrics
from ipreserve.records import Address, Claim, End, Ledger, Record, State

log = logging.getLogger("ipreserve.store")

NAME = "ip-reserve-delay-release"
HISTORY = "ip-reserve-history"
CONFIG = "ip-reserve-config"
MANAGED = {"app.kubernetes.io/managed-by": "ipreserve"}
PART = "ipreserve.berth.io/part"
SHARDS = "ipreserve.berth.io/shards"
HISTORY_PER_ADDRESS = 5
HISTORY_BYTES = 600_000
HISTORY_ATTEMPTS = 5
# For each request for the history of a claim: somebody's deletion waits, and does not wait for long.
HISTORY_SECONDS = 1.0
# Known state older than this is read again before it may answer "nothing to write". Well below cancel-after.
FRESH_SECONDS = 10.0
REMEMBERED_SECONDS = 20.0
REMEMBERED = 50_000
# Addresses in one line of the log.
SHOWN = 10
MOST_IN_ONE_COMMIT = 2000
# Well below the webhook's deadline, also when a commit had to be tried again and again.
MOST_GATHERED_SECONDS = 0.25
# Bad request, too large, invalid: what was sent is wrong, and maybe only a part of it.
CONTENT_STATUSES = (400, 413, 422)
# Failures further apart than this are not one failure. Controllers wait up to 1000 s between their tries.
APART_SECONDS = 1200.0


@dataclass(frozen=True)
class Barred:
    """One shard's IPReservation. `raw` is None when it is not there."""

    index: int
    addresses: frozenset[Address] = frozenset()
    ranges: tuple[str, ...] = ()
    malformed: tuple[str, ...] = ()
    raw: JsonObject | None = None

    @cached_property
    def is_canonical(self) -> bool:
        """Whether every entry is written as every version of Calico takes it, each once."""
        listed = ((self.raw or {}).get("spec") or {}).get("reservedCIDRs") or []
        return not self.malformed and len(listed) == len(set(listed)) and all("/" in str(one) for one in listed)


@dataclass(frozen=True)
class Kept:
    """One shard's ledger. `shards` is how many there shall be, as shard 0 says."""

    index: int
    ledger: Ledger = field(default_factory=Ledger)
    raw: JsonObject | None = None

    @property
    def shards(self) -> int:
        """1 when nobody said so, or said something that this service never would."""
        said = str(((self.raw or {}).get("metadata", {}).get("annotations") or {}).get(SHARDS, "1"))
        # Python refuses to read very long numbers.
        found = int(said) if said.isdecimal() and len(said) < 10 else 1
        return found if layout.is_count(found) else 1

    @cached_property
    def size(self) -> int:
        """Bytes as the API server counts them for its limit of 1 MiB."""
        data: Mapping[str, str] = (self.raw or {}).get("data") or {}
        return sum(len(value) if value.isascii() else len(value.encode()) for value in data.values())


def shard_name(index: int, base: str = NAME) -> str:
    """Shard 0 has the article's name."""
    return base if index == 0 else f"{base}-{index:02d}"


def _index(name: str, base: str = NAME) -> int | None:
    if name == base:
        return 0
    tail = name.removeprefix(base + "-")
    return int(tail) if tail != name and tail.isdecimal() else None


class Store:
    """Reads and writes single shards, always with the version that was read. Safe to share between threads."""

    def __init__(self, kube: Kube, namespace: str, calico: Callable[[], CalicoApi]) -> None:
        self.kube, self.namespace, self._calico = kube, namespace, calico
        # What was read or written last, so that what has not changed is not read again.
        self._barred: dict[tuple[str, int], Barred] = {}
        self._kept: dict[int, Kept] = {}
        # IPReservations that are not ours: their versions as last listed, and what was read of them.
        self._listed: list[tuple[str, str]] = []
        self._others: dict[str, tuple[str, list[str]]] = {}

    @property
    def configmaps(self) -> str:
        """The path of the collection."""
        return f"/api/v1/namespaces/{self.namespace}/configmaps"

    # --- reading ----------------------------------------------------------------------------------------------------

    def read_barred(self, index: int, *, timeout: float = 10.0) -> Barred:
        """Raises ApiError, Unreachable, NoCalico."""
        collection = self._calico().reservations
        try:
            found = barred(index, self.kube.get(f"{collection}/{shard_name(index)}", timeout=timeout))
        except errors.NotFound:
            self._barred.pop((collection, index), None)
            return Barred(index)
        self._barred[collection, index] = found
        return found

    def read_kept(self, index: int, *, timeout: float = 10.0) -> Kept:
        """Raises ApiError, Unreachable."""
        try:
            raw = self.kube.get(f"{self.configmaps}/{shard_name(index)}", timeout=timeout)
        except errors.NotFound:
            self._kept.pop(index, None)
            return Kept(index)
        found = self._kept[index] = kept(index, raw, before=self._kept.get(index))
        return found

    def barred_now(self, index: int) -> Barred:
        """The same as `read_barred`; asks only for the version when what is known may still hold."""
        collection = self._calico().reservations
        known = self._barred.get((collection, index))
        if known is not None and self._is_current(f"{collection}/{shard_name(index)}", known.raw):
            return known
        return self.read_barred(index)

    def kept_now(self, index: int) -> Kept:
        """The same as `read_kept`; asks only for the version when what is known may still hold."""
        known = self._kept.get(index)
        if known is not None and self._is_current(f"{self.configmaps}/{shard_name(index)}", known.raw):
            return known
        return self.read_kept(index)

    def _is_current(self, path: str, raw: JsonObject | None) -> bool:
        try:
            return _version(self.kube.get(path, accept=METADATA)) == _version(raw)
        except errors.NotFound:
            return False

    def all_barred(self) -> dict[int, Barred]:
        """Every shard's IPReservation, shard 0 also when it is missing. What has not changed is not read again."""
        collection = self._calico().reservations
        found: dict[int, Barred] = {0: Barred(0)}
        versions, self._listed = self._versions(collection)
        for index, version in versions:
            known = self._barred.get((collection, index))
            shard = known if known is not None and _version(known.raw) == version else self.read_barred(index)
            if shard.raw is not None:
                found[index] = shard
        return found

    def all_kept(self) -> dict[int, Kept]:
        """Every shard's ledger, shard 0 also when it is missing. What has not changed is not read again."""
        found: dict[int, Kept] = {0: Kept(0)}
        for index, version in self._versions(self.configmaps)[0]:
            known = self._kept.get(index)
            shard = known if known is not None and _version(known.raw) == version else self.read_kept(index)
            if shard.raw is not None:
                found[index] = shard
        return found

    def others(self) -> list[str]:
        """What IPReservations bar that are not ours, as of the last `all_barred`. Raises ApiError, Unreachable."""
        collection = self._calico().reservations
        found: dict[str, tuple[str, list[str]]] = {}
        for name, version in self._listed:
            if self._others.get(name, ("", []))[0] == version:
                found[name] = self._others[name]
                continue
            try:
                raw = self.kube.get(f"{collection}/{name}")
            except errors.NotFound:
                continue
            listed = (raw.get("spec") or {}).get("reservedCIDRs") or []
            found[name] = _version(raw), [str(one) for one in listed]
        self._others = found
        return [cidr for _, listed in found.values() for cidr in listed]

    def _versions(self, collection: str) -> tuple[list[tuple[int, str]], list[tuple[str, str]]]:
        """The shards that there are, with their versions; and all other objects by their names."""
        items, _ = self.kube.list(collection, accept=METADATA_LIST)
        shards: list[tuple[int, str]] = []
        others: list[tuple[str, str]] = []
        for one in items:
            name, version = str(one["metadata"]["name"]), _version(one)
            index = _index(name)
            if index is None:
                others.append((name, version))
            else:
                shards.append((index, version))
        return shards, others

    def shards(self) -> int | None:
        """How many shards there shall be; None when there is no ledger. Raises ApiError, Unreachable."""
        try:
            found = self.kube.get(f"{self.configmaps}/{shard_name(0)}", accept=METADATA)
        except errors.NotFound:
            return None
        return Kept(0, raw=found).shards

    def reservation_paths(self) -> list[str]:
        """Where our IPReservations are. Raises NoCalico."""
        collection = self._calico().reservations
        return [f"{collection}/{shard_name(index)}" for index, one in self.all_barred().items() if one.raw is not None]

    def config(self) -> dict[str, str]:
        """What may change while running; empty when nobody wrote it."""
        try:
            return dict(self.kube.get(f"{self.configmaps}/{CONFIG}").get("data") or {})
        except errors.NotFound:
            return {}

    # --- writing ----------------------------------------------------------------------------------------------------

    def write_barred(
        self, before: Barred, addresses: Iterable[Address], *, aggregate: bool = False, dry_run: bool = False,
        timeout: float = 10.0,
    ) -> Barred:  # fmt: skip
        """Write the whole set, and look at what came back.

        Raises Conflict when somebody wrote in between, NotStored when the server said yes and did not store it.
        """
        calico = self._calico()
        wanted = frozenset(addresses)
        manifest = self._manifest(before.raw, shard_name(before.index), "reservation")
        manifest |= {"apiVersion": calico.api_version, "kind": "IPReservation"}
        listed = layout.render(wanted, ranges=before.ranges, aggregate=aggregate)
        manifest["spec"] = {**((before.raw or {}).get("spec") or {}), "reservedCIDRs": listed}
        answer = self._put(calico.reservations, before.raw, manifest, dry_run=dry_run, timeout=timeout)
        if (answer.get("spec") or {}).get("reservedCIDRs") == listed:
            # Just what was sent, which was made of `wanted`.
            found = Barred(before.index, wanted, before.ranges, (), answer)
        else:
            found = barred(before.index, answer)
        if dry_run:
            return found
        if calico.aggregated:
            # Calico's API server gives up after five conflicts and still reports success: only a read tells.
            found = self.read_barred(before.index, timeout=timeout)
        unchanged = _version(before.raw) == _version(found.raw) and wanted != before.addresses
        if not wanted <= found.addresses or unchanged:
            raise errors.NotStored(
                f"IPReservation {shard_name(before.index)}: the API server reported success, and "
                f"{len(wanted - found.addresses) or len(wanted)} addresses are not in it"
            )
        self._barred[calico.reservations, before.index] = found
        return found

    def write_kept(self, before: Kept, ledger: Ledger, *, shards: int | None = None, timeout: float = 10.0) -> Kept:
        """Write a whole ledger. Raises Conflict, NotStored."""
        manifest = self._manifest(before.raw, shard_name(before.index), "ledger")
        if shards is not None:
            manifest["metadata"]["annotations"] = {
                **(manifest["metadata"].get("annotations") or {}), SHARDS: str(shards)
            }  # fmt: skip
        data = records.write(ledger, before=before.ledger.records, data=(before.raw or {}).get("data"))
        answer = self._put(self.configmaps, before.raw, manifest | self._data(before.raw, data), timeout=timeout)
        if dict(answer.get("data") or {}) != data:
            raise errors.NotStored(f"ConfigMap {shard_name(before.index)}: the API server stored something else")
        found = self._kept[before.index] = Kept(before.index, records.written(ledger), answer)
        return found

    def try_writing(self, index: int) -> None:
        """Write both objects of a shard as they are, in dry runs. Nothing of them is remembered: they may be many.

        Raises ApiError (Conflict when somebody wrote in between), Unreachable, NoCalico.
        """
        calico, dry_run, name = self._calico(), {"dryRun": "All"}, shard_name(index)
        new: JsonObject = {"metadata": {"name": name}}
        reservation = new | {"apiVersion": calico.api_version, "kind": "IPReservation", "spec": {"reservedCIDRs": []}}
        for collection, manifest in ((calico.reservations, reservation), (self.configmaps, new)):
            try:
                self.kube.request("PUT", f"{collection}/{name}", self.kube.get(f"{collection}/{name}"), query=dry_run)
            except errors.NotFound:
                self.kube.request("POST", collection, manifest, query=dry_run)

    def add_history(
        self, index: int, ended: Mapping[Address, Record], *, at: float, timeout: float = 10.0
    ) -> int:  # fmt: skip
        """Remember ended holds: the last few of each address, and not more than fits.

        Returns how many texts are in it that nobody could read. `timeout` is for each request. Raises ApiError,
        Unreachable, NotStored.
        """
        path, name = self.configmaps, shard_name(index, HISTORY)
        attempt = 0
        while True:
            attempt += 1
            try:
                raw: JsonObject | None = self.kube.get(f"{path}/{name}", timeout=timeout)
            except errors.NotFound:
                raw = None
            data = dict((raw or {}).get("data") or {})
            for one, record in ended.items():
                entry, text = _entry(record, at), data.get(records.key(one))
                before = [e for e in _entries(text) if _same_hold(e) != _same_hold(entry)]
                if text and not _entries(text):
                    kept_as = next(free for free in records.bad_names(records.key(one)) if data.get(free, text) == text)
                    log.error("history %s: what stood for %s is unreadable, kept as %s", name, one, kept_as)
                    data[kept_as] = text
                kept_entries = [*before, entry][-HISTORY_PER_ADDRESS:]
                # The newest last, also among addresses: the first are dropped when the object is full.
                data.pop(records.key(one), None)
                data[records.key(one)] = _text(kept_entries)
            _trim(data)
            try:
                manifest = self._manifest(raw, name, "history") | self._data(raw, data)
                if dict(self._put(path, raw, manifest, timeout=timeout).get("data") or {}) != data:
                    raise errors.NotStored(f"ConfigMap {name}: the API server stored something else")
                return sum(1 for one in data if one.endswith(records.BAD))
            except errors.Conflict:
                if attempt == HISTORY_ATTEMPTS:
                    raise

    def history(self, one: Address) -> list[JsonObject]:
        """Ended holds of an address, oldest first, and the one that runs."""
        items, _ = self.kube.list(self.configmaps)
        found: list[JsonObject] = []
        for item in items:
            name, data = item["metadata"]["name"], item.get("data") or {}
            if _index(name, HISTORY) is not None:
                found += _entries(data.get(records.key(one)))
            elif _index(name) is not None and (record := records.read(data).records.get(one)) is not None:
                found.append(orjson.loads(records.to_json(record)))
        return sorted(found, key=lambda entry: (str(entry.get("first")), "released" not in entry))

    def _manifest(self, raw: JsonObject | None, name: str, part: str) -> JsonObject:
        metadata = dict((raw or {}).get("metadata") or {"name": name})
        # Kubernetes' way to say: keep no account of who wrote which field. There is one for each address otherwise,
        # longer than the addresses themselves, made anew at each write and read by Calico at each start of a pod.
        metadata["managedFields"] = [{}]
        metadata["labels"] = {**(metadata.get("labels") or {}), **MANAGED, PART: part}
        # A whole object is written, so what others put into it goes along.
        return {**(raw or {}), "metadata": metadata}

    def _data(self, raw: JsonObject | None, data: Mapping[str, str]) -> JsonObject:
        """For a ConfigMap. A key may be in one of `data` and `binaryData` only, and ours are in `data`."""
        binary: dict[str, str] = {}
        for name, value in ((raw or {}).get("binaryData") or {}).items():
            names = itertools.chain([name], records.bad_names(name))
            binary[next(one for one in names if one not in data and one not in binary)] = value
        return {"data": data, **({"binaryData": binary} if binary else {})}

    def _put(
        self, collection: str, before: JsonObject | None, manifest: JsonObject, *, dry_run: bool = False,
        timeout: float = 10.0,
    ) -> JsonObject:  # fmt: skip
        query = {"dryRun": "All"} if dry_run else None
        if before is None:
            return self.kube.request("POST", collection, manifest, query=query, timeout=timeout)
        path = f"{collection}/{manifest['metadata']['name']}"
        try:
            return self.kube.request("PUT", path, manifest, query=query, timeout=timeout)
        except errors.NotFound as error:
            # Deleted in between: to be read again, like a conflict.
            raise errors.Conflict(str(error), 409) from error


def barred(index: int, raw: JsonObject) -> Barred:
    """An IPReservation, read."""
    listed = (raw.get("spec") or {}).get("reservedCIDRs") or []
    addresses, ranges, malformed = records.expand(str(one) for one in listed)
    return Barred(index, addresses - {records.SENTINEL}, ranges, malformed, raw)


def kept(index: int, raw: JsonObject, *, before: Kept | None = None) -> Kept:
    """A ledger, read. The shared ConfigMap must not make one fail, so this never raises.

    What stands there as it did before is taken over from it.
    """
    ledger, texts = (before.ledger, (before.raw or {}).get("data")) if before is not None else (None, None)
    return Kept(index, records.read(raw.get("data") or {}, before=ledger, texts=texts), raw)


def _version(raw: JsonObject | None) -> str:
    return str((raw or {}).get("metadata", {}).get("resourceVersion", ""))


def _entries(text: str | None) -> list[JsonObject]:
    try:
        found = orjson.loads(text) if text else []
    except ValueError:
        return []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _entry(record: Record, at: float) -> JsonObject:
    return {**orjson.loads(records.to_json(record)), "released": records.iso(at)}


def _text(entries: list[JsonObject]) -> str:
    return orjson.dumps(entries).decode()


def history_text(ended: Iterable[Record], *, at: float) -> str:
    """What the history holds for one address when these have ended at that time, oldest first."""
    return _text([_entry(record, at) for record in ended])


def _same_hold(entry: Mapping[str, Any]) -> tuple[object, ...]:
    return entry.get("uid"), entry.get("first"), entry.get("seq")


def _trim(data: dict[str, str]) -> None:
    """Drop the longest ended until the rest fits."""
    size = sum(map(len, data.values()))
    if size <= HISTORY_BYTES:
        return
    ours = (name for name in data if not name.endswith(records.BAD))
    by_age = sorted(ours, key=lambda name: max((str(e.get("released")) for e in _entries(data[name])), default=""))
    for name in by_age:
        if size <= HISTORY_BYTES:
            return
        size -= len(data.pop(name))


# --- group commit ---------------------------------------------------------------------------------------------------


class Failing:
    """For how long something has failed without having worked in between."""

    # For tests, which do not wait.
    now = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self._span: tuple[float, float] | None = None

    def failed(self) -> None:
        """Once more. After a long time without a try nobody knows that it failed all along, so that begins anew."""
        now, span = self.now(), self._span
        self._span = (now if span is None or now - span[1] > APART_SECONDS else span[0]), now

    def worked(self) -> None:
        """It is over."""
        self._span = None

    def is_failing(self) -> bool:
        """Whether the last try failed, not too long ago to tell."""
        return self._span is not None and self.now() - self._span[1] <= APART_SECONDS

    def seconds(self) -> float:
        """Since the first failure; 0 when the last try worked, or is too long ago to tell."""
        now, span = self.now(), self._span
        return 0.0 if span is None or now - span[1] > APART_SECONDS else now - span[0]


@dataclass
class _Waiting:
    claim: Claim
    answer: Future[None]
    until: float


class Writer:
    """One shard's writer: gathers claims, writes the whole set once, answers all who wait.

    0. A claim that comes alone is written at once. While others come, or after a commit that answered several, it
       waits for more, as long as more keep coming, and not much longer than the last commit took: a commit writes
       everything, so that one of many claims costs no more than one of few.
    1. Compute the set and the ledger from what is known, or read both when nothing is known.
    2. Write the IPReservation if the set grew; the version makes a write from stale knowledge fail (Conflict).
    3. Write the ledger if a record changed.
    4. On a conflict, read both again and begin anew, until nobody waits any longer.
    5. What is refused for its content goes to the shard that it is of by now, and the rest is halved: one claim that
       does not fit must not take the others along.

    Shard 0 says by itself that it became 16, once it is as long as a sweep would split it: between two sweeps, or while
    nobody sweeps, it would fill up, and what does not fit is refused. Moving what is in it is the sweeper's.
    """

    def __init__(
        self, store: Store, index: int, *, gather: float, metrics: WebhookMetrics, shards: Callable[[], int],
        elsewhere: Callable[[int, list[_Waiting]], list[_Waiting]] = lambda _, batch: batch,
    ) -> None:  # fmt: skip
        self._store, self.index, self._gather, self._metrics, self._shards = store, index, gather, metrics, shards
        # Takes those claims whose shard is another one, and returns the rest.
        self._elsewhere = elsewhere
        self._queue: list[_Waiting] = []
        self._wake = threading.Condition()
        self._barred: tuple[Barred, float] | None = None
        self._kept: tuple[Kept, float] | None = None
        # Counts what another thread asked to be forgotten: what a commit knew before is not kept after.
        self._forgotten = 0
        self._lock = threading.Lock()
        self.failing = Failing()
        self.on_kept: Callable[[Kept], None] = lambda _: None
        threading.Thread(target=self._run, name=f"writer {index}", daemon=True).start()

    def submit(self, claim: Claim, *, seconds: float) -> Future[None]:
        """A future that is done when the claim is written; it fails with CannotRecord after so many seconds."""
        waiting = _Waiting(claim, Future(), time.monotonic() + seconds)
        self.take(waiting)
        return waiting.answer

    def take(self, waiting: _Waiting) -> None:
        """Let one wait here that may have waited elsewhere before."""
        with self._wake:
            self._queue.append(waiting)
            self._wake.notify()

    def forget(self) -> None:
        """Read everything anew before the next write: Calico's API has changed."""
        with self._lock:
            self._forgotten += 1
            self._barred = self._kept = None

    def _keep(self, since: int, *, barred: Barred | None = None, kept: Kept | None = None, at: float) -> None:
        """Know this from now on, unless somebody said "forget" since."""
        with self._lock:
            if since != self._forgotten:
                return
            if barred is not None:
                self._barred = barred, at
            if kept is not None:
                self._kept = kept, at

    def _gather_more(self, *, several: bool, took: float) -> None:
        """Wait while claims keep coming. `several`: the last commit, which took so long, answered more than one."""
        if len(self._queue) == 1 and not several:
            return
        took = min(took, MOST_GATHERED_SECONDS)
        step, until = max(self._gather, took / 4), time.monotonic() + max(self._gather, took)
        waiting = 0
        while waiting < len(self._queue) and time.monotonic() < until:
            waiting = len(self._queue)
            time.sleep(step)

    def _run(self) -> None:
        batch: list[_Waiting] = []
        took = 0.0
        while True:
            with self._wake:
                while not self._queue:
                    self._wake.wait()
            self._gather_more(several=len(batch) > 1, took=took)
            began = time.monotonic()
            with self._wake:
                batch, self._queue = self._queue[:MOST_IN_ONE_COMMIT], self._queue[MOST_IN_ONE_COMMIT:]
            try:
                self._commit(batch)
            except Exception as error:
                # The thread must live, and those who wait get an answer.
                log.exception("commit of shard %d failed", self.index)
                self._fail(batch, error)
            took = time.monotonic() - began

    def _commit(self, batch: list[_Waiting]) -> None:
        self._metrics.batch.observe(len(batch))
        claims = {(one.claim.uid, one.claim.address): one.claim for one in batch}
        until = max(one.until for one in batch)
        pause = 0.02
        last: errors.IpreserveError = errors.Unreachable("no time left")
        while True:
            left = until - time.monotonic()
            if left <= 0:
                self._give_up(batch, claims, last)
                return
            try:
                if self._write(list(claims.values()), left):
                    break
            except errors.Conflict as error:
                self.forget()
                self._metrics.conflicts.inc()
                last = error
            except errors.IpreserveError as error:
                self.forget()
                if isinstance(error, errors.ApiError) and error.status in CONTENT_STATUSES:
                    rest = self._elsewhere(self.index, batch)
                    if len(rest) < len(batch):
                        log.warning("shard %d: %s; trying without those of other shards", self.index, error)
                        if rest:
                            self._commit(rest)
                        return
                    if len(claims) > 1:
                        log.warning("shard %d: %s; trying fewer than %d addresses", self.index, error, len(claims))
                        for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                            self._commit(half)
                        return
                if left <= pause or not error.may_pass:
                    self._give_up(batch, claims, error)
                    return
                last = error
                log.warning("shard %d: %s; trying again", self.index, error)
                time.sleep(pause)
                pause = min(pause * 2, 0.5)
        self.failing.worked()
        self._metrics.commits.labels("written").inc()
        for one in batch:
            one.answer.set_result(None)

    def _write(self, claims: list[Claim], left: float) -> bool:
        """One attempt; False when what is known is too old to be trusted, or was forgotten meanwhile."""
        now = time.monotonic()
        timeout = min(left, 10.0)
        with self._lock:
            since, seen, recorded = self._forgotten, self._barred, self._kept
        if seen is None:
            seen = self._store.read_barred(self.index, timeout=timeout), now
            self._keep(since, barred=seen[0], at=now)
        if recorded is None:
            recorded = self._store.read_kept(self.index, timeout=timeout), now
            self._keep(since, kept=recorded[0], at=now)
        known, known_at = seen
        wanted = known.addresses | {one.address for one in claims}
        if wanted != known.addresses or known.raw is None or not known.is_canonical:
            aggregate = len(wanted) * self._shards() > layout.AGGREGATE_FROM
            stored = self._store.write_barred(known, wanted, aggregate=aggregate, timeout=timeout)
            self._keep(since, barred=stored, at=now)
        elif now - known_at > FRESH_SECONDS:
            self.forget()
            return False
        ledger, ledger_at = recorded
        after = with_claims(ledger.ledger, claims)
        if after is not None:
            self._remember(replaced(ledger.ledger, after), timeout=min(left, HISTORY_SECONDS))
            full = self.index == 0 and ledger.shards == 1 and ledger.size > layout.SHARD_BYTES
            if full:
                log.warning("ledger 0 has %d bytes: from now on there are %d", ledger.size, layout.FIRST_SPLIT)
            shards = layout.FIRST_SPLIT if full else None
            fresh = self._store.write_kept(ledger, after, shards=shards, timeout=timeout)
            self._keep(since, kept=fresh, at=now)
            self.on_kept(fresh)
            if broken := ledger.ledger.broken:
                # The sweeper finds them well kept, and would not say a word.
                log.error("ledger %d: unreadable records of %s, kept as .bad", self.index, sorted(broken)[:SHOWN])
                self._metrics.quarantined.inc(len(broken))
        elif now - ledger_at > FRESH_SECONDS:
            self.forget()
            return False
        return since == self._forgotten

    def _remember(self, ended: Mapping[Address, Record], *, timeout: float) -> None:
        """Before their records are written over. An address is barred without a history too."""
        if not ended:
            return
        try:
            self._store.add_history(self.index, ended, at=self._store.kube.clock.now(), timeout=timeout)
        except errors.IpreserveError as error:
            log.error("history of %s is lost: %s", sorted(ended)[:SHOWN], error)

    def _give_up(self, batch: list[_Waiting], claims: Sized, error: Exception) -> None:
        log.error("shard %d: %d addresses could not be recorded: %s", self.index, len(claims), error)
        self._fail(batch, error)

    def _fail(self, batch: list[_Waiting], error: Exception) -> None:
        self.failing.failed()
        self._metrics.commits.labels("failed").inc()
        for one in batch:
            if not one.answer.done():
                one.answer.set_exception(errors.CannotRecord(str(error)))


def with_claims(ledger: Ledger, claims: Iterable[Claim]) -> Ledger | None:
    """The ledger after these claims; None when all of them are in it already."""
    after = dict(ledger.records)
    seq = max((record.seq for record in after.values()), default=0)
    for claim in sorted(claims, key=lambda one: (one.at, records.order(one.address))):
        before = after.get(claim.address)
        if before is not None and before.state in (State.CLAIMED, State.TERMINATING):
            if before.uid == claim.uid and claim.at - before.last < REMEMBERED_SECONDS:
                continue
            if claim.ended and before.uid not in ("", claim.uid):
                # Whoever has the address was claimed already, and would not be claimed again for a while.
                continue
        if before is not None and before.state is State.FREED and claim.ended:
            # It rests already. A pod that has ended may have kept in its status what became another's since, and its
            # own hold runs from when the address was free, not from when the pod is cleared away.
            continue
        seq += 1
        after[claim.address] = records.claimed(claim, before=before, seq=seq)
    if after == ledger.records:
        return None
    return replace(ledger, records=after)


def replaced(before: Ledger, after: Ledger) -> dict[Address, Record]:
    """Records of owners that another pod's claim takes the place of, as they go into the history."""
    found: dict[Address, Record] = {}
    for one, record in before.records.items():
        now = after.records.get(one)
        if now is None or now is record or record.is_unknown:
            continue
        again = (now.namespace, now.pod) == (record.namespace, record.pod)
        # What another tool wrote has no uid.
        if now.uid != record.uid if record.uid else not again:
            found[one] = replace(record, end=record.end or (End.RETURNED if again else None))
    return found


class Reserver:
    """Sends claims to the writer of their shard; answers repeats from memory."""

    def __init__(self, store: Store, *, gather: float, metrics: WebhookMetrics) -> None:
        self._store, self._gather, self._metrics = store, gather, metrics
        self._writers: dict[int, Writer] = {}
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, Address], float] = OrderedDict()
        self.shards = 1

    def reserve(self, claims: Iterable[Claim], *, seconds: float) -> list[Future[None]]:
        """Futures of what is not known to be written; empty when all is."""
        found: list[Future[None]] = []
        for claim in claims:
            if self._knows(claim):
                continue
            known = (claim.uid, claim.address)
            future = self._writer(layout.shard_of(claim.address, self.shards)).submit(claim, seconds=seconds)
            future.add_done_callback(lambda done, known=known: self._remember(known, done))  # type: ignore[misc]
            found.append(future)
        return found

    def knows(self, claims: Iterable[Claim]) -> bool:
        """Whether all of them were written a short time ago."""
        return all(map(self._knows, claims))

    def failing_seconds(self, claims: Iterable[Claim]) -> float:
        """For how long the shards of those claims that are not written could not be; other shards do not count."""
        indexes = {layout.shard_of(claim.address, self.shards) for claim in claims if not self._knows(claim)}
        return max((self._writer(index).failing.seconds() for index in indexes), default=0.0)

    def failing(self) -> list[int]:
        """Shards that could not be written when it was tried last, a short time ago."""
        with self._lock:
            writers = sorted(self._writers.items())
        return [index for index, writer in writers if writer.failing.is_failing()]

    def _knows(self, claim: Claim) -> bool:
        with self._lock:
            at = self._known.get((claim.uid, claim.address))
        return at is not None and time.monotonic() - at < REMEMBERED_SECONDS

    def forget(self) -> None:
        """Calico's API has changed: nothing that is known holds any longer."""
        with self._lock:
            writers = list(self._writers.values())
        for writer in writers:
            writer.forget()
        # Last: a commit that was about to end may have added to it.
        with self._lock:
            self._known.clear()

    def learn(self, ledger: Kept) -> None:
        """Shard 0 says how many shards there are."""
        if ledger.index == 0:
            self.shards = ledger.shards

    def _elsewhere(self, index: int, batch: list[_Waiting]) -> list[_Waiting]:
        """Send claims that are of another shard by now to its writer; returns those that are of this one."""
        rest: list[_Waiting] = []
        for waiting in batch:
            its = layout.shard_of(waiting.claim.address, self.shards)
            if its == index:
                rest.append(waiting)
            else:
                self._writer(its).take(waiting)
        return rest

    def _writer(self, index: int) -> Writer:
        with self._lock:
            if index not in self._writers:
                writer = Writer(
                    self._store, index, gather=self._gather, metrics=self._metrics, shards=lambda: self.shards,
                    elsewhere=self._elsewhere,
                )  # fmt: skip
                writer.on_kept = self.learn
                self._writers[index] = writer
            return self._writers[index]

    def _remember(self, known: tuple[str, Address], done: Future[None]) -> None:
        if done.cancelled() or done.exception() is not None:
            return
        with self._lock:
            self._known[known] = time.monotonic()
            self._known.move_to_end(known)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
