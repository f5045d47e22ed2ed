import { useTranslation } from "react-i18next";

import type { ClusterPath } from "../../api/clusters";
import type { Alert, Monitoring } from "../../api/types";
import { Loading } from "../../components/Loading";
import { ProblemNotice } from "../../components/ProblemNotice";
import { Said } from "../../components/Said";
import { Time } from "../../components/Time";
import { useAlerts, useMonitoring } from "../../hooks/monitoring";

/** What fires about the cluster, and where its metrics and its dashboard are. */
export function MonitoringCard({ path, isEnabled }: { path: ClusterPath; isEnabled: boolean }) {
  const { t } = useTranslation();
  const alerts = useAlerts(path, isEnabled);
  const monitoring = useMonitoring(path, isEnabled);
  return (
    <section className="card" aria-labelledby="monitoring-title">
      <h2 id="monitoring-title">{t("monitoring.title")}</h2>
      {alerts.isPending && <Loading lines={2} />}
      {alerts.isError && <ProblemNotice error={alerts.error} onRetry={() => void alerts.refetch()} />}
      {alerts.isSuccess && !alerts.data.configured && (
        <p className="muted">
          {t("monitoring.notConfigured")} <Said>{alerts.data.remedy}</Said>
        </p>
      )}
      {alerts.isSuccess && alerts.data.configured && alerts.data.items.length === 0 && (
        <p className="muted">{t("monitoring.none")}</p>
      )}
      {alerts.isSuccess && alerts.data.items.length > 0 && (
        <ul className="events" aria-labelledby="monitoring-title">
          {alerts.data.items.map((alert) => (
            <Row key={alert.id} alert={alert} />
          ))}
        </ul>
      )}
      {alerts.data?.next && <p className="muted">{t("monitoring.more")}</p>}
      {monitoring.data && <Metrics found={monitoring.data} />}
    </section>
  );
}

function Row({ alert }: { alert: Alert }) {
  const { t } = useTranslation();
  const isQuiet = alert.state !== "firing" || alert.severity === "info";
  return (
    <li className="event">
      <span className="event__time muted figures">
        <Time at={alert.since} />
      </span>
      <span className="event__text">
        <span className={`chip chip--${isQuiet ? "calm" : alert.severity === "critical" ? "bad" : "warn"}`}>
          <span aria-hidden="true">{isQuiet ? "○" : "▲"}</span> {alert.severity || t("monitoring.alert")}
        </span>{" "}
        {alert.state !== "firing" && <>{t(`monitoring.${alert.state}`)} · </>}
        <Said>{alert.summary || alert.name}</Said>
        {alert.description && (
          <>
            <br />
            <span className="muted">
              <Said>{alert.description}</Said>
            </span>
          </>
        )}
        {alert.runbook && (
          <>
            {" "}
            <Runbook at={alert.runbook} />
          </>
        )}
      </span>
    </li>
  );
}

/** A link where it is an address; rules may come from anywhere, so no other scheme is followed. */
function Runbook({ at }: { at: string }) {
  const { t } = useTranslation();
  return /^https?:\/\//.test(at) ? (
    <a href={at} target="_blank" rel="noreferrer">
      {t("monitoring.runbook")}
    </a>
  ) : (
    <code>{at}</code>
  );
}

function Metrics({ found }: { found: Monitoring }) {
  const { t } = useTranslation();
  if (found.metrics.length === 0) return <p className="muted">{t("monitoring.noMetrics")}</p>;
  return (
    <>
      {found.dashboard && (
        <p>
          <a href={found.dashboard} target="_blank" rel="noreferrer">
            {t("monitoring.dashboard")}
          </a>
        </p>
      )}
      <details>
        <summary>{t("monitoring.metrics", { count: found.metrics.length })}</summary>
        <ul>
          {found.metrics.map(({ pod, host, port }) => (
            <li key={pod}>
              <code>
                http://{host}:{port}/metrics
              </code>
            </li>
          ))}
        </ul>
      </details>
    </>
  );
}
