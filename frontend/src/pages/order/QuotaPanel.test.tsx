import { screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { expect, test } from "vitest";

import type { Forecast, ForecastDraft } from "../../api/types";
import { type Answers, openPage, page, problem, redis, sandbox, small } from "../../test/portal";

const CATALOGUE: Answers = { "GET /engines": page(redis), "GET /plans": page(small), "GET /targets": page(sandbox) };
const ADDRESS = "/t/demo/order?engine=redis&plan=small";
const POST = "POST /tenants/demo/quota/forecast";
const LIMIT = 10;

/** What the portal says of an order of `pods` pods while 4 of 10 are used. */
function forecast(pods: number): Forecast {
  const left = LIMIT - 4 - pods;
  return {
    target: "sandbox",
    fits: left >= 0,
    amounts: [
      { resource: "clusters", unit: "", amount: 1 },
      { resource: "pods", unit: "", amount: pods },
      { resource: "cpu", unit: "millicores", amount: 720 },
      { resource: "storage:fast", unit: "MiB", amount: 1536 },
    ],
    resources: [
      {
        resource: "pods", target: null, unit: "", limit: LIMIT, used: 3, reserved: 1, left: LIMIT - 4, over: false,
        requested: pods, left_after: left, fits: left >= 0,
      },
      {
        resource: "memory", target: null, unit: "MiB", limit: null, used: 0, reserved: 0, left: null, over: false,
        requested: 5, left_after: null, fits: true,
      },
    ],
    violations: [],
    changes: [],
  };
}

const byShards: Answers = {
  ...CATALOGUE,
  [POST]: ({ body }) => ({ body: forecast(Number((body as ForecastDraft).spec?.shards ?? 3)) }),
};

async function type(shards: string) {
  const user = userEvent.setup();
  const input = await screen.findByRole("spinbutton", { name: "Shards" });
  await user.clear(input);
  await user.type(input, shards);
}

const panel = () => screen.findByRole("region", { name: "Of your quota" });

test("what the order takes and what is left after it is shown before anything is ordered", async () => {
  const calls = openPage(ADDRESS, byShards);
  const shown = within(await panel());
  expect(await shown.findByText("This order fits.")).toBeVisible();
  expect(shown.getByText("3 of 10 left after it")).toBeVisible();
  expect(shown.getByText("0.72")).toBeVisible();
  expect(shown.getByText("Storage (fast)", { exact: false })).toHaveTextContent("1.5 GiB");
  expect(shown.queryByText("Memory")).toBeNull();
  expect(calls.filter(({ path }) => path.endsWith("/clusters"))).toEqual([]);
});

test("the answer follows the typing, with one question per pause", async () => {
  const calls = openPage(ADDRESS, byShards);
  const shown = within(await panel());
  await shown.findByText("This order fits.");
  await type("12");
  expect(await shown.findByText("This order does not fit.")).toBeVisible();
  expect(shown.getByText("6 too much for the limit of 10")).toBeVisible();
  expect(shown.getByText(/ask a platform administrator/)).toBeVisible();
  const asked = calls.filter(({ method, path }) => `${method} ${path}` === POST).map(({ body }) => (body as ForecastDraft).spec);
  // Neither the empty field nor the 1 on the way to 12 is worth a question.
  expect(asked).toEqual([{}, { shards: 12 }]);
});

test("a faulty order is not asked about", async () => {
  openPage(ADDRESS, byShards);
  const shown = within(await panel());
  await shown.findByText("This order fits.");
  await type("99");
  expect(await shown.findByText("Shown once the order has no faults.")).toBeVisible();
  expect(shown.queryByText(/left after it/)).toBeNull();
});

test("without an answer the order can be sent all the same", async () => {
  openPage(ADDRESS, { ...CATALOGUE, [POST]: () => problem(500, "internal_error", "No.") });
  const shown = within(await panel());
  await waitFor(() => expect(shown.getByRole("status")).toHaveTextContent("The order itself is checked in any case"), { timeout: 10_000 });
  expect(screen.getByRole("button", { name: "Order" })).toBeEnabled();
}, 15_000);
