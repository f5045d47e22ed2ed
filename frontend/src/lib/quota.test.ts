import { expect, test } from "vitest";

import { amountText, resourceParts, share } from "./quota";

test("amounts are shown in cores and GiB", () => {
  expect(amountText(720, "millicores", "en")).toBe("0.72");
  expect(amountText(1056, "MiB", "en")).toBe("1.03 GiB");
  expect(amountText(12000, "", "en")).toBe("12,000");
});

test("a resource says what it is of", () => {
  expect(resourceParts("storage:a:b")).toEqual({ kind: "storage", of: "a:b" });
  expect(resourceParts("pods")).toEqual({ kind: "pods", of: "" });
});

test("a share stays between nothing and all", () => {
  expect([share(5, 10), share(15, 10), share(-1, 10), share(0, 0)]).toEqual([50, 100, 0, 100]);
});
