import { useTranslation } from "react-i18next";
import { Link } from "react-router";

import { useTitle } from "./useTitle";

export function NotFoundPage() {
  const { t } = useTranslation();
  useTitle(t("problem.notFound"));
  return (
    <div className="empty">
      <h1>{t("problem.notFound")}</h1>
      <p>{t("problem.pageMissing")}</p>
      <p>
        <Link className="button" to="/">
          {t("problem.toStart")}
        </Link>
      </p>
    </div>
  );
}
