"""The admission webhook: reserves first, says yes second. `python -m ipreserve webhook`.

Answers are given on one event loop; writing is done by the writers' threads (store.py), and what has to be kept up
(Calico's API, settings, certificates, readiness) by a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import re
import signal
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import orjson
import uvloop
from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from ipreserve import certs, errors, evictions, install, kube, records, review, settings, store
from ipreserve.metrics import WebhookMetrics, serve
from ipreserve.pool import Named, Range
from ipreserve.records import Address, Claim, State
from ipreserve.review import Allow, Ask, BadReview, Reserve, Selector
from ipreserve.selectors import ALL
from ipreserve.settings import SHORT_DEADLINE
from ipreserve.sweeper import block_row, ranges

log = logging.getLogger("ipreserve.webhook")

KEEP_SECONDS = 3.0
DETECT_SECONDS = 30.0
LOOK_SECONDS = 3.0
# Between dry runs of whole objects.
PROBE_SECONDS = 15.0
# For the event loop to take up a certificate.
USE_SECONDS = 5.0
RETRY_HINT_SECONDS = 5
SWITCH_SECONDS = 0.0005
LATE = "no answer from the API server in time"
# Of objects whose paths are asked for: whoever sends a request must not choose another path.
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
# For how long a namespace that was protected is taken to be so still.
PROTECTED_SECONDS = 60.0
MOST_BODY = 4 << 20
# Longer than Go's 90 s, so that it is never us who closes a connection that the API server is about to use.
KEEP_ALIVE_SECONDS = 120.0
# For asking whether a reservation can be written: an address of the documentation range, in a dry run.
PROBE = Address("192.0.2.1")


class Webhook:
    """All parts of one replica. `start` and `stop` are for the event loop."""

    def __init__(self, options: settings.Settings, door: kube.Kube) -> None:
        self.options, self.kube = options, door
        self.metrics = WebhookMetrics()
        self.live = settings.Live()
        self._problems: tuple[str, ...] = ()
        self._calico: kube.CalicoApi | None = None
        self._detected = -DETECT_SECONDS
        self.store = store.Store(door, options.namespace, self.calico)
        self.reserver = store.Reserver(self.store, gather=options.gather, metrics=self.metrics)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        # The API server never resumes a session, and making tickets costs as much as the rest of an answer.
        self._context.num_tickets = 0
        self._served: certs.Served | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # Of reading pods; each writer knows of its own shard.
        self._looking = store.Failing()
        # What cannot be written, for how long, and whether the reason may be this replica's own.
        self._problem, self._probing, self._alone = "not looked yet", store.Failing(), True
        # Which shard is tried next, and when the last one was.
        self._turn, self._tried = 0, -PROBE_SECONDS
        self._could_write = False
        self._stop = threading.Event()
        self._looks = ThreadPoolExecutor(16, thread_name_prefix="look")
        # Of their own: what is best effort must not keep an eviction waiting.
        self._give_backs = ThreadPoolExecutor(4, thread_name_prefix="give-back")
        # What a request says of a pod is compared with these; what is not among them is asked for.
        self._pods = kube.Mirror(door, "/api/v1/pods", self._claimable)
        # By what selector a namespace was found to be protected, and when; and its policies.
        self._protected: dict[str, tuple[Selector, float, dict[str, str]]] = {}
        self._runner: web.ServerRunner | None = None
        self._armed = False
        # The configuration was there, and somebody has removed it.
        self._uninstalled = False
        self._evictions = evictions.Evictions(
            door, self.reserver, live=lambda: self.live, metrics=self.metrics, deadline=options.deadline,
            wanted=lambda: not self._uninstalled,
        )  # fmt: skip

    def calico(self) -> kube.CalicoApi:
        """Calico's API as last seen. Raises NoCalico."""
        if self._calico is None:
            self._calico = kube.detect(self.kube, self.options.calico_api)
            log.info("Calico's API: %s (%s)", self._calico.name, self._calico.api_version)
        return self._calico

    # --- what is kept up --------------------------------------------------------------------------------------------

    def keep(self) -> None:
        """One round of everything that is not an answer. Each part fails alone."""
        for part in (self._detect, self._reload, self._certificates, self._probe, self._arm):
            try:
                part()
                continue
            except errors.IpreserveError as error:
                log.warning("%s: %s", part.__name__.strip("_"), error)
                problem, alone = str(error), isinstance(error, errors.Unreachable)
            except Exception as error:
                # A defect in one part must not end the others: readiness and certificates hang on them.
                log.exception("%s failed", part.__name__.strip("_"))
                problem, alone = f"{type(error).__name__}, see the log", True
            if part == self._probe:  # a bound method is another object each time
                self._told(problem, alone=alone)
                # Calico's API may have been migrated: what is written goes to a group that is gone.
                self._detected = -DETECT_SECONDS

    def _detect(self) -> None:
        if time.monotonic() - self._detected < DETECT_SECONDS and self._calico is not None:
            return
        found = kube.detect(self.kube, self.options.calico_api)
        self._detected = time.monotonic()
        if self._calico is not None and found != self._calico:
            log.warning("Calico's API changed from %s to %s", self._calico.name, found.name)
            self._calico = found
            self.reserver.forget()
        self._calico = found

    def _reload(self) -> None:
        found = settings.reload(self.store.config(), self.live)
        if found.problems != self._problems:
            for problem in found.problems:
                log.error("%s", problem)
        if found.live != self.live:
            log.info("settings reloaded: %s", found.live)
        self.live, self._problems = found.live, found.problems

    def _certificates(self) -> None:
        self._uninstalled = (self._armed or self._uninstalled) and not install.is_installed(self.kube)
        if self._uninstalled:
            # Nobody calls, and what a purge removes must not come back.
            return
        names = install.server_names(self.options.namespace, self.options.url)
        served = certs.keep(self.kube, self.options.namespace, names)
        self.metrics.certificate.set(served.expires.timestamp())
        if self._served is None or served.pair != self._served.pair:
            # OpenSSL takes the certificate first and its key then; a connection that came between the two would be
            # dropped. So the loop does it, which accepts them.
            if self._loop is None:
                self._use(served.pair)
            else:
                asyncio.run_coroutine_threadsafe(self._used(served.pair), self._loop).result(USE_SECONDS)
            log.info("certificate in use until %s", served.expires.isoformat())
        self._served = served

    def _use(self, pair: certs.Pair) -> None:
        """New connections get it; those that are open go on."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(pair.certificate + pair.key)
            file.flush()
            self._context.load_cert_chain(file.name)

    async def _used(self, pair: certs.Pair) -> None:
        self._use(pair)

    def _probe(self) -> None:
        """Whether all can be written that may have to be, by dry runs. It makes nothing: the first claim does.

        Each time one address more in the first reservation; from time to time both objects of one shard after the
        other, as large as they are; at once, and until it works, of one that could not be written when it was needed.
        """
        first = self.store.read_barred(0)
        try:
            self.reserver.shards = self.store.shards() or 1
            self.store.write_barred(first, first.addresses | {PROBE}, dry_run=True)
        except errors.Conflict:
            # Somebody else writes it this moment: so it can be written.
            pass
        failing = self.reserver.failing()
        if failing or time.monotonic() - self._tried >= PROBE_SECONDS:
            for index in failing or [self._turn % self.reserver.shards]:
                with contextlib.suppress(errors.Conflict):
                    self.store.try_writing(index)
            self._turn, self._tried = self._turn + 1, time.monotonic()
        self._told("")

    def _told(self, problem: str, *, alone: bool = False) -> None:
        """The outcome of a look. What fails is tried again at the next one."""
        if problem != self._problem:
            log.log(logging.ERROR if problem else logging.INFO, f"cannot write: {problem}" if problem else "can write")
        if problem:
            self._probing.failed()
            self._tried = -PROBE_SECONDS
        else:
            self._probing.worked()
            self._could_write = True
        self._problem, self._alone = problem, alone
        self.metrics.ready.set(0 if problem else 1)

    def readiness(self) -> tuple[bool, str]:
        """Whether the API server shall ask this replica, and what cannot be written.

        One that never could write, or does not reach the API server, leaves the others to answer. But not for ever, and
        what the API server refuses it refuses to all: somebody has to say "try again", and later to let go.
        """
        mine = self._alone or not self._could_write
        looked = self._probing.is_failing()
        patience = not looked or self._probing.seconds() < self.options.deny
        return not self._problem or not (mine and patience), self._problem

    def _arm(self) -> None:
        """Make the API server ask, and believe what is served now.

        What cannot be written is no reason to be asked; but who is asked already has to be believed, or each answer
        would be a failed call instead of "try again".
        """
        if self._served is None:
            return
        there = install.arm(
            self.kube, namespace=self.options.namespace, live=self.live, bundle=self._served.bundle,
            word=self._served.words[0], trust_only=bool(self._problem),
        )  # fmt: skip
        if there != self._armed:
            log.info(
                "webhook configuration %s", "in place" if there else "is not installed: nothing calls this service"
            )
        self._armed = there

    # --- answers ----------------------------------------------------------------------------------------------------

    async def on_review(self, request: web.BaseRequest) -> web.Response:
        """POST /review."""
        began = time.perf_counter()
        path = "malformed"
        try:
            asked = review.parse(await request.read())
            path = asked.path
            answer, outcome = await self._answer(asked)
        except BadReview as error:
            log.error("an AdmissionReview was refused: %s", error)
            self.metrics.decisions.labels(path, "malformed").inc()
            return web.Response(status=400, text=f"{error}\n")
        self.metrics.decisions.labels(path, outcome).inc()
        self.metrics.seconds.labels(path).observe(time.perf_counter() - began)
        return _json(answer)

    async def _answer(self, asked: review.Request) -> tuple[dict[str, object], str]:
        decision = review.decide(asked, at=self.kube.clock.now(), pods=self.live.pods)
        until = time.monotonic() + (self.options.deadline if asked.must else min(self.options.deadline, SHORT_DEADLINE))
        if isinstance(decision, Reserve) and self.reserver.knows(decision.claims):
            return review.allowed(asked.uid), "known"
        if not isinstance(decision, Allow):
            try:
                decision = await self._verified(decision, until)
            except errors.IpreserveError as error:
                self._looking.failed()
                addresses = len(decision.claims) if isinstance(decision, Reserve) else 1
                return self._cannot(asked, str(error), addresses, failing=self._looking.seconds())
        if isinstance(decision, Allow):
            return review.allowed(asked.uid), decision.reason.replace(" ", "_")
        return await self._reserve(asked, decision, until)

    async def _verified(self, asked: Ask | Reserve, until: float) -> Allow | Reserve:
        """What the API server itself has of what a request says: nobody knows who sent it.

        Claims are those of the pod as the API server has it, its policies included. What has been seen of the pod
        suffices if it says the same; else the pod is read, since what was seen may be old. What it does not have, or
        is not protected, is allowed without a claim. Raises IpreserveError.
        """
        if isinstance(asked, Ask):
            namespace, name, via, at = asked.namespace, asked.name, "evict", self.kube.clock.now()
        else:
            first = asked.claims[0]
            namespace, name, via, at = first.namespace, first.pod, first.via, first.at
        if NAME.fullmatch(namespace) is None or NAME.fullmatch(name) is None:
            return Allow("not there")
        space = await self._policies_of(namespace, until)
        if space is None:
            return Allow("not protected")
        if isinstance(asked, Reserve):
            seen = self._pods.row(asked.claims[0].uid) or ()
            if all(replace(one, via="", at=0.0) in seen for one in asked.claims):
                return replace(asked, claims=tuple(replace(one, space=space) for one in asked.claims))
        pod = await self._read(f"/api/v1/namespaces/{namespace}/pods/{name}", until)
        if pod is None:
            return Allow("gone")
        found = tuple(replace(one, space=space) for one in review.claims(pod, via=via, at=at, pods=self.live.pods))
        if isinstance(asked, Ask):
            return review.reserve(pod, found)
        wanted = {(one.uid, one.address) for one in asked.claims}
        found = tuple(one for one in found if (one.uid, one.address) in wanted)
        return review.reserve(pod, found) if found else Allow("not there")

    def _claimable(self, pod: kube.JsonObject) -> tuple[Claim, ...] | None:
        """What may be claimed of a pod, without time and path; None where there is nothing. Raises BadReview."""
        return review.claims(pod, via="", at=0.0, pods=self.live.pods) or None

    async def _policies_of(self, namespace: str, until: float) -> dict[str, str] | None:
        """The policies of a namespace that bears the labels that protect; None of one that does not.

        What is found is remembered for a minute, that it is not protected is not.
        """
        selector, now = self.live.namespaces, time.monotonic()
        by, at, policies = self._protected.get(namespace, (None, 0.0, {}))
        if by == selector and now - at < PROTECTED_SECONDS:
            return policies
        space = await self._read(f"/api/v1/namespaces/{namespace}", until)
        if space is None or not selector.matches(space["metadata"].get("labels") or {}):
            return None
        policies = review.policies(space["metadata"])
        self._protected[namespace] = selector, now, policies
        return policies

    async def _read(self, path: str, until: float) -> kube.JsonObject | None:
        """An object as the API server has it; None when it is not there. Raises ApiError, Unreachable."""
        loop = asyncio.get_running_loop()
        try:
            # All threads may be waiting for an API server that says nothing.
            async with asyncio.timeout(max(0.05, until - time.monotonic())):
                found = await loop.run_in_executor(self._looks, lambda: self.kube.get(path, timeout=LOOK_SECONDS))
        except errors.NotFound:
            found = None
        except TimeoutError as error:
            raise errors.Unreachable(LATE) from error
        self._looking.worked()
        return found

    async def _reserve(self, asked: review.Request, decision: Reserve, until: float) -> tuple[dict[str, object], str]:
        claims, warnings = decision.claims, decision.warnings
        left = max(0.05, until - time.monotonic())
        futures = self.reserver.reserve(claims, seconds=left)
        if not futures:
            return review.allowed(asked.uid, warnings=warnings), "known"
        for problem in warnings:
            log.warning("%s/%s: %s", claims[0].namespace, claims[0].pod, problem)
        failed = await _outcome(futures, left)
        if failed is None:
            return review.allowed(asked.uid, warnings=warnings), "reserved"
        return self._cannot(asked, failed, len(claims), failing=self.reserver.failing_seconds(claims))

    def _cannot(
        self, asked: review.Request, problem: str, addresses: int, *, failing: float
    ) -> tuple[dict[str, object], str]:
        """The stated policy for "cannot record": refuse for some time, with a hint to try again; then let go.

        What kubelet and the controllers report of a pod is never refused: they would say the same again and again.
        `failing` is for how many seconds what this pod needs has failed.
        """
        if asked.must and failing < self.options.deny:
            message = f"ipreserve could not reserve the pod's address yet ({problem}). Try again."
            return review.try_later(asked.uid, message, seconds=RETRY_HINT_SECONDS), "refused"
        log.error("%s/%s goes without a hold: %s", asked.namespace, asked.name, problem)
        self.metrics.unprotected.inc(addresses)
        warning = f"ipreserve could not reserve the pod's address: {problem[:120]}"
        return review.allowed(asked.uid, warnings=[warning]), "unprotected"

    async def on_give_back(self, request: web.BaseRequest) -> web.Response:
        """POST /give-back-WORD: the held address of the same pod, if Calico will take it."""
        try:
            asked = review.parse(await request.read())
            wanted = review.wants_back(asked)
        except BadReview as error:
            log.error("an AdmissionReview for giving back was refused: %s", error)
            self.metrics.decisions.labels("give-back", "malformed").inc()
            return web.Response(status=400, text=f"{error}\n")
        found: tuple[Address, ...] = ()
        if wanted is not None and self.options.give_back and not asked.dry_run:
            named = review.pools_asked_for(asked.object or {})
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(SHORT_DEADLINE):
                    found = await loop.run_in_executor(self._give_backs, self._held_by, *wanted, named)
            except errors.IpreserveError as error:
                log.warning("give-back: %s", error)
            except TimeoutError:
                log.warning("give-back: %s", LATE)
        self.metrics.decisions.labels("give-back", "given" if found else "nothing").inc()
        return _json(review.allowed(asked.uid, patch=review.patch_for(found) if found else None))

    def _held_by(self, namespace: str, pod: str, named: Sequence[Named]) -> tuple[Address, ...]:
        """Free addresses that are held for this pod, one of each IP version that it had; none where Calico would refuse
        one of them, or would have given another: a pod that cannot start is worse than one with a new address.

        Borrowing must be allowed, since the node is not known yet; and Calico's own cooldown bars its owner as well.
        The last of its name was deleted a moment ago, so a sweep has rarely seen that: whether an address is free is
        what its block says. Where blocks cannot be read it is what a sweep has found.
        """
        calico = self.calico()
        strict, cooldown = kube.ipam_settings(self.kube, calico)
        path = kube.ipam_path(self.kube, calico, "ippools")
        if strict or cooldown or path is None:
            return ()
        held = sorted(
            (record.freed or record.last, one, record)
            for shard in self.store.all_kept().values()
            for one, record in shard.ledger.records.items()
            if (record.namespace, record.pod) == (namespace, pod) and record.state is not State.RELEASING
        )
        last = [(one, record) for _, one, record in held if record.uid == held[-1][2].uid]
        newest: dict[bool, Address] = {":" in one: one for one, _ in last}
        # What another pod took by name meanwhile is not free, whatever its record says.
        if not newest or any(record.swapped for _, record in last):
            return ()
        if len(newest) == 1 and any(record.dual for _, record in last):
            return ()
        pools = ranges(self.kube.list(path)[0])
        if not all(is_given(one, pools, named) for one in newest.values()):
            return ()
        states = {one: record.state for one, record in last}
        if not all(self._is_free(one, pools, states[one]) for one in newest.values()):
            return ()
        return tuple(newest[family] for family in sorted(newest))

    def _is_free(self, one: Address, pools: Sequence[Range], state: State) -> bool:
        """Whether nobody has an address of one of these pools, by its block. Raises ApiError, Unreachable."""
        path = kube.ipam_path(self.kube, self.calico(), "ipamblocks")
        if path is None:
            return state is State.FREED
        network = records.network(one)
        of = next(pool for pool in pools if not pool.disabled and network.overlaps(records.network(pool.cidr)))
        cidr = network.supernet(new_prefix=of.block)
        name = str(cidr).translate(dict.fromkeys(map(ord, ".:/"), "-"))
        try:
            block = block_row(self.kube.get(f"{path}/{name}"))
        except errors.NotFound:
            # Nobody has claimed it.
            return True
        return block is not None and one not in block.allocated

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        match request.method, request.path:
            case "POST", "/review":
                return await self.on_review(request)
            case "POST", path if path.startswith(install.GIVE_BACK_PATH):
                if self._is_from_api_server(path):
                    return await self.on_give_back(request)
                self.metrics.decisions.labels("give-back", "stranger").inc()
                return web.Response(status=403, text="only for the API server: the path is not what it was told\n")
            case "GET", "/healthz":
                return web.Response(text="ok\n")
            case "GET", "/readyz":
                ready, problem = self.readiness()
                text = f"cannot write: {problem}\n" if problem else "ok\n"
                return web.Response(status=200 if ready else 503, text=text)
            case _, path if path == "/review" or path.startswith(install.GIVE_BACK_PATH):
                return web.Response(status=405, text="POST is needed\n", headers={"Allow": "POST"})
        return web.Response(status=404, text="POST /review, GET /healthz, GET /readyz\n")

    def _is_from_api_server(self, path: str) -> bool:
        """Whether a path for giving back has the word that the webhook configuration says."""
        words = self._served.words if self._served is not None else ()
        said = path.removeprefix(f"{install.GIVE_BACK_PATH}-").encode(errors="replace")
        return any(hmac.compare_digest(said, word.encode()) for word in words)

    @staticmethod
    def _request(
        message: RawRequestMessage, payload: StreamReader, protocol: RequestHandler,
        writer: AbstractStreamWriter, task: asyncio.Task[None],
    ) -> web.BaseRequest:  # fmt: skip
        """As aiohttp makes it, with a limit that fits the API server's objects."""
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MOST_BODY)

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Serve; returns when the port is open. Raises ApiError when the certificates cannot be made."""
        loop = asyncio.get_running_loop()
        while self._served is None:
            try:
                await loop.run_in_executor(None, self._certificates)
            except errors.IpreserveError as error:
                if not error.may_pass:
                    raise
                log.warning("certificates: %s", error)
                await asyncio.sleep(1)
        # Three fixed paths need no router: it would be a fifth of what an answer costs.
        server = web.Server(
            self._dispatch, request_factory=self._request, access_log=None, keepalive_timeout=KEEP_ALIVE_SECONDS
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=5.0)
        await self._runner.setup()
        host, port = self.options.listen
        self._loop = loop
        await web.TCPSite(self._runner, host, port, ssl_context=self._context, backlog=1024).start()
        log.info("serving on %s:%d", host, port)
        threading.Thread(target=self._keep_on, name="keep", daemon=True).start()
        self._evictions.start()
        self._pods.start()

    def _keep_on(self) -> None:
        while not self._stop.is_set():
            try:
                self.keep()
            except Exception:
                # This thread must live: readiness and certificates hang on it.
                log.exception("keeping up failed")
            self._stop.wait(KEEP_SECONDS)

    async def stop(self) -> None:
        """Answer what is open, then end."""
        self._stop.set()
        self._evictions.stop()
        if self._runner is not None:
            await self._runner.cleanup()
        await asyncio.get_running_loop().run_in_executor(None, self._pods.stop)


def is_given(one: Address, pools: Sequence[Range], named: Sequence[Named]) -> bool:
    """Whether Calico may give a pod this address on any node: of a pool that is there and in use, that is one of those
    the pod names, if it names some, and else for all pods and all nodes."""
    wanted = {text for version, text in named if version == (6 if ":" in one else 4)}
    number = ipaddress.ip_address(one)
    of = next((pool for pool in pools if not pool.disabled and number in records.network(pool.cidr)), None)
    if of is None:
        return False
    if wanted:
        return of.name in wanted or of.cidr in wanted
    return not of.by_request and of.nodes.strip() in ("", ALL)


def _json(answer: dict[str, object]) -> web.Response:
    return web.Response(body=orjson.dumps(answer), content_type="application/json")


async def _outcome(futures: Sequence[Future[None]], seconds: float) -> str | None:
    """None when all are done in time, else why not. What comes later is read, so that nobody complains."""
    waiting = [asyncio.wrap_future(one) for one in futures]
    done, pending = await asyncio.wait(waiting, timeout=seconds)
    for one in pending:
        one.add_done_callback(lambda late: late.cancelled() or late.exception())
    for one in done:
        if (error := one.exception()) is not None:
            return str(error)
    return LATE if pending else None


async def _run(options: settings.Settings) -> None:
    webhook = Webhook(options, kube.connect(options.kubeconfig, pool=48))
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if options.metrics is not None:
        serve(options.metrics, webhook.metrics.registry, lambda: True)
    await webhook.start()
    with contextlib.suppress(asyncio.CancelledError):
        await ended.wait()
    log.info("ending")
    await webhook.stop()


def main(options: settings.Settings) -> int:
    """Serve until SIGTERM."""
    log.info("ipreserve webhook: %s", options.shown())
    # The event loop and the writers share one interpreter, and whoever waits for it gets it after this long. With
    # Python's own 5 ms, a writer among hundreds of handshakes waits that long for each piece of an answer it reads.
    sys.setswitchinterval(SWITCH_SECONDS)
    # Much of an answer is the handshake of a new connection, and asyncio does TLS in Python.
    uvloop.run(_run(options))
    return 0
