"""What Prometheus reads. One registry a process, so that tests and both services can live in one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0)


class WebhookMetrics:
    """Decisions of the admission webhook."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.decisions = Counter(
            "ipreserve_admission_decisions_total", "Answers, by path and outcome.", ["path", "outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "ipreserve_admission_seconds", "Time to an answer.", ["path"], buckets=LATENCIES, registry=self.registry
        )
        self.unprotected = Counter(
            "ipreserve_unprotected_total", "Addresses let go without a hold, since nothing could be recorded.",
            registry=self.registry,
        )  # fmt: skip
        self.commits = Counter("ipreserve_commits_total", "Group commits.", ["outcome"], registry=self.registry)
        self.batch = Histogram(
            "ipreserve_commit_addresses", "Addresses in one commit.", buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500),
            registry=self.registry,
        )  # fmt: skip
        self.conflicts = Counter("ipreserve_commit_conflicts_total", "Rebased commits.", registry=self.registry)
        self.quarantined = Counter(
            "ipreserve_quarantined_total", "Unreadable records that a commit found and kept for people.",
            registry=self.registry,
        )  # fmt: skip
        self.ready = Gauge("ipreserve_webhook_ready", "Whether all can be written.", registry=self.registry)
        self.certificate = Gauge(
            "ipreserve_certificate_expiry_seconds", "When the certificate ends, since 1970.", registry=self.registry
        )


class SweeperMetrics:
    """What the leading sweeper sees and does; the others show only that they do not lead."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.leading = Gauge("ipreserve_leading", "Whether this replica sweeps.", registry=self.registry)
        self.sweeps = Counter("ipreserve_sweeps_total", "Sweeps, by outcome.", ["outcome"], registry=self.registry)
        self.seconds = Histogram(
            "ipreserve_sweep_seconds", "Duration of a sweep.", buckets=LATENCIES, registry=self.registry
        )
        self.last = Gauge("ipreserve_last_sweep_timestamp_seconds", "Last full sweep.", registry=self.registry)
        self.addresses = Gauge("ipreserve_addresses", "Barred addresses, by state.", ["state"], registry=self.registry)
        self.held = Gauge("ipreserve_held_addresses", "Addresses at rest: free and barred.", registry=self.registry)
        self.limit = Gauge("ipreserve_held_limit", "The most that may rest.", registry=self.registry)
        self.oldest = Gauge("ipreserve_oldest_hold_seconds", "Age of the oldest hold.", registry=self.registry)
        self.released = Counter(
            "ipreserve_released_total", "Ended holds, by reason.", ["reason"], registry=self.registry
        )
        self.repaired = Counter(
            "ipreserve_repaired_total", "Divergence found and mended: protected again, adopted, moved, rewritten.",
            ["kind"], registry=self.registry,
        )  # fmt: skip
        self.quarantined = Gauge(
            "ipreserve_quarantined_records", "Unreadable records kept for people.", registry=self.registry
        )
        self.foreign = Gauge("ipreserve_foreign_ranges", "Large ranges added by hand.", registry=self.registry)
        self.swaps_observed = Counter(
            "ipreserve_swaps_observed_total", "Addresses that went from one workload to another within the hold.",
            ["protected"], registry=self.registry,
        )  # fmt: skip
        for word in ("yes", "no"):
            # There at zero from the start: a series that appears with 1 has no increase, and nobody would be alerted.
            self.swaps_observed.labels(word)
        self.swaps_prevented = Counter(
            "ipreserve_swaps_prevented_total", "Held addresses that Calico passed over for somebody else's pod.",
            registry=self.registry,
        )  # fmt: skip
        self.shortage = Gauge(
            "ipreserve_shortage_addresses", "Addresses a pool or node lacked in the last sweep.", ["place"],
            registry=self.registry,
        )  # fmt: skip
        self.clock_jumps = Counter(
            "ipreserve_clock_jumps_total", "Jumps of the server's clock.", registry=self.registry
        )
        self.clock_doubted = Gauge(
            "ipreserve_clock_doubted", "Whether the server's clock says a time that is not believed yet.",
            registry=self.registry,
        )  # fmt: skip
        self.ipam = Gauge("ipreserve_ipam_readable", "Whether Calico's blocks can be read.", registry=self.registry)
        self.cooldown = Gauge(
            "ipreserve_native_cooldown_seconds", "Calico's ipCooldownSeconds.", registry=self.registry
        )
        self.errors = Counter(
            "ipreserve_sweep_item_errors_total", "Items that failed while the sweep went on.", registry=self.registry
        )

    def not_leading(self) -> None:
        """Another replica sweeps: what this one saw last must not stay behind, in an alert or a sum."""
        for gauge in (
            self.leading, self.held, self.limit, self.oldest, self.quarantined, self.foreign, self.clock_doubted
        ):  # fmt: skip
            gauge.set(0)
        self.addresses.clear()
        self.shortage.clear()


def serve(address: tuple[str, int], registry: CollectorRegistry, healthy: Callable[[], bool]) -> ThreadingHTTPServer:
    """`/metrics` and `/healthz` over plain HTTP, in a thread. Raises OSError when the port is taken."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/metrics"):
                self._answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
            elif self.path.startswith("/healthz"):
                fine = healthy()
                self._answer(200 if fine else 503, b"ok\n" if fine else b"no sweep lately\n", "text/plain")
            else:
                self._answer(404, b"/metrics and /healthz are here\n", "text/plain")

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Scrapes are not news."""

    server = ThreadingHTTPServer(address, Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
