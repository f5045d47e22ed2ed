import { useTranslation } from "react-i18next";

import { isOpen } from "../../api/operations";
import type { Cluster } from "../../api/types";
import { ProblemNotice } from "../../components/ProblemNotice";
import { Said } from "../../components/Said";
import { useRebalanceMasters, useRebalanceRehearsal } from "../../hooks/clusters";
import { Preview } from "./Preview";

/** How the members stand on the nodes: the rules, the counts, and the button that makes masters even again. */
export function SpreadCard({ cluster, mayChange }: { cluster: Cluster; mayChange: boolean }) {
  const { t } = useTranslation();
  const path = { tenant: cluster.tenant, name: cluster.name };
  const rebalance = useRebalanceMasters(path);
  const { spread } = cluster;
  const isBusy = cluster.paused !== null || (cluster.operation !== null && isOpen(cluster.operation));
  const mayRepair = mayChange && !isBusy && spread !== null && spread.hand_overs > 0;
  const rehearsal = useRebalanceRehearsal(path, spread?.hand_overs ?? 0, mayRepair);
  if (!spread) return null;
  const hasZone = spread.nodes.some(({ zone }) => zone);
  return (
    <section className="card" aria-labelledby="spread-title">
      <div className="card__head">
        <h2 id="spread-title">{t("spread.title")}</h2>
        {mayRepair && (
          <button
            type="button"
            className="button"
            aria-disabled={rebalance.isPending}
            onClick={() => !rebalance.isPending && rebalance.mutate({ revision: cluster.revision })}
          >
            {rebalance.isPending ? t("spread.busy") : t("spread.repair")}
          </button>
        )}
      </div>
      {rebalance.isError && <ProblemNotice error={rebalance.error} />}
      <ul className="rules" aria-label={t("spread.rules")}>
        {spread.invariants.map(({ key, holds, message }) => (
          <li key={key}>
            <span className={`chip chip--${holds === null ? "calm" : holds ? "good" : "warn"}`}>
              <span aria-hidden="true">{holds === null ? "○" : holds ? "●" : "▲"}</span>{" "}
              {t(holds === null ? "spread.unknown" : holds ? "spread.holds" : "spread.broken")}
            </span>{" "}
            <Said>{message}</Said>
          </li>
        ))}
      </ul>
      {mayRepair && <Preview rehearsal={rehearsal.data} error={rehearsal.error} />}
      {spread.nodes.length > 0 && (
        <div className="scroll">
          <table className="table" aria-labelledby="spread-title">
            <thead>
              <tr>
                <th scope="col">{t("cluster.node")}</th>
                {hasZone && <th scope="col">{t("cluster.zone")}</th>}
                <th scope="col">{t("spread.masters")}</th>
                <th scope="col">{t("spread.members")}</th>
              </tr>
            </thead>
            <tbody>
              {spread.nodes.map(({ node, zone, masters, members }) => (
                <tr key={node}>
                  <th scope="row">
                    <code>{node}</code>
                  </th>
                  {hasZone && <td>{zone || "–"}</td>}
                  <td>{masters}</td>
                  <td>{members}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}
