import { act, screen } from "@testing-library/react";
import { afterEach, expect, test, vi } from "vitest";

import { alice, cluster, noNetwork, openPage, page } from "../test/portal";

/** A stream the test speaks into. */
class FakeStream extends EventTarget {
  static readonly CLOSED = 2;
  static opened: FakeStream[] = [];
  readyState = 1;
  onerror: (() => void) | null = null;
  constructor(readonly url: string) {
    super();
    FakeStream.opened.push(this);
  }
  close(): void {
    this.readyState = FakeStream.CLOSED;
  }
  say(kind: string, body: unknown): void {
    act(() => {
      this.dispatchEvent(new MessageEvent(kind, { data: JSON.stringify(body) }));
    });
  }
}

afterEach(() => {
  FakeStream.opened = [];
  vi.useRealTimers();
});

test("a change that the portal tells of is shown without waiting", async () => {
  vi.stubGlobal("EventSource", FakeStream);
  let phase: "ready" | "degraded" = "ready";
  openPage("/t/demo/clusters", { "GET /tenants/demo/clusters": () => page(cluster({ name: "orders", phase }))() });
  await screen.findByText("orders");
  const [stream] = FakeStream.opened;
  stream?.say("resync", {});
  phase = "degraded";
  stream?.say("cluster", { tenant: "demo", name: "orders" });
  expect(await screen.findByText("Degraded")).toBeVisible();
});

test("a refused stream is asked for again later", async () => {
  vi.stubGlobal("EventSource", FakeStream);
  openPage("/t/demo/clusters", { "GET /tenants/demo/clusters": page(cluster({ name: "orders" })) });
  await screen.findByText("orders");
  vi.useFakeTimers();
  const [stream] = FakeStream.opened;
  stream?.close();
  stream?.onerror?.();
  await act(() => vi.advanceTimersByTimeAsync(30_000));
  expect(FakeStream.opened).toHaveLength(2);
});

test("a stream that breaks has the portal asked at once, so that a lost connection is said", async () => {
  vi.stubGlobal("EventSource", FakeStream);
  let answers = true;
  openPage("/t/demo/clusters", {
    "GET /session": () => (answers ? { body: alice } : noNetwork()),
    "GET /tenants/demo/clusters": page(cluster({ name: "orders" })),
  });
  await screen.findByText("orders");
  const [stream] = FakeStream.opened;
  stream?.say("resync", {});
  answers = false;
  stream?.onerror?.();
  expect(await screen.findByText(/No connection to the portal/)).toBeVisible();
});

test("a browser that goes offline has the portal asked at once", async () => {
  vi.stubGlobal("EventSource", FakeStream);
  let answers = true;
  openPage("/t/demo/clusters", {
    "GET /session": () => (answers ? { body: alice } : noNetwork()),
    "GET /tenants/demo/clusters": page(cluster({ name: "orders" })),
  });
  await screen.findByText("orders");
  answers = false;
  window.dispatchEvent(new Event("offline"));
  expect(await screen.findByText(/No connection to the portal/)).toBeVisible();
});

test("a stream without a heartbeat is opened anew, one with heartbeats stays", async () => {
  vi.stubGlobal("EventSource", FakeStream);
  openPage("/t/demo/clusters", { "GET /tenants/demo/clusters": page(cluster({ name: "orders" })) });
  await screen.findByText("orders");
  vi.useFakeTimers();
  const [stream] = FakeStream.opened;
  stream?.say("resync", {});
  await act(() => vi.advanceTimersByTimeAsync(30_000));
  stream?.say("heartbeat", {});
  await act(() => vi.advanceTimersByTimeAsync(30_000));
  expect(FakeStream.opened).toHaveLength(1);
  await act(() => vi.advanceTimersByTimeAsync(15_000));
  expect(FakeStream.opened).toHaveLength(2);
  expect(stream?.readyState).toBe(FakeStream.CLOSED);
});
