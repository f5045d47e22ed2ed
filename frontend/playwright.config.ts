import { existsSync } from "node:fs";

import { defineConfig } from "@playwright/test";

// Debian's name, then others'. CHROMIUM says it outright.
const PLACES = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const chromium = process.env.CHROMIUM ?? PLACES.find(existsSync) ?? "/usr/bin/chromium";

/** Drives a running portal (BASE_URL) with the system's Chromium; downloads no browser. */
export default defineConfig({
  testDir: "tests/e2e",
  workers: 1,
  retries: 0,
  forbidOnly: true,
  // Containers have to start on whatever machine this is.
  timeout: 8 * 60_000,
  expect: { timeout: 15_000 },
  reporter: [["list"]],
  outputDir: process.env.E2E_OUTPUT ?? "test-results",
  use: {
    baseURL: process.env.BASE_URL ?? "http://127.0.0.1:8000",
    locale: "en-GB",
    // A trace or a screenshot of the road would hold the password it reveals.
    trace: "off",
    screenshot: "off",
    actionTimeout: 15_000,
    launchOptions: {
      executablePath: chromium,
      args: [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
      ],
    },
  },
});
