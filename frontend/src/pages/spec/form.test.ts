import { expect, test } from "vitest";

import { field, redis, sandbox, small } from "../../test/portal";
import { controlId, emptyForm, orderOf, parse, specPointer, targetsFor } from "./form";

const form = emptyForm(redis, small, [sandbox]);

test("only what differs from the plan is sent", () => {
  const changed = { ...form, name: "orders", spec: { ...form.spec, shards: "5", memoryGiB: "1.0" } };
  const outcome = orderOf(changed, redis, small, [sandbox]);
  expect(outcome).toMatchObject({ order: { name: "orders", plan: "small", target: "sandbox", spec: { shards: 5 } } });
  expect(outcome).not.toHaveProperty("order.spec.memoryGiB");
});

test("the only target is chosen by itself, of several none is", () => {
  expect(form.target).toBe("sandbox");
  expect(emptyForm(redis, small, [sandbox, { ...sandbox, name: "east" }]).target).toBe("");
});

test("a target that takes no new orders is not offered", () => {
  expect(targetsFor(null, [sandbox, { ...sandbox, name: "east", enabled: false }])).toEqual([sandbox]);
});

test("a plan's targets limit the choice", () => {
  const targets = [sandbox, { ...sandbox, name: "east" }];
  expect(emptyForm(redis, { ...small, targets: ["east"] }, targets).target).toBe("east");
});

test.each([
  ["", "nameMissing"],
  ["Orders", "nameRule"],
  ["1st", "nameRule"],
  ["orders-", "nameRule"],
  ["a".repeat(31), "nameRule"],
])("the name %j is refused", (name, text) => {
  expect(orderOf({ ...form, name }, redis, small, [sandbox])).toMatchObject({ faults: [{ pointer: "/name", text }] });
});

test.each(["a", "a1", "orders-eu-2", "a".repeat(30)])("the name %j is accepted", (name) => {
  expect(orderOf({ ...form, name }, redis, small, [sandbox])).toHaveProperty("order.name", name);
});

test.each([
  ["", "numberMissing"],
  ["many", "numberMissing"],
  ["3.5", "numberWhole"],
  ["2", "numberRange"],
  ["33", "numberRange"],
])("the number %j of shards is refused", (raw, text) => {
  expect(parse(field("shards", { minimum: 3, maximum: 32 }), raw, [])).toMatchObject({ pointer: "/spec/shards", text });
});

test("a number off its steps is refused, decimal steps are exact", () => {
  const memory = field("memory", { kind: "number", minimum: 0.25, maximum: 8, step: 0.05 });
  expect(parse(memory, "0.35", [])).toEqual({ value: 0.35 });
  expect(parse(memory, "0.37", [])).toMatchObject({ text: "numberStep" });
});

test("a number the engine works out may stay empty", () => {
  expect(parse(field("storageGiB", { default: null }), "", [])).toEqual({ value: null });
});

test("a map with a key twice or without a key is refused", () => {
  const config = field("config", { kind: "map", default: {} });
  const entry = (id: number, key: string) => ({ id, key, value: "1" });
  expect(parse(config, [entry(0, "hz"), entry(1, "hz")], [])).toMatchObject({ text: "mapKeyTwice" });
  expect(parse(config, [entry(0, " ")], [])).toMatchObject({ text: "mapKeyMissing" });
  expect(parse(config, [entry(0, "hz")], [])).toEqual({ value: { hz: "1" } });
});

test("a storage class the target lacks is refused", () => {
  expect(parse(field("class", { kind: "storage-class" }), "fast", ["standard"])).toMatchObject({ text: "storageMissing" });
});

test("a pointer into a map belongs to the map's control, a strange one to none", () => {
  const known = new Set(["/name", specPointer("config")]);
  expect(controlId("/spec/config/port", known)).toBe("order-spec-config");
  expect(controlId("/name", known)).toBe("order-name");
  expect(controlId("?limit", known)).toBeNull();
});
