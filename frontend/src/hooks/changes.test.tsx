import { act, screen } from "@testing-library/react";
import { afterEach, expect, test, vi } from "vitest";

import { cluster, openPage, page } from "../test/portal";

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
