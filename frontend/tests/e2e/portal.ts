// What the tests of the page share: who signs in, and what every page must hold.
import { readFileSync } from "node:fs";

import { AxeBuilder } from "@axe-core/playwright";
import { expect, type Page, test as base } from "@playwright/test";

function fromFile(variable: string): string {
  const path = process.env[variable];
  if (!path) throw new Error(`${variable} is not set: name a file that holds the value.`);
  return readFileSync(path, "utf8").trim();
}

/** `page` fails the test when the browser reports an error, such as a breach of the Content-Security-Policy. */
export const test = base.extend({
  page: async ({ page }, use) => {
    const errors: string[] = [];
    page.on("pageerror", (error) => errors.push(error.message));
    page.on("console", (message) => {
      // Answers such as 404 and 422 are shown by the page; the browser logs them too.
      if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) errors.push(message.text());
    });
    await use(page);
    expect(errors).toEqual([]);
  },
});

export async function signIn(page: Page): Promise<void> {
  await page.getByLabel("User name").fill(fromFile("BERTH_USER_FILE"));
  await page.getByLabel("Password").fill(fromFile("BERTH_PASSWORD_FILE"));
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page.getByRole("heading", { name: "Clusters", exact: true })).toBeVisible();
}

/** No fault that axe can find, in the light and in the dark look. */
export async function expectAccessible(page: Page): Promise<void> {
  for (const colorScheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    const { violations } = await new AxeBuilder({ page }).analyze();
    const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
    expect(found, `axe, ${colorScheme}`).toEqual([]);
  }
  await page.emulateMedia({ colorScheme: "light", reducedMotion: null });
}
