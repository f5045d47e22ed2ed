import { screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { expect, test } from "vitest";

import { alice, cluster, openPage, operation, page, problem } from "./test/portal";

const nobody = { user: null, memberships: [], oidc: null };

test("a stranger signs in and lands on the page that was asked for", async () => {
  document.cookie = "csrftoken=tok";
  const calls = openPage("/t/demo/clusters", { "GET /session": () => ({ body: nobody }), "POST /session": () => ({ body: alice }) });
  await userEvent.type(await screen.findByLabelText("User name"), "alice");
  await userEvent.type(screen.getByLabelText("Password"), "secret{Enter}");
  expect(await screen.findByRole("heading", { name: "No clusters yet" })).toBeVisible();
  expect(screen.getByRole("link", { name: "Order the first cluster" })).toHaveAttribute("href", "/t/demo/order");
  expect(calls.find(({ method }) => method === "POST")?.headers.get("X-CSRFToken")).toBe("tok");
});

test("a refused sign-in says why, with the focus on it", async () => {
  const refusal = problem(401, "sign_in_failed", "There is no user with this name and password.");
  openPage("/", { "GET /session": () => ({ body: nobody }), "POST /session": () => refusal });
  await userEvent.type(await screen.findByLabelText("User name"), "alice");
  await userEvent.type(screen.getByLabelText("Password"), "wrong{Enter}");
  const alert = await screen.findByRole("alert");
  expect(alert).toHaveTextContent("There is no user with this name and password.");
  expect(alert).toHaveFocus();
});

test("the list shows how far a change is and why a cluster is not well", async () => {
  openPage("/", {
    "GET /tenants/demo/clusters": page(
      cluster({ id: "1", name: "carts", phase: "provisioning", operation: operation({ percent: 40, reason: "4 of 6 run" }) }),
      cluster({ id: "2", name: "orders", phase: "degraded", reason: "shard 2 has no master" }),
    ),
  });
  const carts = await screen.findByRole("row", { name: /carts/ });
  expect(within(carts).getByText("Being made")).toBeVisible();
  expect(carts).toHaveTextContent("40 % done 4 of 6 run");
  expect(screen.getByRole("row", { name: /orders/ })).toHaveTextContent("shard 2 has no master");
});

test("a viewer of an empty tenant is not asked to order", async () => {
  openPage("/", { "GET /tenants": page({ slug: "demo", name: "Demo", role: "viewer", suspended: false, created: "" }) });
  expect(await screen.findByText(/Your role here is viewer/)).toBeVisible();
  expect(screen.queryByRole("link", { name: /Order/ })).not.toBeInTheDocument();
});

test("signing out forgets the tenant's clusters", async () => {
  openPage("/", { "GET /tenants/demo/clusters": page(cluster()), "DELETE /session": () => ({ status: 204 }) });
  await screen.findByRole("link", { name: "orders" });
  await userEvent.click(screen.getByRole("button", { name: "Sign out" }));
  expect(await screen.findByRole("heading", { name: "Sign in to Berth" })).toBeVisible();
  expect(screen.queryByText("orders")).not.toBeInTheDocument();
  expect(screen.queryByText(/session has ended/)).not.toBeInTheDocument();
});

test("the language can be changed and is remembered", async () => {
  openPage("/");
  await screen.findByRole("heading", { name: "No clusters yet" });
  await userEvent.selectOptions(screen.getByRole("combobox", { name: "Language" }), "zh-CN");
  expect(await screen.findByRole("button", { name: "退出登录" })).toBeVisible();
  await waitFor(() => expect(document.documentElement.lang).toBe("zh-CN"));
  await userEvent.selectOptions(screen.getByRole("combobox", { name: "语言" }), "en");
  expect(await screen.findByRole("button", { name: "Sign out" })).toBeVisible();
});

test("somebody without a tenant is told whom to ask", async () => {
  openPage("/", { "GET /tenants": page() });
  expect(await screen.findByText(/to add you as alice/)).toBeVisible();
});

test("the identity provider is offered when there is one, and leads back to the page that was asked for", async () => {
  openPage("/t/demo/clusters?phase=ready", { "GET /session": () => ({ body: { ...nobody, oidc: "Example ID" } }) });
  const link = await screen.findByRole("link", { name: "Sign in with Example ID" });
  expect(link).toHaveAttribute("href", "/auth/oidc/login?next=%2Ft%2Fdemo%2Fclusters%3Fphase%3Dready");
  expect(screen.queryByRole("alert")).not.toBeInTheDocument();
});

test("without an identity provider only the password is asked for", async () => {
  openPage("/", { "GET /session": () => ({ body: nobody }) });
  expect(await screen.findByLabelText("Password")).toBeVisible();
  expect(screen.queryByRole("link", { name: /Sign in with/ })).not.toBeInTheDocument();
});

test("a sign-in that failed at the identity provider says why, and is begun again without the reason", async () => {
  openPage("/t/demo?sign_in_error=oidc_denied", { "GET /session": () => ({ body: { ...nobody, oidc: "Example ID" } }) });
  expect(await screen.findByRole("alert")).toHaveTextContent("Example ID did not let you in");
  const link = screen.getByRole("link", { name: "Sign in with Example ID" });
  expect(link).toHaveAttribute("href", "/auth/oidc/login?next=%2Ft%2Fdemo");
});
