import { screen, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { expect, test } from "vitest";

import type { Rehearsal } from "../../api/types";
import { type Answer, type Answers, cluster, openPage, operation, page, problem, redis, sandbox } from "../../test/portal";
import { patchOf } from "./change";

const ADDRESS = "/t/demo/clusters/orders";
const ONE = "/tenants/demo/clusters/orders";
const SPEC = { shards: 3, memoryGiB: 1, storageClass: "standard", config: { "maxmemory-policy": "noeviction", "hz": "20" } };
const before = cluster({ spec: SPEC });

function rehearsal(more: Partial<Rehearsal> = {}): Rehearsal {
  return {
    dry_run: true,
    cluster: { name: "orders", engine: "redis", version: "7.0", plan: null, target: "sandbox", spec: SPEC, labels: {}, description: "" },
    operation: { kind: "update", steps: [], estimate: null },
    quota: [{ resource: "pods", target: null, unit: "", limit: 20, before: 6, after: 8 }],
    effects: [{ effect: "move", message: "Shards: 3 becomes 4. Slots move to the new shard.", pointer: "/spec/shards", before: 3, after: 4 }],
    target: { asked: true, namespace_exists: true, takes_it: true, problem: null },
    objects: [],
    ...more,
  };
}

const accepted: Answer = {
  status: 202,
  body: { operation: operation({ id: "op_2", kind: "update" }), cluster: cluster({ phase: "updating", spec: SPEC }) },
};

/** The cluster's page; a PATCH is answered as a rehearsal or as the change, as it asks for. */
function answers(tried: () => Answer, changed: () => Answer = () => accepted): Answers {
  return {
    "GET /engines": page(redis),
    "GET /targets": page(sandbox),
    [`GET ${ONE}`]: () => ({ body: before }),
    [`PATCH ${ONE}`]: ({ query }) => (query.get("dry_run") === "true" ? tried() : changed()),
    "GET /operations/op_2": () => new Promise<Answer>(() => undefined),
  };
}

async function openForm(): Promise<HTMLElement> {
  await userEvent.click(await screen.findByRole("button", { name: "Change…" }));
  return screen.getByRole("form", { name: "Change orders" });
}

async function setShards(form: HTMLElement, value: string): Promise<void> {
  const shards = within(form).getByLabelText("Shards");
  await userEvent.clear(shards);
  await userEvent.type(shards, value);
}

test("what a change does is shown before it is sent, and then sent with the revision that was seen", async () => {
  const calls = openPage(ADDRESS, answers(() => ({ body: rehearsal() })));
  const form = await openForm();
  expect(within(form).getByText(/Change a value to see/)).toBeVisible();
  await setShards(form, "4");
  expect(await within(form).findByRole("listitem")).toHaveTextContent("Shards: 3 becomes 4. Slots move");
  expect(within(form).getByText(/Pods/)).toHaveTextContent("Pods 6 → 8");
  expect(calls.filter(({ method, query }) => method === "PATCH" && !query.has("dry_run"))).toEqual([]);
  await userEvent.click(within(form).getByRole("button", { name: "Change it" }));
  expect(await screen.findByRole("heading", { name: "Being changed" })).toBeVisible();
  const sent = calls.filter(({ method, query }) => method === "PATCH" && !query.has("dry_run"));
  expect(sent.map(({ body, headers }) => [body, headers.get("If-Match")])).toEqual([[{ spec: { shards: 4 } }, '"7"']]);
});

test("what can lose data is sent only with the name typed", async () => {
  const loss = rehearsal({
    effects: [{ effect: "loss", message: "Everything in memory is lost.", pointer: "/spec/shards", before: 3, after: 4 }],
  });
  const calls = openPage(ADDRESS, answers(() => ({ body: loss })));
  const form = await openForm();
  await setShards(form, "4");
  const name = await within(form).findByLabelText("This can lose data. Type orders to confirm");
  await userEvent.click(within(form).getByRole("button", { name: "Change it" }));
  expect(screen.getByRole("alert")).toHaveTextContent("Type the name exactly as written: orders.");
  await userEvent.type(name, "orders");
  await userEvent.click(within(form).getByRole("button", { name: "Change it" }));
  expect(await screen.findByRole("heading", { name: "Being changed" })).toBeVisible();
  const queries = calls.filter(({ method, query }) => method === "PATCH" && !query.has("dry_run")).map(({ query }) => query.toString());
  expect(queries).toEqual(["confirm=orders"]);
});

test("why a change is not possible is said while typing, and nothing is sent without a change", async () => {
  const refused = () => problem(409, "quota_exceeded", "It needs 2 more pods than the quota has.");
  const calls = openPage(ADDRESS, answers(refused));
  const form = await openForm();
  await userEvent.click(within(form).getByRole("button", { name: "Change it" }));
  expect(screen.getByRole("alert")).toHaveTextContent("Nothing is changed yet.");
  await setShards(form, "9");
  expect(await within(form).findByText("It needs 2 more pods than the quota has.")).toBeVisible();
  expect(calls.filter(({ method, query }) => method === "PATCH" && !query.has("dry_run"))).toEqual([]);
});

test("a refusal of the portal stands at its field", async () => {
  const errors = [{ pointer: "/spec/shards", code: "out_of_range", message: "Shards: too many for this target." }];
  openPage(ADDRESS, answers(() => ({ body: rehearsal() }), () => problem(422, "invalid", "Wrong.", { errors })));
  const form = await openForm();
  await setShards(form, "9");
  await userEvent.click(within(form).getByRole("button", { name: "Change it" }));
  expect(await screen.findByRole("link", { name: "Shards: too many for this target." })).toBeVisible();
  expect(within(form).getByLabelText("Shards")).toHaveAccessibleDescription(/too many for this target/);
});

test("entries taken out of a map are null in the patch, and what never changes is not in the form", async () => {
  const [config] = redis.fields.filter(({ key }) => key === "config");
  const raws = { config: [{ id: 0, key: "hz", value: "50" }] };
  expect(patchOf(before, config ? [config] : [], raws, sandbox)).toEqual({
    spec: { config: { "maxmemory-policy": null, "hz": "50" } }, faults: [],
  });
  openPage(ADDRESS, answers(() => ({ body: rehearsal() })));
  expect(within(await openForm()).queryByText("Storage class")).not.toBeInTheDocument();
});

test("a restart says what it does and how long it takes, and wants the name where it loses data", async () => {
  const effect = { effect: "loss", message: "Every pod that restarts loses its data.", pointer: "", before: null, after: null };
  const rehearsed = { ...rehearsal(), effects: [effect], operation: { kind: "restart", steps: [], estimate: { seconds: 60, based_on: 2 } } };
  const errors = [{ pointer: "?confirm", code: "confirm_name", message: "Type orders to confirm." }];
  const refused = problem(422, "invalid", "A restart loses what is in memory.", { errors });
  const calls = openPage(ADDRESS, {
    ...answers(() => accepted),
    [`POST ${ONE}/restart`]: ({ query }) =>
      query.has("dry_run") ? { body: rehearsed } : query.get("confirm") === "orders" ? accepted : refused,
  });
  await userEvent.click(await screen.findByRole("button", { name: "Restart…" }));
  expect(await screen.findByText("Every pod that restarts loses its data.")).toBeVisible();
  expect(screen.getByText(/Takes about .*, as the last 2 like it did/)).toBeVisible();
  await userEvent.click(screen.getByRole("button", { name: "Restart" }));
  await userEvent.type(await screen.findByLabelText("This can lose data. Type orders to confirm"), "orders");
  await userEvent.click(screen.getByRole("button", { name: "Restart" }));
  expect(await screen.findByRole("heading", { name: "Being changed" })).toBeVisible();
  const sent = calls.filter(({ method }) => method === "POST").map(({ query }) => query.toString());
  expect(sent).toEqual(["dry_run=true", "", "confirm=orders"]);
});
