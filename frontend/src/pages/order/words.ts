import { useTranslation } from "react-i18next";

/** The words `shown` writes values with. */
export function useWords() {
  const { t } = useTranslation();
  return { on: t("order.on"), off: t("order.off"), none: t("common.none") };
}
