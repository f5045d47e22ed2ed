import { useTranslation } from "react-i18next";

import type { ClusterPath } from "../../api/clusters";
import { Loading } from "../../components/Loading";
import { ProblemNotice } from "../../components/ProblemNotice";
import { Time } from "../../components/Time";
import { useEvents } from "../../hooks/clusters";

/** What happened, newest first. */
export function Events({ path, isEnabled }: { path: ClusterPath; isEnabled: boolean }) {
  const { t } = useTranslation();
  const events = useEvents(path, isEnabled);
  return (
    <section className="card" aria-labelledby="events-title">
      <h2 id="events-title">{t("cluster.events")}</h2>
      {events.isPending && <Loading lines={2} />}
      {events.isError && events.data === undefined && (
        <ProblemNotice error={events.error} onRetry={() => void events.refetch()} />
      )}
      {events.data?.length === 0 && <p className="muted">{t("cluster.noEvents")}</p>}
      {events.data && events.data.length > 0 && (
        <ul className="events">
          {events.data.map((event) => (
            <li key={event.id} className={event.warning ? "event event--warning" : "event"}>
              <span className="event__time muted figures">
                <Time at={event.last_seen} />
              </span>
              <span className="event__text" lang="en">
                {event.warning && (
                  <span className="chip chip--warn">
                    <span aria-hidden="true">▲</span> {t("cluster.warning")}
                  </span>
                )}{" "}
                {event.message}
                {event.object && !event.message.includes(event.object) && (
                  <>
                    {" "}
                    <code>{event.object}</code>
                  </>
                )}
                {event.count > 1 && <span className="muted"> · {t("cluster.times", { count: event.count })}</span>}
              </span>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}
