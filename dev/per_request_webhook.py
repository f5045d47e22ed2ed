"""What `dev.bench_ipreserve` compares with: a webhook that patches one shared pair of objects for every request.

The same admission, the same two objects, the same rule "barred before allowed", without ipreserve's group commit: each
request adds its address to one ConfigMap by a merge patch and to one IPReservation by a JSON patch, and begins anew
after a conflict. It is made as good as this way can be, better than the service it stands for: no limit of requests per
second on its client, as many connections as it likes, an asynchronous server, new attempts until shortly before the
webhook's timeout, and the administrator's certificate, which the API server's queues let pass.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import ssl
import time
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from ipreserve import kube, records, review
from ipreserve.records import Claim

NAME = "one-pair"
# Below the webhook's timeout of 10 s, so that it is this one who says no.
DEADLINE_SECONDS = 9.0


class Refused(Exception):
    """A claim could not be written in time; the message is the last answer."""


class PerRequest:
    """One replica. Paths are those of the two shared objects."""

    def __init__(self, door: kube.Kube, client: aiohttp.ClientSession, *, configmap: str, reservation: str) -> None:
        self._server, self._client = door.server, client
        self._configmap, self._reservation = configmap, reservation

    async def on_review(self, request: web.Request) -> web.Response:
        """POST /review."""
        asked = review.parse(await request.read())
        decision = review.decide(asked, at=time.time())
        if not isinstance(decision, review.Reserve):
            return web.json_response(review.allowed(asked.uid))
        until = time.monotonic() + DEADLINE_SECONDS
        try:
            for claim in decision.claims:
                await self._reserve(claim, until)
        except Refused as error:
            return web.json_response(review.try_later(asked.uid, str(error), seconds=5))
        return web.json_response(review.allowed(asked.uid))

    async def _reserve(self, claim: Claim, until: float) -> None:
        record = records.legacy(records.claimed(claim, before=None, seq=0))
        data = {"data": {records.key(claim.address): record}}
        await self._patch(self._configmap, "application/merge-patch+json", data, until)
        add = [{"op": "add", "path": "/spec/reservedCIDRs/-", "value": records.canonical(claim.address)}]
        await self._patch(self._reservation, "application/json-patch+json", add, until)

    async def _patch(self, path: str, kind: str, body: Any, until: float) -> None:
        pause, said = 0.01, "no answer"
        while (left := until - time.monotonic()) > 0:
            limit = aiohttp.ClientTimeout(total=left)
            try:
                async with self._client.patch(
                    self._server + path, json=body, headers={"Content-Type": kind}, timeout=limit
                ) as answer:
                    await answer.read()
                    if answer.status < 400:
                        return
                    said = f"{answer.status}"
            except (aiohttp.ClientError, TimeoutError) as error:
                said = type(error).__name__
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, 0.2)
        raise Refused(f"PATCH {path}: {said}")


async def serve(kubeconfig: Path, port: int, certificate: Path, configmap: str, reservation: str) -> None:
    """Serve on 127.0.0.1 until cancelled."""
    door = kube.connect(kubeconfig)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.num_tickets = 0
    connector = aiohttp.TCPConnector(limit=0, ssl=door.context)
    async with aiohttp.ClientSession(connector=connector) as client:
        service = PerRequest(door, client, configmap=configmap, reservation=reservation)
        app = web.Application(client_max_size=4 << 20)
        app.add_routes([web.post("/review", service.on_review)])
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=120.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context, backlog=1024).start()
        await asyncio.Event().wait()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m dev.per_request_webhook", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate", type=Path, required=True, help="certificate and key, PEM, in one file")
    parser.add_argument("--configmap", default=f"/api/v1/namespaces/ip-reserve/configmaps/{NAME}")
    parser.add_argument("--reservation", default=f"/apis/crd.projectcalico.org/v1/ipreservations/{NAME}")
    given = parser.parse_args()
    asyncio.run(serve(given.kubeconfig, given.port, given.certificate, given.configmap, given.reservation))


if __name__ == "__main__":
    main()
