// The order form without its looks: from field descriptions to raw values, faults and the order. Pure.
import type { ClusterOrder, CopiedOrder, Engine, Field, ForecastDraft, Plan, Target } from "../../api/types";
import { textOf } from "../../components/fieldValue";

export interface Entry {
  id: number;
  key: string;
  value: string;
}

/** What a control holds: text as typed, a switch, or the entries of a map. */
export type Raw = string | boolean | readonly Entry[];

export interface OrderForm {
  name: string;
  version: string;
  target: string;
  description: string;
  spec: Readonly<Record<string, Raw>>;
}

/** A fault found here: where, and a text of the catalogue (below `order.`) with its parameters. */
export interface FormFault {
  pointer: string;
  text:
    | "nameMissing" | "nameRule" | "targetMissing" | "numberMissing" | "numberWhole" | "numberRange"
    | "numberMinimum" | "numberMaximum" | "numberStep" | "storageMissing" | "mapKeyMissing" | "mapKeyTwice";
  values: FaultValues;
}

type FaultValues = Partial<Record<"title" | "name" | "key" | "minimum" | "maximum" | "step", string>>;

const NAME_RULE = /^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$/;

/** Values the cluster gets when nothing is changed: the plan's, then the engine's defaults. */
export function baseValue(field: Field, plan: Plan | null): unknown {
  const values: Record<string, unknown> = plan?.values ?? {};
  return field.key in values ? values[field.key] : field.default;
}

/** A value as its control holds it. */
export function rawOf(field: Field, value: unknown): Raw {
  switch (field.kind) {
    case "boolean":
      return value === true;
    case "map":
      return Object.entries((value ?? {}) as Record<string, unknown>).map(([key, text], id) => ({ id, key, value: textOf(text) }));
    default:
      return textOf(value);
  }
}

/** What was typed into a control that holds text. */
export function textIn(raw: Raw): string {
  return typeof raw === "string" ? raw : "";
}

/** The plans an order can start from on what is there, and the targets a plan may use. */
export function targetsFor(plan: Plan | null, targets: readonly Target[]): Target[] {
  const allowed = plan?.targets ?? [];
  return targets.filter(({ enabled, name }) => enabled && (allowed.length === 0 || allowed.includes(name)));
}

/** The storage classes to choose from: the target's, of those the plan allows. */
export function storageClassesFor(plan: Plan | null, target: Target | undefined): string[] {
  const allowed = plan?.storage_classes ?? [];
  return (target?.storage_classes ?? []).map(({ name }) => name).filter((name) => allowed.length === 0 || allowed.includes(name));
}

/** A fresh form. The target is chosen when there is no choice. */
export function emptyForm(engine: Engine, plan: Plan | null, targets: readonly Target[]): OrderForm {
  const usable = targetsFor(plan, targets);
  return {
    name: "",
    version: engine.versions[0] ?? "",
    target: usable.length === 1 ? (usable[0]?.name ?? "") : "",
    description: "",
    spec: Object.fromEntries(engine.fields.map((field) => [field.key, rawOf(field, baseValue(field, plan))])),
  };
}

/** A form that starts from a copied order; the name has to be a new one. */
export function copiedForm(copy: CopiedOrder, engine: Engine, plan: Plan | null, targets: readonly Target[]): OrderForm {
  const fresh = emptyForm(engine, plan, targets);
  const values: Record<string, unknown> = copy.spec;
  return {
    ...fresh,
    version: copy.version,
    target: targetsFor(plan, targets).some(({ name }) => name === copy.target) ? (copy.target ?? "") : fresh.target,
    description: copy.description,
    spec: Object.fromEntries(engine.fields.map((field) => [field.key, field.key in values ? rawOf(field, values[field.key]) : (fresh.spec[field.key] ?? "")])),
  };
}

export function specPointer(key: string): string {
  return `/spec/${key.replaceAll("~", "~0").replaceAll("/", "~1")}`;
}

/** The id of the control a JSON pointer belongs to; for what is inside a map, the map's. */
export function controlId(pointer: string, known: ReadonlySet<string>): string | null {
  for (let path = pointer; path !== ""; path = path.slice(0, path.lastIndexOf("/")))
    if (known.has(path)) return idOf(path);
  return null;
}

export function idOf(pointer: string): string {
  return `order${pointer.replaceAll(/[/?]/g, "-")}`;
}

