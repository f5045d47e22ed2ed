import { useTranslation } from "react-i18next";

import type { Member } from "../../api/types";

/** The processes of a cluster. Columns nobody fills are left out. */
export function Members({ members }: { members: readonly Member[] }) {
  const { t } = useTranslation();
  const hasShard = members.some(({ shard }) => shard);
  const hasZone = members.some(({ zone }) => zone);
  const hasDetail = members.some(({ detail }) => detailText(detail));
  return (
    <section className="card" aria-labelledby="members-title">
      <h2 id="members-title">{t("cluster.members")}</h2>
      {members.length === 0 ? (
        <p className="muted">{t("cluster.noMembers")}</p>
      ) : (
        <div className="scroll">
          <table className="table" aria-labelledby="members-title">
            <thead>
              <tr>
                <th scope="col">{t("cluster.pod")}</th>
                {hasShard && <th scope="col">{t("cluster.shard")}</th>}
                <th scope="col">{t("cluster.role")}</th>
                <th scope="col">{t("cluster.health")}</th>
                <th scope="col">{t("cluster.node")}</th>
                {hasZone && <th scope="col">{t("cluster.zone")}</th>}
                {hasDetail && <th scope="col">{t("cluster.detail")}</th>}
              </tr>
            </thead>
            <tbody>
              {members.map((member) => (
                <tr key={member.pod}>
                  <th scope="row">
                    <code>{member.pod}</code>
                  </th>
                  {hasShard && <td>{member.shard || "–"}</td>}
                  <td lang="en">{member.role || "–"}</td>
                  <td>
                    <span className={`chip chip--${member.healthy ? "good" : "warn"}`}>
                      <span aria-hidden="true">{member.healthy ? "●" : "▲"}</span>{" "}
                      {t(member.healthy ? "cluster.healthy" : "cluster.unhealthy")}
                    </span>
                  </td>
                  <td>{member.node || "–"}</td>
                  {hasZone && <td>{member.zone || "–"}</td>}
                  {hasDetail && (
                    <td className="muted" lang="en">
                      {detailText(member.detail)}
                    </td>
                  )}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}

/** "slots 0-5460, lag 0" from the engine's own small facts. */
function detailText(detail: Record<string, unknown>): string {
  return Object.entries(detail)
    .filter(([, value]) => value !== "" && value !== null)
    .map(([key, value]) => `${key.replaceAll("_", " ")} ${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(", ");
}
