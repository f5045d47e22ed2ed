import { useTranslation } from "react-i18next";

/** Grey bars in the place of what is being loaded. */
export function Loading({ lines = 3 }: { lines?: number }) {
  const { t } = useTranslation();
  return (
    <div className="loading" role="status">
      <span className="hidden">{t("common.loading")}</span>
      {Array.from({ length: lines }, (_, line) => (
        <span key={line} className="loading__bar" />
      ))}
    </div>
  );
}
