import { useTranslation } from "react-i18next";

/** A moment in the reader's own time zone and way of writing. */
export function Time({ at, style = "full" }: { at: string; style?: "full" | "clock" }) {
  const { i18n } = useTranslation();
  const moment = new Date(at);
  const format: Intl.DateTimeFormatOptions =
    style === "clock" ? { timeStyle: "medium" } : { dateStyle: "medium", timeStyle: "medium" };
  return (
    <time dateTime={at} title={moment.toLocaleString(i18n.language, { dateStyle: "full", timeStyle: "long" })}>
      {moment.toLocaleString(i18n.language, format)}
    </time>
  );
}
