import { useTranslation } from "react-i18next";

/** The browser's own variant of the page's language, such as en-GB for en: it decides how times are written. */
function variant(language: string): string {
  return navigator.languages.find((tag) => tag.split("-")[0] === language.split("-")[0]) ?? language;
}

/** A moment in the reader's own time zone and way of writing. */
export function Time({ at, style = "full" }: { at: string; style?: "full" | "clock" }) {
  const { i18n } = useTranslation();
  const moment = new Date(at);
  const locale = variant(i18n.language);
  const format: Intl.DateTimeFormatOptions =
    style === "clock" ? { timeStyle: "medium" } : { dateStyle: "medium", timeStyle: "medium" };
  return (
    <time dateTime={at} title={moment.toLocaleString(locale, { dateStyle: "full", timeStyle: "long" })}>
      {moment.toLocaleString(locale, format)}
    </time>
  );
}
