import { screen, within } from "@testing-library/react";
import { expect, test } from "vitest";

import type { Alert, Monitoring } from "../../api/types";
import { type Answers, cluster, openPage, page, problem, redis } from "../../test/portal";

const ONE = "/tenants/demo/clusters/orders";
const ready: Answers = { "GET /engines": page(redis), [`GET ${ONE}`]: () => ({ body: cluster() }) };
const down: Alert = {
  id: "f1", name: "RedisNodeDown", severity: "critical", state: "firing", since: "2026-01-01T00:00:00Z",
  summary: "orders-s0-0 is down.", description: "Read its log.", runbook: "https://books.example.com/redis#down", labels: {},
};

function alerts(...items: Alert[]): Answers {
  return { [`GET ${ONE}/alerts`]: () => ({ body: { configured: true, remedy: "", items, next: null } }) };
}

async function card() {
  return within(await screen.findByRole("region", { name: "Alerts and metrics" }));
}

test("what fires is shown with what to do, and silenced alerts as such", async () => {
  const known: Alert = { ...down, id: "f2", name: "Other", state: "silenced", summary: "", runbook: "docs/redis.md#other" };
  openPage("/t/demo/clusters/orders", { ...ready, ...alerts(down, known) });
  const shown = await card();
  expect(await shown.findByText("orders-s0-0 is down.")).toBeVisible();
  expect(shown.getAllByText("Read its log.")[0]).toBeVisible();
  expect(shown.getByRole("link", { name: "What to do" })).toHaveAttribute("href", down.runbook);
  const quiet = within(shown.getAllByRole("listitem")[1] ?? shown.getByText("Other"));
  expect(quiet.getByText(/Silenced/)).toBeVisible();
  expect(quiet.getByText("Other")).toBeVisible();
  expect(quiet.getByText("docs/redis.md#other")).toBeVisible();
});

test("a rule's link is followed only to the web", async () => {
  openPage("/t/demo/clusters/orders", { ...ready, ...alerts({ ...down, runbook: "javascript:alert(1)" }) });
  const shown = await card();
  expect(await shown.findByText("javascript:alert(1)")).toBeVisible();
  expect(shown.queryByRole("link")).not.toBeInTheDocument();
});

test("that nothing fires and that nobody watches are not the same", async () => {
  openPage("/t/demo/clusters/orders", { ...ready, ...alerts() });
  expect(await (await card()).findByText("No alert fires.")).toBeVisible();
});

test("without monitoring the page says so, and what an administrator does", async () => {
  const body = { configured: false, remedy: "Set BERTH_ALERTMANAGER_URL.", items: [], next: null };
  openPage("/t/demo/clusters/orders", { ...ready, [`GET ${ONE}/alerts`]: () => ({ body }) });
  const shown = await card();
  expect(await shown.findByText(/No monitoring is configured/)).toBeVisible();
  expect(shown.getByText("Set BERTH_ALERTMANAGER_URL.")).toBeVisible();
  expect(shown.queryByText("No alert fires.")).not.toBeInTheDocument();
});

test("an Alertmanager that does not answer is told, and asked again on demand", async () => {
  const answer = problem(503, "monitoring_unreachable", "Alertmanager does not answer.");
  openPage("/t/demo/clusters/orders", { ...ready, [`GET ${ONE}/alerts`]: () => answer });
  expect(await (await card()).findByText("Alertmanager does not answer.", undefined, { timeout: 8000 })).toBeVisible();
}, 10_000);

test("the dashboard and the addresses of metrics are there", async () => {
  const body: Monitoring = {
    metrics: [{ pod: "orders-s0-0", host: "orders-s0-0.orders-nodes", port: 9121, shard: "0" }], labels: {},
    dashboard: "https://graphs.example.com/d/berth-redis?var-cluster=orders", alerting: true,
  };
  openPage("/t/demo/clusters/orders", { ...ready, [`GET ${ONE}/monitoring`]: () => ({ body }) });
  const shown = await card();
  expect(await shown.findByRole("link", { name: "Dashboard in Grafana" })).toHaveAttribute("href", body.dashboard);
  expect(shown.getByText("Addresses of metrics (1)")).toBeVisible();
  expect(shown.getByText("http://orders-s0-0.orders-nodes:9121/metrics")).toBeInTheDocument();
});
