import { useTranslation } from "react-i18next";

import type { Field } from "../api/types";

/** A JSON value as one types it: texts bare, nothing for null. */
export function textOf(value: unknown): string {
  if (typeof value === "string") return value;
  return value === null || value === undefined ? "" : JSON.stringify(value);
}

/** Writes the value of a plan field in one line: "2 GiB", "on", "3", "a=1, b=2". */
export function useFieldValue(): (field: Field, value: unknown) => string {
  const { t } = useTranslation();
  return (field, value) => {
    if (typeof value === "boolean") return t(value ? "order.on" : "order.off");
    if (value === null || value === undefined || value === "") return t("common.none");
    if (typeof value === "object") {
      const entries = Object.entries(value as Record<string, unknown>);
      return entries.length === 0 ? t("common.none") : entries.map(([key, text]) => `${key}=${textOf(text)}`).join(", ");
    }
    return field.unit ? `${textOf(value)} ${field.unit}` : textOf(value);
  };
}
