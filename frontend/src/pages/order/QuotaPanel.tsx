import { useTranslation } from "react-i18next";

import { isTemporary } from "../../api/problem";
import type { ForecastDraft, ForecastStanding } from "../../api/types";
import { useResourceLabel } from "../../components/resourceLabel";
import { useForecast } from "../../hooks/quota";
import { amountText, share } from "../../lib/quota";

/** What the order as it stands would take of the tenant's quota, asked while typing. `draft` null: it has faults. */
export function QuotaPanel({ tenant, draft }: { tenant: string; draft: ForecastDraft | null }) {
  const { t, i18n } = useTranslation();
  const forecast = useForecast(tenant, draft);
  const label = useResourceLabel();
  const found = draft === null ? undefined : forecast.data;
  const limited = (found?.resources ?? []).filter(({ limit }) => limit !== null);
  const amounts = (found?.amounts ?? []).filter(({ resource }) => !resource.startsWith("clusters"));
  const said = () => {
    if (draft === null) return t("quota.unfinished");
    if (forecast.isError) return isTemporary(forecast.error) ? t("quota.unknown") : t("quota.unfinished");
    if (!found) return t("quota.asking");
    return found.fits ? t("quota.fits") : t("quota.tooMuch");
  };
  const isTooMuch = found !== undefined && !found.fits && !forecast.isError;
  return (
    <section className="quota" aria-labelledby="order-quota">
      <h3 id="order-quota">{t("quota.title")}</h3>
      <p className={isTooMuch ? "notice notice--warn" : "muted"} role="status">
        {said()}
      </p>
      {found && !forecast.isError && (
        <>
          <p className="quota__takes">
            {amounts.map(({ resource, unit, amount }) => (
              <span key={resource}>
                {label(resource)} <b>{amountText(amount, unit, i18n.language)}</b>
              </span>
            ))}
          </p>
          <ul className="quota__limits">
            {limited.map((one) => (
              <Limit key={`${one.resource} ${one.target ?? ""}`} standing={one} />
            ))}
          </ul>
          {isTooMuch && <p className="muted">{t("quota.remedy")}</p>}
        </>
      )}
    </section>
  );
}

/** One limit: what is held, what this order adds, what is left. */
function Limit({ standing }: { standing: ForecastStanding }) {
  const { t, i18n } = useTranslation();
  const label = useResourceLabel();
  const { resource, target, unit, used, reserved, requested, left_after: left, fits } = standing;
  const limit = standing.limit ?? 0;
  const held = used + reserved;
  const shown = (amount: number) => amountText(amount, unit, i18n.language);
  const name = target === null ? label(resource) : t("quota.onTarget", { name: label(resource), target });
  return (
    <li className={fits ? "quota__limit" : "quota__limit quota__limit--over"}>
      <span className="quota__name">{name}</span>
      <span className="quota__left">
        {(left ?? 0) >= 0
          ? t("quota.left", { left: shown(left ?? 0), limit: shown(limit) })
          : t("quota.short", { short: shown(-(left ?? 0)), limit: shown(limit) })}
      </span>
      <span className="quota__bar" aria-hidden="true">
        <span className="quota__held" style={{ inlineSize: `${share(held, limit)}%` }} />
        <span className="quota__asked" style={{ inlineSize: `${share(Math.min(requested, limit - held), limit)}%` }} />
      </span>
    </li>
  );
}
