import { useTranslation } from "react-i18next";

import type { Cause } from "../../api/types";
import { Said } from "../../components/Said";

/** Why the cluster is not well, the likeliest first, each with what can be done. */
export function Causes({ causes }: { causes: readonly Cause[] }) {
  const { t } = useTranslation();
  if (causes.length === 0) return null;
  return (
    <section className="notice notice--warn" aria-labelledby="causes-title">
      <h2 id="causes-title" className="notice__title">
        {t("causes.title", { count: causes.length })}
      </h2>
      <ol className="rules">
        {causes.map(({ code, message, remedy, object }) => (
          <li key={`${code} ${object}`}>
            <p>
              <Said>{message}</Said> {object && <code>{object}</code>}
            </p>
            {remedy && (
              <p className="muted">
                <Said>{remedy}</Said>
              </p>
            )}
          </li>
        ))}
      </ol>
    </section>
  );
}
