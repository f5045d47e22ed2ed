import { screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { expect, test } from "vitest";

import type { ClusterUser } from "../../api/types";
import { type Answers, cluster, demo, openPage, operation, page, problem, redis } from "../../test/portal";

const ADDRESS = "/t/demo/clusters/orders";
const ONE = "/tenants/demo/clusters/orders";
const withUsers = {
  ...redis,
  user_rules: {
    most: 50, reserved: ["berth"],
    commands: [
      { key: "read", title: "Read", help: "Read the values of keys." },
      { key: "write", title: "Write", help: "Write and delete keys." },
      { key: "transaction", title: "Transactions", help: "MULTI and EXEC." },
    ],
  },
};

function user(name: string, more: Partial<ClusterUser> = {}): ClusterUser {
  return {
    name, enabled: true, access: null, version: 1, in_force: true, created: "2026-01-01T00:00:00Z", rotated: null,
    old_password: null, secret_name: "orders-auth", secret_key: "password", revision: 3, ...more,
  };
}

const app = user("app", {
  access: { key_prefixes: ["orders:"], channel_prefixes: [], commands: ["read"] },
  rotated: "2026-01-02T00:00:00Z",
  old_password: {
    version: 1, until: "2026-01-03T00:00:00Z", until_unused: false, connections: 2, last_active: "2026-01-02T12:00:00Z",
    checked: "2026-01-02T12:00:01Z",
  },
});
const busy = () => {
  const current = operation({ kind: "change-users", state: "running" });
  return { status: 202, body: { operation: current, cluster: cluster({ operation: current }) } };
};
const ready: Answers = {
  "GET /engines": page(withUsers),
  [`GET ${ONE}`]: () => ({ body: cluster() }),
  [`GET ${ONE}/credentials`]: page({ name: "app", version: 2, secret_name: "s", secret_key: "user.app", created: "" }, { name: "default", version: 1, secret_name: "s", secret_key: "password", created: "" }),
  [`GET ${ONE}/snippets`]: page({ language: "shell", title: "redis-cli", code: "redis-cli -a '{password}'" }),
  [`GET ${ONE}/users`]: page(app, user("default")),
  "GET /operations/op_1": () => new Promise(() => undefined),
};

function changes(calls: ReturnType<typeof openPage>) {
  return calls.filter(({ method }) => method !== "GET").map(({ method, path, body }) => [method, path, body]);
}

test("each user's rights are shown, and who still uses an old password", async () => {
  openPage(ADDRESS, ready);
  const table = await screen.findByRole("table", { name: "Users" });
  const row = within(table).getByRole("row", { name: /^app/ });
  expect(within(row).getByText("Keys: orders:…")).toBeVisible();
  expect(within(row).getByText("Channels: none")).toBeVisible();
  expect(within(row).getByText(/2 connections from before the rotation/)).toBeVisible();
  expect(within(row).getByText(/The old one works until/)).toBeVisible();
  expect(within(within(table).getByRole("row", { name: /^default/ })).getByText("Everything")).toBeVisible();
  expect(within(table).queryByRole("button", { name: "Remove the user default" })).not.toBeInTheDocument();
  expect(within(table).queryByRole("button", { name: "End the old password of default" })).not.toBeInTheDocument();
});

async function order(prefixes: string) {
  await userEvent.click(await screen.findByRole("button", { name: "Add a user…" }));
  const dialog = within(screen.getByRole("dialog", { name: "Add a user" }));
  await userEvent.click(dialog.getByLabelText("User"));
  await userEvent.paste("shop");
  await userEvent.click(dialog.getByLabelText("Key prefixes"));
  await userEvent.paste(prefixes);
  await userEvent.click(dialog.getByLabelText("Transactions"));
  await userEvent.click(dialog.getByRole("button", { name: "Add it" }));
  return dialog;
}

test("a user is added with prefixes and groups", async () => {
  const calls = openPage(ADDRESS, { ...ready, [`POST ${ONE}/users`]: busy });
  await order("shop: cart:");
  expect(await screen.findByRole("heading", { name: "Users being changed" })).toBeVisible();
  expect(screen.queryByRole("dialog")).not.toBeInTheDocument();
  const sent = { name: "shop", key_prefixes: ["shop:", "cart:"], channel_prefixes: [], commands: ["read", "write"] };
  expect(changes(calls)).toEqual([["POST", `${ONE}/users`, sent]]);
  expect(calls.find(({ method }) => method === "POST")?.headers.get("Idempotency-Key")).toMatch(/^[0-9a-f]{32}$/);
});

test("a wrong prefix is told at its list", async () => {
  const errors = [{ pointer: "/key_prefixes/1", code: "bad_prefix", message: "Take no *." }];
  openPage(ADDRESS, { ...ready, [`POST ${ONE}/users`]: () => problem(422, "invalid", "A prefix is wrong.", { errors }) });
  const dialog = await order("shop: a*");
  await waitFor(() => expect(dialog.getByLabelText("Key prefixes")).toHaveAccessibleDescription(/Take no \*/));
});

test("a password is rotated for as long as was chosen, as the user was read", async () => {
  const calls = openPage(ADDRESS, { ...ready, [`POST ${ONE}/users/default/rotate`]: busy });
  await userEvent.click(await screen.findByRole("button", { name: "Rotate the password of default" }));
  await userEvent.selectOptions(screen.getByLabelText("The old password works for"), "1 hour");
  await userEvent.click(screen.getByLabelText("End it sooner when it is unused"));
  await userEvent.click(screen.getByRole("button", { name: "Rotate" }));
  expect(await screen.findByRole("heading", { name: "Users being changed" })).toBeVisible();
  expect(changes(calls)).toEqual([
    ["POST", `${ONE}/users/default/rotate`, { overlap_seconds: 3600, until_unused: true }],
  ]);
  expect(calls.find(({ method }) => method === "POST")?.headers.get("If-Match")).toBe('"3"');
});

test("an old password is ended, a user removed, rights changed, each after asking", async () => {
  const calls = openPage(ADDRESS, {
    ...ready,
    [`POST ${ONE}/users/app/revoke-old`]: () => problem(409, "operation_in_progress", "Wait."),
    [`DELETE ${ONE}/users/app`]: () => problem(409, "operation_in_progress", "Wait."),
    [`PATCH ${ONE}/users/app`]: () => ({ body: app }),
  });
  await userEvent.click(await screen.findByRole("button", { name: "End the old password of app" }));
  expect(changes(calls)).toEqual([]);
  await userEvent.click(screen.getByRole("button", { name: "End it now" }));
  expect(await screen.findByText("Wait.")).toBeVisible();
  await userEvent.click(screen.getByRole("button", { name: "Cancel" }));
  await userEvent.click(screen.getByRole("button", { name: "Remove the user app" }));
  await userEvent.click(screen.getByRole("button", { name: "Remove it" }));
  expect(await screen.findByText("Wait.")).toBeVisible();
  await userEvent.click(screen.getByRole("button", { name: "Cancel" }));
  await userEvent.click(screen.getByRole("button", { name: "Change what app may do" }));
  await userEvent.click(screen.getByLabelText("Write"));
  await userEvent.click(screen.getByRole("button", { name: "Change it" }));
  await waitFor(() => expect(screen.queryByRole("dialog")).not.toBeInTheDocument());
  expect(changes(calls)).toEqual([
    ["POST", `${ONE}/users/app/revoke-old`, null],
    ["DELETE", `${ONE}/users/app`, null],
    ["PATCH", `${ONE}/users/app`, { enabled: true, key_prefixes: ["orders:"], channel_prefixes: [], commands: ["read", "write"] }],
  ]);
});

test("a password is revealed in its row, and the examples stay those of default", async () => {
  const calls = openPage(ADDRESS, {
    ...ready,
    [`POST ${ONE}/credentials/app/reveal`]: () => ({ body: { name: "app", password: "s3cret" } }),
    [`POST ${ONE}/credentials/default/reveal`]: () => ({ body: { name: "default", password: "first" } }),
  });
  await userEvent.click(await screen.findByRole("button", { name: "Reveal the password of app" }));
  expect(await screen.findByText("s3cret")).toBeVisible();
  await userEvent.click(screen.getByRole("button", { name: "Put the password in" }));
  expect(await screen.findByText("redis-cli -a 'first'")).toBeVisible();
  expect(changes(calls).map(([, path]) => path)).toEqual([`${ONE}/credentials/app/reveal`, `${ONE}/credentials/default/reveal`]);
});

test("viewers read who may do what, and have no buttons", async () => {
  openPage(ADDRESS, { ...ready, "GET /tenants": page({ ...demo, role: "viewer" }) });
  const table = await screen.findByRole("table", { name: "Users" });
  expect(within(table).queryByRole("button")).not.toBeInTheDocument();
  expect(screen.queryByRole("button", { name: "Add a user…" })).not.toBeInTheDocument();
});

test("where an engine has no users there is no such section", async () => {
  const calls = openPage(ADDRESS, { ...ready, "GET /engines": page(redis) });
  expect(await screen.findByRole("heading", { name: "Connect" })).toBeVisible();
  expect(screen.queryByRole("heading", { name: "Users" })).not.toBeInTheDocument();
  expect(calls.some(({ path }) => path === `${ONE}/users`)).toBe(false);
});
