import { screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { expect, test } from "vitest";

import { type Answers, cluster, noNetwork, openPage, operation, page, problem, redis, sandbox, small } from "../../test/portal";

const CATALOGUE: Answers = { "GET /engines": page(redis), "GET /plans": page(small), "GET /targets": page(sandbox) };
const ADDRESS = "/t/demo/order?engine=redis&plan=small";
const POST = "POST /tenants/demo/clusters";

async function order(name: string) {
  const user = userEvent.setup();
  const input = await screen.findByLabelText("Name");
  await user.clear(input);
  await user.type(input, name);
  await user.click(screen.getByRole("button", { name: "Order" }));
  return user;
}

test("the form is drawn from the engine's fields, the plan's values filled in", async () => {
  openPage(ADDRESS, CATALOGUE);
  expect(await screen.findByRole("spinbutton", { name: /^Memory/ })).toHaveValue(1);
  expect(screen.getByRole("spinbutton", { name: "Shards" })).toHaveAccessibleDescription(/3 to 32.*data moves/);
  expect(screen.getByRole("combobox", { name: "Storage class" })).toHaveDisplayValue("The target's default (standard)");
  expect(screen.getByText("Advanced: Own configuration").closest("details")).not.toHaveAttribute("open");
});

test("faults are listed with the focus on the list, and nothing is sent", async () => {
  const calls = openPage(ADDRESS, CATALOGUE);
  await order("Not A Name");
  const summary = screen.getByRole("alert");
  expect(summary).toHaveFocus();
  expect(within(summary).getByRole("link")).toHaveTextContent("Use 1 to 30 lower-case letters");
  expect(screen.getByLabelText("Name")).toBeInvalid();
  expect(calls.filter(({ method, path }) => `${method} ${path}` === POST)).toEqual([]);
});

test("the portal's faults stand at their fields, folded ones are unfolded", async () => {
  const errors = [
    { pointer: "/spec/shards", code: "spread", message: "The target has 2 nodes." },
    { pointer: "/spec/config/port", code: "forbidden", message: "port is set by Berth." },
  ];
  openPage(ADDRESS, { ...CATALOGUE, [POST]: () => problem(422, "invalid", "Wrong.", { errors }) });
  await order("orders");
  const summary = await screen.findByRole("alert");
  expect(summary).toHaveTextContent("2 things need your attention");
  expect(summary).toHaveTextContent("Request req-1");
  expect(screen.getByRole("spinbutton", { name: "Shards" })).toHaveAccessibleDescription(/The target has 2 nodes/);
  expect(screen.getByRole("group", { name: "Own configuration" })).toHaveAccessibleDescription(/port is set by Berth/);
  expect(screen.getByText("Advanced: Own configuration").closest("details")).toHaveAttribute("open");
});

test("a refusal without fields shows detail, suggestion and request id", async () => {
  const refusal = problem(409, "quota_exceeded", "12 GiB asked, 4 left.", { suggestion: "Ask carol." });
  openPage(ADDRESS, { ...CATALOGUE, [POST]: () => refusal });
  await order("orders");
  const summary = await screen.findByRole("alert");
  expect(summary).toHaveTextContent("12 GiB asked, 4 left.");
  expect(summary).toHaveTextContent("Ask carol.");
  expect(summary).toHaveTextContent("Request req-1");
});

test("an order whose answer was lost is repeated under the same key, and leads to the cluster", async () => {
  let attempts = 0;
  const calls = openPage(ADDRESS, {
    ...CATALOGUE,
    [POST]: () => {
      attempts += 1;
      if (attempts === 1) noNetwork();
      return { status: 202, body: { operation: operation(), cluster: cluster({ phase: "pending", ready_at: null }) } };
    },
    "GET /tenants/demo/clusters/orders": () => ({ body: cluster({ phase: "pending", ready_at: null }) }),
    "GET /operations/op_1": () => new Promise(() => undefined),
  });
  await order("orders");
  expect(await screen.findByRole("heading", { name: /orders/ })).toBeVisible();
  const keys = calls.filter(({ method, path }) => `${method} ${path}` === POST).map(({ headers }) => headers.get("Idempotency-Key"));
  expect(keys).toHaveLength(2);
  expect(new Set(keys).size).toBe(1);
});

test("a changed order gets a fresh key", async () => {
  const calls = openPage(ADDRESS, { ...CATALOGUE, [POST]: () => problem(409, "name_taken", "Taken.") });
  await order("orders");
  await screen.findByRole("alert");
  await order("carts");
  const sent = () => calls.filter(({ method, path }) => `${method} ${path}` === POST);
  await waitFor(() => expect(sent()).toHaveLength(2));
  expect(new Set(sent().map(({ headers }) => headers.get("Idempotency-Key"))).size).toBe(2);
});

test("an order that can lose data is sent only with the name typed", async () => {
  const errors = [{ pointer: "?confirm", code: "confirm_name", message: "Without replicas the loss of a pod is an outage." }];
  const made = { status: 202, body: { operation: operation(), cluster: cluster({ phase: "pending", ready_at: null }) } };
  const calls = openPage(ADDRESS, {
    ...CATALOGUE,
    [POST]: ({ query }) => (query.get("confirm") === "orders" ? made : problem(422, "invalid", "An outage.", { errors })),
    "GET /tenants/demo/clusters/orders": () => ({ body: cluster({ phase: "pending", ready_at: null }) }),
    "GET /operations/op_1": () => new Promise(() => undefined),
  });
  await order("orders");
  const typed = await screen.findByLabelText("This can lose data. Type orders to confirm");
  expect(typed).toHaveAccessibleDescription(/Without replicas the loss of a pod is an outage/);
  await userEvent.type(typed, "orders");
  await userEvent.click(screen.getByRole("button", { name: "Order" }));
  expect(await screen.findByRole("heading", { name: /orders/ })).toBeVisible();
  const sent = calls.filter(({ method, path }) => `${method} ${path}` === POST);
  expect(sent.map(({ query }) => query.get("confirm"))).toEqual([null, "orders"]);
  expect(new Set(sent.map(({ headers }) => headers.get("Idempotency-Key"))).size).toBe(2);
});

test("a viewer cannot order and is told whom to ask", async () => {
  openPage(ADDRESS, { ...CATALOGUE, "GET /tenants": page({ slug: "demo", name: "Demo", role: "viewer", suspended: false, created: "" }) });
  expect(await screen.findByText(/Ask an owner of the tenant for the role developer/)).toBeVisible();
  expect(await screen.findByRole("button", { name: "Order" })).toBeDisabled();
});

test("an order like another starts from its values, wants a new name, and says what was left out", async () => {
  const original = {
    engine: "redis", plan: "small", version: redis.versions[0], target: "sandbox", description: "For tests.", labels: { team: "a" },
    spec: { ...cluster().spec, shards: 5 },
  };
  const leftOut = [{ pointer: "/version", message: "Redis 6 is no longer offered." }];
  const calls = openPage("/t/demo/order?like=orders", {
    ...CATALOGUE,
    "GET /tenants/demo/clusters/orders/order": () => ({ body: { order: original, left_out: leftOut } }),
    [POST]: () => problem(422, "invalid", "Wrong."),
  });
  expect(await screen.findByText(/Filled in like orders/)).toBeVisible();
  expect(screen.getByText("Redis 6 is no longer offered.")).toBeVisible();
  expect(await screen.findByRole("spinbutton", { name: "Shards" })).toHaveValue(5);
  expect(screen.getByLabelText("Name")).toHaveValue("");
  await order("more");
  await screen.findByRole("alert");
  const sent = calls.find(({ method, path }) => `${method} ${path}` === POST);
  expect(sent?.body).toMatchObject({
    name: "more", plan: "small", target: "sandbox", description: "For tests.", labels: { team: "a" }, spec: { shards: 5 },
  });
});
