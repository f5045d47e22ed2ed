const MIB_PER_GIB = 1024;
const MILLICORES_PER_CORE = 1000;

/** A resource key of the API, "storage:fast-ssd", as its kind and what it is of. */
export function resourceParts(resource: string): { kind: string; of: string } {
  const colon = resource.indexOf(":");
  return colon < 0 ? { kind: resource, of: "" } : { kind: resource.slice(0, colon), of: resource.slice(colon + 1) };
}

/** An amount in the unit people think in: cores and GiB instead of millicores and MiB. */
export function amountText(amount: number, unit: string, language: string): string {
  const number = (value: number) => new Intl.NumberFormat(language, { maximumFractionDigits: 2 }).format(value);
  if (unit === "millicores") return number(amount / MILLICORES_PER_CORE);
  if (unit === "MiB") return `${number(amount / MIB_PER_GIB)} GiB`;
  return number(amount);
}

/** How much of a whole a part is, in percent from 0 to 100; all of a whole of nothing. */
export function share(part: number, whole: number): number {
  return whole <= 0 ? 100 : Math.min(100, Math.max(0, (part / whole) * 100));
}