/** The JSON value of a control, or what is wrong with it. */
export function parse(field: Field, raw: Raw, classes: readonly string[]): { value: unknown } | FormFault {
  const fault = (text: FormFault["text"], values: FaultValues = {}): FormFault => ({
    pointer: specPointer(field.key),
    text,
    values: { title: field.title, ...values },
  });
  switch (field.kind) {
    case "integer":
    case "number":
      return parseNumber(field, textIn(raw).trim(), fault);
    case "storage-class": {
      const name = textIn(raw);
      return name !== "" && !classes.includes(name) ? fault("storageMissing", { name }) : { value: name };
    }
    case "map": {
      const entries = raw as readonly Entry[];
      if (entries.some(({ key }) => key.trim() === "")) return fault("mapKeyMissing");
      const names = entries.map(({ key }) => key.trim());
      const twice = names.find((key, index) => names.indexOf(key) !== index);
      if (twice !== undefined) return fault("mapKeyTwice", { key: twice });
      return { value: Object.fromEntries(entries.map(({ key, value }) => [key.trim(), value])) };
    }
    default:
      return { value: raw };
  }
}

function parseNumber(
  { kind, minimum, maximum, step, default: standard }: Field,
  text: string,
  fault: (text: FormFault["text"], values?: FaultValues) => FormFault,
): { value: number | null } | FormFault {
  // No default: the engine works it out from the rest.
  if (text === "" && standard === null) return { value: null };
  const value = Number(text);
  if (text === "" || !Number.isFinite(value)) return fault("numberMissing");
  if (kind === "integer" && !Number.isInteger(value)) return fault("numberWhole");
  const limits = { minimum: String(minimum), maximum: String(maximum) };
  const isLow = minimum !== null && value < minimum;
  const isHigh = maximum !== null && value > maximum;
  if ((isLow || isHigh) && minimum !== null && maximum !== null) return fault("numberRange", limits);
  if (isLow) return fault("numberMinimum", limits);
  if (isHigh) return fault("numberMaximum", limits);
  if (step !== null && step > 0 && !isMultiple(value, step) && !isMultiple(value - (minimum ?? 0), step))
    return fault("numberStep", { step: String(step) });
  return { value };
}

function isMultiple(value: number, step: number): boolean {
  const times = value / step;
  return Math.abs(times - Math.round(times)) < 1e-9;
}

/** Whether a control differs from what the plan gives. */
export function isChanged(field: Field, raw: Raw, plan: Plan | null): boolean {
  const parsed = parse(field, raw, typeof raw === "string" ? [raw] : []);
  if (!("value" in parsed)) return true;
  const empty = field.kind === "map" ? {} : "";
  return !isSame(parsed.value ?? empty, baseValue(field, plan) ?? empty);
}

function isSame(left: unknown, right: unknown): boolean {
  if (typeof left !== "object" || typeof right !== "object" || left === null || right === null) return left === right;
  const [one, other] = [left as Record<string, unknown>, right as Record<string, unknown>];
  const names = Object.keys(one);
  return names.length === Object.keys(other).length && names.every((name) => isSame(one[name], other[name]));
}

/** The order as far as quota is concerned, null while it has faults. A name is not needed for that. */
export function draftOf(
  form: OrderForm, engine: Engine, plan: Plan | null, targets: readonly Target[],
): ForecastDraft | null {
  const outcome = orderOf({ ...form, name: "draft" }, engine, plan, targets);
  if ("faults" in outcome) return null;
  const { engine: name, plan: from, target, spec } = outcome.order;
  return { engine: name, plan: from ?? null, target: target ?? null, spec: spec ?? {} };
}

/** The order to send, with only what differs from the plan, or every fault. */
export function orderOf(
  form: OrderForm, engine: Engine, plan: Plan | null, targets: readonly Target[],
): { order: ClusterOrder } | { faults: FormFault[] } {
  const faults: FormFault[] = [];
  const name = form.name.trim();
  if (name === "") faults.push({ pointer: "/name", text: "nameMissing", values: {} });
  else if (!NAME_RULE.test(name)) faults.push({ pointer: "/name", text: "nameRule", values: {} });
  const target = targetsFor(plan, targets).find((one) => one.name === form.target);
  if (!target) faults.push({ pointer: "/target", text: "targetMissing", values: {} });
  const { spec, faults: wrong } = differing(engine.fields, form.spec, plan, storageClassesFor(plan, target));
  faults.push(...wrong);
  if (faults.length > 0) return { faults };
  return {
    order: {
      name,
      engine: engine.name,
      plan: plan?.name ?? null,
      version: form.version || null,
      target: form.target,
      spec,
      description: form.description.trim(),
    },
  };
}

/** The values that differ from what the plan gives, and every fault. */
export function differing(
  fields: readonly Field[], raws: OrderForm["spec"], plan: Plan | null, classes: readonly string[],
): { spec: Record<string, unknown>; faults: FormFault[] } {
  const spec: Record<string, unknown> = {};
  const faults: FormFault[] = [];
  for (const field of fields) {
    const raw = raws[field.key] ?? "";
    const parsed = parse(field, raw, classes);
    if (!("value" in parsed)) faults.push(parsed);
    else if (isChanged(field, raw, plan)) spec[field.key] = parsed.value;
  }
  return { spec, faults };
}
