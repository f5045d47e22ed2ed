import { screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { expect, test, vi } from "vitest";

import { type Answer, type Answers, cluster, demo, noNetwork, openPage, operation, page, problem, redis, step } from "../../test/portal";

const ADDRESS = "/t/demo/clusters/orders";
const ONE = "/tenants/demo/clusters/orders";
const ready: Answers = {
  "GET /engines": page(redis),
  [`GET ${ONE}`]: () => ({ body: cluster() }),
  [`GET ${ONE}/credentials`]: page({ name: "default", version: 1, secret_name: "s", secret_key: "password", created: "2026-01-01T00:00:00Z" }),
  [`GET ${ONE}/snippets`]: page({ language: "shell", title: "redis-cli", code: "redis-cli -a '{password}'" }),
  [`POST ${ONE}/credentials/default/reveal`]: () => ({ body: { name: "default", password: "pa$$word" } }),
};
const never = () => new Promise<Answer>(() => undefined);

function making(...polls: (() => Answer | Promise<Answer>)[]): Answers {
  const current = operation({ steps: [step("apply", { title: "Write the objects", state: "running", reason: "12 of 21" })] });
  return {
    "GET /engines": page(redis),
    [`GET ${ONE}`]: () => ({ body: cluster({ phase: "provisioning", ready_at: null, operation: current }) }),
    [`GET ${ONE}/operations`]: page(current),
    "GET /operations/op_1": () => (polls.shift() ?? never)(),
  };
}

const second = operation({
  revision: 2,
  steps: [
    step("apply", { title: "Write the objects", state: "done", started: "2026-01-01T00:00:00Z", ended: "2026-01-01T00:00:02Z" }),
    step("start", { title: "Start the containers", state: "running", reason: "4 of 6 run", object: "pod/orders-0" }),
  ],
});

test("steps appear as the long poll tells of them, with reason and object, and are announced", async () => {
  const calls = openPage(ADDRESS, making(() => ({ body: second })));
  const steps = await screen.findByRole("list", { name: "Steps" });
  expect(await within(steps).findByText("Start the containers")).toBeVisible();
  expect(within(steps).getByText("4 of 6 run")).toBeVisible();
  expect(within(steps).getByText("pod/orders-0")).toBeVisible();
  expect(screen.getByTestId("announcement")).toHaveTextContent("Step 2 of 2: Start the containers. 4 of 6 run");
  const polls = calls.filter(({ path }) => path === "/operations/op_1").map(({ query }) => query.toString());
  expect(polls).toEqual(["wait=30&revision=1", "wait=30&revision=2"]);
});

test("a broken long poll is said and resumed from the revision seen last", async () => {
  const calls = openPage(ADDRESS, making(noNetwork, () => ({ body: second })));
  expect(await screen.findByText(/Live view interrupted/)).toBeVisible();
  expect(screen.getByText(/No connection to the portal/)).toBeVisible();
  await userEvent.click(screen.getByRole("button", { name: "Try now" }));
  expect(await screen.findByText("Start the containers")).toBeVisible();
  expect(screen.queryByText(/Live view interrupted/)).not.toBeInTheDocument();
  const polls = calls.filter(({ path }) => path === "/operations/op_1").map(({ query }) => query.get("revision"));
  expect(polls.slice(0, 2)).toEqual(["1", "1"]);
});

test("a failed operation shows why, what to do and the request id", async () => {
  const error = { code: "unschedulable", message: "No node fits 8 CPU.", remedy: "Order a smaller plan." };
  const failed = operation({ state: "failed", error, ended: "2026-01-01T00:00:12Z" });
  openPage(ADDRESS, { ...ready, [`GET ${ONE}/operations`]: page(failed) });
  expect(await screen.findByText("No node fits 8 CPU.")).toBeVisible();
  expect(screen.getByText("Order a smaller plan.")).toBeVisible();
  expect(screen.getByText(/Request req-0/)).toBeVisible();
  expect(screen.getByRole("heading", { name: "Making it failed after 12 s" })).toBeVisible();
});

test("what is under way is canceled with a reason, after asking", async () => {
  const current = operation({ cancelable: true });
  const canceled = { ...current, state: "canceled" as const, revision: 2, ended: "2026-01-01T00:00:12Z" };
  const calls = openPage(ADDRESS, {
    ...ready,
    [`GET ${ONE}`]: () => ({ body: cluster({ phase: "provisioning", operation: current }) }),
    [`GET ${ONE}/operations`]: page(current),
    "GET /operations/op_1": never,
    "POST /operations/op_1/cancel": () => ({ body: canceled }),
  });
  await userEvent.click(await screen.findByRole("button", { name: "Cancel…" }));
  expect(calls.filter(({ method }) => method === "POST")).toEqual([]);
  await userEvent.type(screen.getByLabelText("Why (optional)"), "wrong size");
  await userEvent.click(screen.getByRole("button", { name: "Cancel it" }));
  expect(await screen.findByRole("heading", { name: "Canceled after 12 s" })).toBeVisible();
  expect(calls.filter(({ method }) => method === "POST").map(({ body }) => body)).toEqual([{ reason: "wrong size" }]);
});

const GATE = {
  key: "ready/orders-s0-1", message: "orders-s0-1 is not there", risk: "One copy less until it is back.", refusal: "",
  since: "2026-01-01T00:00:01Z",
};

test("an administrator lets what waits for the cluster's health go on, with a reason", async () => {
  const current = operation({ kind: "restart", gate: GATE });
  const calls = openPage(ADDRESS, {
    ...ready,
    "GET /session": () => ({ body: { user: { id: 1, username: "root", name: "", admin: true }, memberships: [], oidc: null } }),
    [`GET ${ONE}`]: () => ({ body: cluster({ phase: "updating", operation: current }) }),
    [`GET ${ONE}/operations`]: page(current),
    "GET /operations/op_1": never,
    "POST /operations/op_1/override": () => ({ body: { ...current, gate: null, revision: 2 } }),
  });
  expect(await screen.findByText(/orders-s0-1 is not there/)).toBeVisible();
  await userEvent.click(screen.getByRole("button", { name: "Go on without…" }));
  await userEvent.type(screen.getByLabelText("Why"), "its node is being repaired");
  await userEvent.click(screen.getByRole("button", { name: "Go on" }));
  await waitFor(() => expect(screen.queryByText(/Held back/)).not.toBeInTheDocument());
  expect(calls.filter(({ method }) => method === "POST").map(({ body }) => body)).toEqual([
    { gate: GATE.key, reason: "its node is being repaired" },
  ]);
});

test("others read what is waited for, and have no button", async () => {
  const current = operation({ kind: "restart", gate: GATE });
  openPage(ADDRESS, {
    ...ready,
    [`GET ${ONE}`]: () => ({ body: cluster({ phase: "updating", operation: current }) }),
    [`GET ${ONE}/operations`]: page(current),
    "GET /operations/op_1": never,
  });
  expect(await screen.findByText("One copy less until it is back.")).toBeVisible();
  expect(screen.queryByRole("button", { name: "Go on without…" })).not.toBeInTheDocument();
});

test("what cannot be canceled has no button for it", async () => {
  openPage(ADDRESS, making());
  expect(await screen.findByRole("list", { name: "Steps" })).toBeVisible();
  expect(screen.queryByRole("button", { name: "Cancel…" })).not.toBeInTheDocument();
});

test("what failed is tried again by a new operation, and a refusal of that is said", async () => {
  const failed = operation({ state: "failed", error: { code: "timeout", message: "Too slow.", remedy: "" }, ended: "2026-01-01T00:00:12Z" });
  const again = operation({ id: "op_2", reason: "Waiting for nodes" });
  const told = [
    problem(409, "not_retryable", "Another operation of the cluster came after it."),
    { status: 202, body: { operation: again, cluster: cluster({ phase: "provisioning", operation: again }) } },
  ];
  openPage(ADDRESS, {
    ...ready,
    [`GET ${ONE}/operations`]: page(failed),
    "GET /operations/op_2": never,
    "POST /operations/op_1/retry": () => told.shift() ?? problem(500, "internal_error", "Asked too often."),
  });
  await userEvent.click(await screen.findByRole("button", { name: "Try again" }));
  expect(await screen.findByText("Another operation of the cluster came after it.")).toBeVisible();
  await userEvent.click(screen.getByRole("button", { name: "Try again" }));
  expect(await screen.findByText("Waiting for nodes")).toBeVisible();
});

test("the password is asked for on request only, put into the example, and hidden again", async () => {
  const calls = openPage(ADDRESS, ready);
  const code = await screen.findByRole("region", { name: "redis-cli" });
  expect(code).toHaveTextContent("redis-cli -a '{password}'");
  expect(calls.filter(({ method }) => method === "POST")).toEqual([]);
  await userEvent.click(screen.getByRole("button", { name: "Reveal the password" }));
  // "$$" must not be taken for a replacement pattern.
  expect(await screen.findByText("redis-cli -a 'pa$$word'")).toBeVisible();
  await userEvent.click(screen.getByRole("button", { name: "Hide the password" }));
  expect(code).toHaveTextContent("redis-cli -a '{password}'");
  expect(document.body).not.toHaveTextContent("pa$$word");
});

test("deleting keeps the data unless told otherwise, and sends the revision that was seen", async () => {
  const accepted = { operation: operation({ id: "op_2", kind: "delete" }), cluster: cluster({ phase: "deleting" }) };
  const rehearsed = {
    dry_run: true, cluster: cluster(), operation: { kind: "delete", steps: [], estimate: { seconds: 8, based_on: 3 } }, quota: [],
    effects: [], objects: [], target: { asked: true, takes_it: true, namespace_exists: true, problem: null },
  };
  const calls = openPage(ADDRESS, {
    ...ready,
    [`DELETE ${ONE}`]: ({ query }) => (query.has("dry_run") ? { body: rehearsed } : { status: 202, body: accepted }),
    "GET /operations/op_2": never,
  });
  await userEvent.click(await screen.findByRole("button", { name: "Delete…" }));
  expect(screen.getByRole("radio", { name: /Keep the volumes/ })).toBeChecked();
  expect(await screen.findByText(/Takes about .*, as the last 3 like it did/)).toBeVisible();
  await userEvent.click(screen.getByRole("button", { name: "Delete, keep the data" }));
  expect(await screen.findByRole("heading", { name: "Being deleted" })).toBeVisible();
  const [call] = calls.filter(({ method, query }) => method === "DELETE" && !query.has("dry_run"));
  expect(call?.query.toString()).toBe("volumes=keep");
  expect(call?.headers.get("If-Match")).toBe('"7"');
});

test("volumes are deleted only with the name typed", async () => {
  const calls = openPage(ADDRESS, { ...ready, [`DELETE ${ONE}`]: () => problem(409, "busy", "Another change is under way.") });
  await userEvent.click(await screen.findByRole("button", { name: "Delete…" }));
  await userEvent.click(screen.getByRole("radio", { name: /Delete the volumes too/ }));
  await userEvent.type(screen.getByLabelText("Type orders to confirm"), "order");
  await userEvent.click(screen.getByRole("button", { name: "Delete with all data" }));
  expect(screen.getByRole("alert")).toHaveTextContent("Type the name exactly as written: orders.");
  expect(calls.filter(({ method, query }) => method === "DELETE" && !query.has("dry_run"))).toEqual([]);
  await userEvent.type(screen.getByLabelText("Type orders to confirm"), "s");
  await userEvent.click(screen.getByRole("button", { name: "Delete with all data" }));
  expect(await screen.findByText("Another change is under way.")).toBeVisible();
  const [call] = calls.filter(({ method, query }) => method === "DELETE" && !query.has("dry_run"));
  expect(call?.query.toString()).toBe("volumes=delete&confirm=orders");
});

test("once the deletion has ended the page says so and asks for nothing more", async () => {
  const deleting = operation({ id: "op_2", kind: "delete", steps: [step("volumes", { state: "running" })] });
  const ended = { ...deleting, revision: 2, state: "succeeded" as const, percent: 100, ended: "2026-01-01T00:00:03Z" };
  const poll = vi.fn(() => ({ body: ended }));
  openPage(ADDRESS, {
    ...ready,
    [`GET ${ONE}`]: () => ({ body: cluster({ phase: "deleting", operation: deleting }) }),
    [`GET ${ONE}/operations`]: page(deleting),
    "GET /operations/op_2": poll,
    "GET /tenants/demo/clusters": page(cluster({ phase: "deleted", volumes_kept: true })),
  });
  expect(await screen.findByRole("heading", { name: "orders is deleted" })).toBeVisible();
  expect(await screen.findByText(/Its volumes were kept/)).toBeVisible();
  expect(poll).toHaveBeenCalledTimes(1);
});

const CERTIFICATE = {
  authority: "-----BEGIN CERTIFICATE-----\nAA+/=\n-----END CERTIFICATE-----\n", names: ["orders"], serial: "1f",
  expires: "2026-04-01T00:00:00Z", renews: "2026-03-01T00:00:00Z", authority_expires: "2036-01-01T00:00:00Z",
};
const SERVED = { type: "CertificateValid", status: "True", reason: "Served", message: "", since: null };

test("a cluster that encrypts offers its CA certificate as a file, and says until when it is valid", async () => {
  openPage(ADDRESS, {
    ...ready,
    [`GET ${ONE}`]: () => ({ body: cluster({ conditions: [SERVED] as never }) }),
    [`GET ${ONE}/certificate`]: () => ({ body: CERTIFICATE }),
  });
  expect(await screen.findByRole("heading", { name: "Encryption" })).toBeVisible();
  const link = screen.getByRole("link", { name: "Download" });
  expect(link).toHaveAttribute("download", "orders-ca.crt");
  const [, encoded] = (link.getAttribute("href") ?? "").split(",");
  expect(decodeURIComponent(encoded ?? "")).toBe(CERTIFICATE.authority);
  expect(screen.getByText(/Valid until/).nextSibling).toHaveTextContent("2026");
});

test("a cluster that does not encrypt is not asked for a certificate", async () => {
  const calls = openPage(ADDRESS, ready);
  expect(await screen.findByRole("button", { name: "Reveal the password" })).toBeVisible();
  expect(screen.queryByRole("heading", { name: "Encryption" })).not.toBeInTheDocument();
  expect(calls.filter(({ path }) => path.endsWith("/certificate"))).toEqual([]);
});

test("a cluster that is not there is said so", async () => {
  openPage(ADDRESS, { [`GET ${ONE}`]: () => problem(404, "not_found", "Nothing here.") });
  expect(await screen.findByRole("heading", { name: "There is no cluster orders" })).toBeVisible();
});

test("an ended session shows the sign-in form and says why", async () => {
  let asked = 0;
  openPage(ADDRESS, {
    ...ready,
    [`GET ${ONE}`]: () => (asked++ === 0 ? { body: cluster() } : problem(401, "unauthenticated", "Sign in.")),
    [`POST ${ONE}/credentials/default/reveal`]: () => problem(401, "unauthenticated", "Sign in."),
  });
  await userEvent.click(await screen.findByRole("button", { name: "Reveal the password" }));
  expect(await screen.findByText(/Your session has ended/)).toBeVisible();
});

const RESTING = {
  address: "10.60.0.1", cluster: "orders", target: "main", pod: "orders-s0-0", node: "n1", state: "freed",
  since: "2026-01-01T00:00:00Z", freed: "2026-01-01T00:00:05Z", until: "2026-01-01T01:00:05Z", released: null,
  noticed: "delete", end: null, why: "It rests.",
};
const OPENED = { ...RESTING, address: "10.60.0.2", pod: "orders-s0-1", state: "released", end: "crowded", released: "2026-01-01T00:30:00Z" };

test("addresses are a list: who had it, whether it is held, until when, and why it was opened", async () => {
  const targets = [{ target: "main", installed: true, armed: true, remedy: "" }];
  const calls = openPage(ADDRESS, { ...ready, "GET /tenants/demo/ip-reservations": () => ({ body: { targets, items: [RESTING, OPENED], next: null } }) });
  const rows = within(await screen.findByRole("list", { name: "Resting addresses" })).getAllByRole("listitem");
  expect(rows).toHaveLength(2);
  expect(rows[0]).toHaveTextContent(/10\.60\.0\.1.*Held.*orders-s0-0 had it, on n1 · it rests · until/);
  expect(rows[1]).toHaveTextContent(/10\.60\.0\.2.*Open again.*more addresses rested than are allowed · since/);
  expect(screen.queryByRole("note")).not.toBeInTheDocument();
  const [call] = calls.filter(({ path }) => path === "/tenants/demo/ip-reservations");
  expect(call?.query.get("cluster")).toBe("orders");
});

test("a target without the service says so, and what to do", async () => {
  const targets = [{ target: "main", installed: false, armed: false, remedy: "An administrator installs it." }];
  openPage(ADDRESS, { ...ready, "GET /tenants/demo/ip-reservations": () => ({ body: { targets, items: [], next: null } }) });
  expect(await screen.findByRole("note")).toHaveTextContent(/not installed there.*An administrator installs it\./);
  expect(screen.getByText(/No address of this cluster rests/)).toBeVisible();
});

test("a target that does not answer is told in the addresses' place only", async () => {
  openPage(ADDRESS, { ...ready, "GET /tenants/demo/ip-reservations": () => problem(503, "target_unreachable", "Target main: no answer.") });
  expect(await screen.findByText("Target main: no answer.", undefined, { timeout: 8000 })).toBeVisible();
  expect(screen.getByRole("heading", { name: "Members" })).toBeVisible();
}, 10_000);

test("uneven masters are said, counted by node, and evened out by one click", async () => {
  const spread = {
    invariants: [
      { key: "replicas", holds: true, message: "Every master has 1 replica." },
      { key: "apart", holds: null, message: "1 pods have no node yet." },
      { key: "even", holds: false, message: "Masters: 2 on n1, 0 on n2; one hand-over makes them even." },
    ],
    nodes: [
      { node: "n1", zone: "", masters: 2, members: 2 },
      { node: "n2", zone: "", masters: 0, members: 2 },
    ],
    hand_overs: 1,
  };
  const effect = { effect: "live", message: "Replicas take over. One hand-over makes masters even.", pointer: "", before: null, after: null };
  const rehearsed = {
    dry_run: true, cluster: cluster(), operation: { kind: "rebalance-masters", steps: [], estimate: { seconds: 4, based_on: 5 } }, quota: [],
    effects: [effect], objects: [], target: { asked: false, takes_it: null, namespace_exists: null, problem: null },
  };
  const current = operation({ kind: "rebalance-masters", steps: [step("rebalance", { title: "Masters even", state: "running" })] });
  const calls = openPage(ADDRESS, {
    ...ready,
    [`GET ${ONE}`]: () => ({ body: cluster({ spread }) }),
    "GET /operations/op_1": never,
    [`POST ${ONE}/rebalance-masters`]: ({ query }) =>
      query.has("dry_run") ? { body: rehearsed } : { status: 202, body: { operation: current, cluster: cluster({ spread, operation: current }) } },
  });
  const card = await screen.findByRole("region", { name: "Spread over the nodes" });
  const rules = within(card).getAllByRole("listitem").map((item) => item.textContent);
  expect(rules[0]).toContain("holds Every master");
  expect(rules[1]).toContain("not known");
  expect(rules[2]).toContain("does not hold Masters: 2 on n1");
  expect(within(card).getByRole("row", { name: "n1 2 2" })).toBeVisible();
  expect(await within(card).findByText("Replicas take over. One hand-over makes masters even.")).toBeVisible();
  expect(within(card).getByText(/Takes about .*, as the last 5 like it did/)).toBeVisible();
  await userEvent.click(within(card).getByRole("button", { name: "Even out the masters" }));
  expect(await screen.findByRole("heading", { name: "Masters being evened out" })).toBeVisible();
  expect(screen.queryByRole("button", { name: "Even out the masters" })).not.toBeInTheDocument();
  const sent = calls.filter(({ method }) => method === "POST");
  expect(sent.map(({ path, headers }) => [path, headers.get("If-Match")])).toEqual([
    [`${ONE}/rebalance-masters`, null],
    [`${ONE}/rebalance-masters`, '"7"'],
  ]);
});

test("data that is gone is given up only under the typed name, and with what it is", async () => {
  const loss = { extent: "0-5460", message: "The data of shard 0 is gone: no member holds slots 0-5460 (5461 of 16384)." };
  const lost = cluster({ phase: "degraded", loss });
  const effect = { effect: "loss", message: `${loss.message} It is given up for good.`, pointer: "", before: null, after: "0-5460" };
  const rehearsed = {
    dry_run: true, cluster: lost, operation: { kind: "accept-loss", steps: [], estimate: null }, quota: [],
    effects: [effect], objects: [], target: { asked: false, takes_it: null, namespace_exists: null, problem: null },
  };
  const current = operation({ kind: "accept-loss", steps: [step("slots", { title: "Hash slots assigned", state: "running" })] });
  const fault = { pointer: "?confirm", code: "confirm_name", message: "If that is meant, repeat with ?confirm=orders." };
  const calls = openPage(ADDRESS, {
    ...ready,
    [`GET ${ONE}`]: () => ({ body: lost }),
    "GET /operations/op_1": never,
    [`POST ${ONE}/accept-loss`]: ({ query }) => {
      if (query.has("dry_run")) return { body: rehearsed };
      if (query.get("confirm") !== "orders") return problem(422, "invalid", "A loss wants the name.", { errors: [fault] });
      return { status: 202, body: { operation: current, cluster: cluster({ ...lost, operation: current }) } };
    },
  });
  const notice = await screen.findByRole("region", { name: "Data is gone" });
  expect(within(notice).getByText(loss.message)).toBeVisible();
  await userEvent.click(within(notice).getByRole("button", { name: "Accept the loss…" }));
  const dialog = await screen.findByRole("dialog", { name: "Go on without the lost data of orders?" });
  expect(await within(dialog).findByText(effect.message)).toBeVisible();
  await userEvent.click(within(dialog).getByRole("button", { name: "Accept the loss" }));
  expect(await within(dialog).findByText(fault.message)).toBeVisible();
  await userEvent.type(within(dialog).getByRole("textbox"), "orders");
  await userEvent.click(within(dialog).getByRole("button", { name: "Accept the loss" }));
  expect(await screen.findByRole("heading", { name: "Loss being accepted" })).toBeVisible();
  expect(screen.queryByRole("button", { name: "Accept the loss…" })).not.toBeInTheDocument();
  const sent = calls.filter(({ method, query }) => method === "POST" && !query.has("dry_run"));
  expect(sent.map(({ headers }) => headers.get("If-Match"))).toEqual(['"7"', '"7"']);
});

test("who may only look is told of lost data, and offered nothing", async () => {
  const loss = { extent: "0-5460", message: "The data of shard 0 is gone." };
  const viewer = page({ ...demo, role: "viewer" });
  openPage(ADDRESS, { ...ready, "GET /tenants": viewer, [`GET ${ONE}`]: () => ({ body: cluster({ phase: "degraded", loss }) }) });
  const notice = await screen.findByRole("region", { name: "Data is gone" });
  expect(within(notice).queryByRole("button")).not.toBeInTheDocument();
});

test("a cluster that is not well says why, the first cause first, with what can be done", async () => {
  const causes = [
    { code: "node-lost", message: "The node n1 is not ready.", remedy: "Bring n1 back.", object: "node/n1" },
    { code: "replica-down", message: "orders-s2-1 is down.", remedy: "", object: "pod/orders-s2-1" },
  ];
  const reason = "The node n1 is not ready. Bring n1 back.";
  openPage(ADDRESS, { ...ready, [`GET ${ONE}`]: () => ({ body: cluster({ phase: "degraded", reason, causes }) }) });
  const told = await screen.findByRole("region", { name: "Why it is not well: 2 causes, the likeliest first" });
  expect(within(told).getAllByRole("listitem").map((item) => item.textContent)).toEqual([
    "The node n1 is not ready. node/n1Bring n1 back.",
    "orders-s2-1 is down. pod/orders-s2-1",
  ]);
  expect(screen.queryByText(reason)).not.toBeInTheDocument();
});

test("a cluster is paused with a reason, says so with who and why, and is resumed", async () => {
  const paused = { by: "bob", reason: "disks are moved", since: "2026-05-04T10:00:00Z" };
  const drifted = { type: "SettingsInForce", status: "False", reason: "Drifted", message: "orders-s0-0: hz is 20, wished is 10", since: null };
  let shown = cluster();
  const calls = openPage(ADDRESS, {
    ...ready,
    [`GET ${ONE}`]: () => ({ body: shown }),
    [`POST ${ONE}/pause`]: () => ({ body: (shown = cluster({ paused, revision: 8, conditions: [drifted] as never })) }),
    [`POST ${ONE}/resume`]: () => ({ body: (shown = cluster({ revision: 9 })) }),
  });
  await userEvent.click(await screen.findByRole("button", { name: "Pause…" }));
  const dialog = screen.getByRole("dialog", { name: "Pause Berth for orders?" });
  await userEvent.click(within(dialog).getByRole("button", { name: "Pause" }));
  expect(within(dialog).getByRole("textbox", { name: "Why" })).toHaveAccessibleDescription(/Say why/);
  await userEvent.type(within(dialog).getByRole("textbox", { name: "Why" }), " disks are moved ");
  await userEvent.click(within(dialog).getByRole("button", { name: "Pause" }));
  expect(await screen.findByText(/paused by bob/)).toBeVisible();
  expect(screen.getByText("disks are moved")).toBeVisible();
  expect(screen.getByText("orders-s0-0: hz is 20, wished is 10")).toBeVisible();
  expect(screen.queryByRole("button", { name: "Change…" })).not.toBeInTheDocument();
  await userEvent.click(screen.getByRole("button", { name: "Resume" }));
  expect(await screen.findByRole("button", { name: "Pause…" })).toBeVisible();
  expect(screen.queryByText(/paused by bob/)).not.toBeInTheDocument();
  const sent = calls.filter(({ method }) => method === "POST");
  expect(sent.map(({ path, headers }) => [path, headers.get("If-Match")])).toEqual([
    [`${ONE}/pause`, '"7"'],
    [`${ONE}/resume`, '"8"'],
  ]);
  expect(sent[0]?.body).toEqual({ reason: "disks are moved" });
});

test("another version is chosen among those it can go to, and what that does is shown before", async () => {
  const current = operation({ kind: "upgrade", estimate: { seconds: 90, based_on: 3 }, steps: [step("restart", { title: "Pods restarted", state: "running" })] });
  const effect = { effect: "roll", message: "Redis 7.0 becomes 8.0.", pointer: "/version", before: "7.0", after: "8.0" };
  const rehearsed = {
    dry_run: true, cluster: cluster(), operation: { kind: "upgrade", steps: [], estimate: { seconds: 90, based_on: 3 } }, quota: [], effects: [effect], objects: [],
    target: { asked: true, takes_it: true, namespace_exists: true, problem: null },
  };
  const engine = { ...redis, versions: ["7.0", "8.0"], upgrades: { "7.0": ["8.0"] } };
  const calls = openPage(ADDRESS, {
    ...ready,
    "GET /engines": page(engine),
    [`GET ${ONE}`]: () => ({ body: cluster({ version: "7.0" }) }),
    "GET /operations/op_1": never,
    [`PATCH ${ONE}`]: ({ query }) =>
      query.has("dry_run") ? { body: rehearsed } : { status: 202, body: { operation: current, cluster: cluster({ operation: current }) } },
  });
  await userEvent.click(await screen.findByRole("button", { name: "Upgrade…" }));
  const dialog = screen.getByRole("dialog", { name: "Upgrade orders?" });
  expect(await within(dialog).findByText("Redis 7.0 becomes 8.0.")).toBeVisible();
  expect(within(dialog).getByText(/Takes about .*, as the last 3 like it did/)).toBeVisible();
  await userEvent.click(within(dialog).getByRole("button", { name: "Upgrade" }));
  expect(await screen.findByRole("heading", { name: "Being upgraded" })).toBeVisible();
  // It began months ago by the clock of this test.
  expect(screen.getByText(/longer than the .* that the last 3 like it took/)).toBeVisible();
  const sent = calls.filter(({ method }) => method === "PATCH");
  expect(sent.map(({ body }) => body)).toEqual([{ version: "8.0" }, { version: "8.0" }]);
  expect(sent.at(-1)?.headers.get("If-Match")).toBe('"7"');
});
