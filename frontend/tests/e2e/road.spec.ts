// The whole road on a running portal: BASE_URL, BERTH_USER_FILE and BERTH_PASSWORD_FILE say where and who.
import { randomBytes } from "node:crypto";

import { expect } from "@playwright/test";

import { expectAccessible, signIn, test } from "./portal";

const ENGINE = process.env.E2E_ENGINE ?? "redis";
const PLAN = process.env.E2E_PLAN ?? "redis-dev";
// A field of the engine that changes without a restart.
const LIVE = { label: process.env.E2E_LIVE_FIELD ?? "When memory is full", value: process.env.E2E_LIVE_VALUE ?? "allkeys-lru" };
const READY_WITHIN_MS = 5 * 60_000;

test.use({ permissions: ["clipboard-read", "clipboard-write"] });

test("from signing in over an order, its steps, the example and the password to deletion", async ({ page }) => {
  const name = `e2e-${randomBytes(4).toString("hex")}`;
  let documents = 0;
  page.on("request", (request) => (documents += Number(request.isNavigationRequest())));

  await test.step("sign in", async () => {
    await page.goto("/");
    await expect(page.getByRole("heading", { name: "Sign in to Berth" })).toBeVisible();
    await expectAccessible(page);
    await signIn(page);
    await expectAccessible(page);
  });

  await test.step("order", async () => {
    await page.getByRole("main").getByRole("link", { name: /^Order/ }).click();
    await page.locator(`input[name=engine][value=${ENGINE}]`).check();
    await page.locator(`input[name=plan][value=${PLAN}]`).check();
    await page.getByRole("button", { name: "Order", exact: true }).click();
    await expect(page.getByRole("alert")).toContainText("Give the cluster a name");
    await page.getByRole("link", { name: "Give the cluster a name" }).click();
    await expect(page.getByLabel("Name", { exact: true })).toBeFocused();
    await expectAccessible(page);
    await page.getByLabel("Name", { exact: true }).fill(name);
    await page.getByRole("button", { name: "Order", exact: true }).click();
    await expect(page.getByRole("heading", { name: new RegExp(name) })).toBeVisible();
  });

  await test.step("watch the steps until it is ready", async () => {
    await expect(page.getByRole("list", { name: "Steps" }).getByRole("listitem").first()).toBeVisible();
    await expect(page.getByRole("heading", { name: /^Made in/ })).toBeVisible({ timeout: READY_WITHIN_MS });
    await expect(page.locator("[data-phase=ready]")).toBeVisible();
    await expect(page.getByText("Proven by a write and a read")).toBeVisible();
  });

  await test.step("copy the example, reveal the password, copy again", async () => {
    const code = page.getByRole("tabpanel").locator("pre");
    await expect(code).toContainText("{password}");
    await page.getByRole("button", { name: "Copy the example" }).click();
    await expect(page.getByText("Copied. Put the password in place")).toBeVisible();
    expect(await page.evaluate(() => navigator.clipboard.readText())).toBe(await code.textContent());

    await page.getByRole("button", { name: "Reveal the password", exact: true }).click();
    await expect(page.getByRole("button", { name: "Hide the password" })).toBeVisible();
    await expect(code).not.toContainText("{password}");
    await page.getByRole("button", { name: "Copy the example" }).click();
    await expect(page.getByText("Copied with the password")).toBeVisible();
    expect(await page.evaluate(() => navigator.clipboard.readText())).toBe(await code.textContent());
    await expectAccessible(page);

    await page.getByRole("button", { name: "Hide the password" }).click();
    await expect(code).toContainText("{password}");
  });

  await test.step("change a value of the running cluster, told before what that does", async () => {
    await page.getByRole("button", { name: "Change…" }).click();
    const form = page.getByRole("form", { name: `Change ${name}` });
    await form.getByLabel(LIVE.label).selectOption(LIVE.value);
    await expect(form.getByRole("status").getByRole("listitem")).toContainText(LIVE.value);
    await expectAccessible(page);
    await form.getByRole("button", { name: "Change it" }).click();
    await expect(page.getByRole("heading", { name: /^Changed in/ })).toBeVisible({ timeout: READY_WITHIN_MS });
    await expect(page.getByRole("region", { name: "Settings" })).toContainText(LIVE.value);
  });

  await test.step("delete with the volumes, by keyboard", async () => {
    await page.getByRole("button", { name: "Delete…" }).focus();
    await page.keyboard.press("Enter");
    await expect(page.getByRole("radio", { name: "Keep the volumes" })).toBeFocused();
    await page.keyboard.press("ArrowDown");
    await page.getByLabel(`Type ${name} to confirm`).fill("something else");
    await page.keyboard.press("Enter");
    await expect(page.getByRole("alert")).toContainText("Type the name exactly as written");
    await expectAccessible(page);
    await page.getByLabel(`Type ${name} to confirm`).fill(name);
    await page.keyboard.press("Enter");
    await expect(page.getByRole("heading", { name: `${name} is deleted` })).toBeVisible({ timeout: READY_WITHIN_MS });
    await expectAccessible(page);
  });

  await test.step("gone", async () => {
    await page.getByRole("link", { name: "All clusters" }).click();
    await expect(page.getByRole("heading", { name: "Clusters", exact: true })).toBeVisible();
    await expect(page.getByRole("link", { name })).toHaveCount(0);
    expect(documents, "documents loaded: the page was never reloaded").toBe(1);
  });

  await page.goto(`/t/demo/clusters/${name}`);
  await expect(page.getByRole("heading", { name: `There is no cluster ${name}` })).toBeVisible();
  await expectAccessible(page);
});

test("a lost connection is said and healed without a reload", async ({ page, context }) => {
  await page.goto("/");
  await signIn(page);
  await context.setOffline(true);
  await expect(page.getByText("No connection to the portal")).toBeVisible();
  await context.setOffline(false);
  await expect(page.getByText("Connected again")).toBeVisible();
  await expect(page.getByText("No connection to the portal")).toHaveCount(0);
});
