import { useTranslation } from "react-i18next";

import type { ClusterPath } from "../../api/clusters";
import type { Reservation } from "../../api/types";
import { Loading } from "../../components/Loading";
import { ProblemNotice } from "../../components/ProblemNotice";
import { Said } from "../../components/Said";
import { Time } from "../../components/Time";
import { useReservations } from "../../hooks/reservations";

/** Which addresses of deleted pods rest, and who had them, newest first. */
export function Addresses({ path, isEnabled }: { path: ClusterPath; isEnabled: boolean }) {
  const { t } = useTranslation();
  const found = useReservations(path, isEnabled);
  const remedies = found.data?.targets.filter(({ remedy }) => remedy) ?? [];
  return (
    <section className="card" aria-labelledby="addresses-title">
      <h2 id="addresses-title">{t("addresses.title")}</h2>
      <p className="muted">{t("addresses.help")}</p>
      {found.isPending && <Loading lines={2} />}
      {found.isError && found.data === undefined && (
        <ProblemNotice error={found.error} onRetry={() => void found.refetch()} />
      )}
      {remedies.map(({ target, installed, remedy }) => (
        <div key={target} className="notice notice--warn" role="note">
          <p className="notice__title">{t(installed ? "addresses.notArmed" : "addresses.notInstalled", { target })}</p>
          <p>
            <Said>{remedy}</Said>
          </p>
        </div>
      ))}
      {found.data?.items.length === 0 && <p className="muted">{t("addresses.none")}</p>}
      {found.data && found.data.items.length > 0 && (
        <ol className="events" aria-labelledby="addresses-title" reversed>
          {found.data.items.map((one) => (
            <Row key={`${one.target} ${one.address} ${one.pod} ${one.since}`} one={one} />
          ))}
        </ol>
      )}
      {found.data?.next && <p className="muted">{t("addresses.more")}</p>}
    </section>
  );
}

function Row({ one }: { one: Reservation }) {
  const { t } = useTranslation();
  const isHeld = one.state !== "released";
  return (
    <li className="event">
      <span className="event__time muted figures">
        <Time at={one.since} />
      </span>
      <span className="event__text">
        <code>{one.address}</code>{" "}
        <span className={`chip chip--${isHeld ? "busy" : "calm"}`}>
          <span aria-hidden="true">{isHeld ? "◐" : "○"}</span> {t(isHeld ? "addresses.held" : "addresses.open")}
        </span>{" "}
        {t("addresses.had", { pod: one.pod, node: one.node })}
        {" · "}
        {t(`addresses.why.${one.end ?? one.state}`)}
        {isHeld && one.until && (
          <>
            {" · "}
            {t("addresses.until")} <Time at={one.until} />
          </>
        )}
        {one.released && (
          <>
            {" · "}
            {t("addresses.since")} <Time at={one.released} />
          </>
        )}
      </span>
    </li>
  );
}
