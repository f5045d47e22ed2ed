import { useTranslation } from "react-i18next";
import { Link } from "react-router";

import type { Cluster } from "../api/types";
import { Loading } from "../components/Loading";
import { PhaseChip } from "../components/PhaseChip";
import { ProblemNotice } from "../components/ProblemNotice";
import { Said } from "../components/Said";
import { Time } from "../components/Time";
import { useEngines } from "../hooks/catalogue";
import { useClusters } from "../hooks/clusters";
import { canChange, useTenant } from "./tenant";
import { useTitle } from "./useTitle";

export function ClusterListPage() {
  const { t } = useTranslation();
  const tenant = useTenant();
  useTitle(t("list.title"));
  const clusters = useClusters(tenant.slug);
  const rows = clusters.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <>
      <div className="page-head">
        <h1>{t("list.title")}</h1>
        {canChange(tenant) && rows.length > 0 && (
          <Link className="button button--main" to={`/t/${tenant.slug}/order`}>
            {t("list.order")}
          </Link>
        )}
      </div>
      {clusters.isPending && <Loading />}
      {clusters.isError && <ProblemNotice error={clusters.error} onRetry={() => void clusters.refetch()} />}
      {clusters.isSuccess && rows.length === 0 && <Empty />}
      {rows.length > 0 && <ClusterTable rows={rows} />}
      {clusters.hasNextPage && (
        <p>
          <button
            type="button"
            className="button"
            disabled={clusters.isFetchingNextPage}
            onClick={() => void clusters.fetchNextPage()}
          >
            {t("common.more")}
          </button>
        </p>
      )}
    </>
  );
}

function Empty() {
  const { t } = useTranslation();
  const tenant = useTenant();
  return (
    <div className="empty">
      <h2>{t("list.empty")}</h2>
      <p>{t(canChange(tenant) || tenant.suspended ? "list.emptyHelp" : "list.emptyViewer")}</p>
      {canChange(tenant) && (
        <p>
          <Link className="button button--main" to={`/t/${tenant.slug}/order`}>
            {t("list.orderFirst")}
          </Link>
        </p>
      )}
    </div>
  );
}

function ClusterTable({ rows }: { rows: readonly Cluster[] }) {
  const { t } = useTranslation();
  const engines = useEngines();
  const title = (name: string) => engines.data?.find((engine) => engine.name === name)?.title ?? name;
  return (
    <div className="scroll">
      <table className="table">
        <caption className="hidden">{t("list.title")}</caption>
        <thead>
          <tr>
            <th scope="col">{t("list.name")}</th>
            <th scope="col">{t("list.phase")}</th>
            <th scope="col">{t("list.engine")}</th>
            <th scope="col">{t("list.plan")}</th>
            <th scope="col">{t("list.created")}</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((cluster) => (
            <tr key={cluster.id}>
              <th scope="row">
                <Link to={`/t/${cluster.tenant}/clusters/${cluster.name}`}>{cluster.name}</Link>
                {cluster.description && <span className="cell-note cell-note--cut">{cluster.description}</span>}
              </th>
              <td>
                <PhaseChip phase={cluster.phase} />
                <Why cluster={cluster} />
              </td>
              <td>
                {title(cluster.engine)} <span className="muted">{cluster.version}</span>
              </td>
              <td>{cluster.plan ?? "–"}</td>
              <td>
                <Time at={cluster.created} />
                {cluster.created_by && <span className="cell-note">{t("list.createdBy", { name: cluster.created_by })}</span>}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** How far it is and what it waits for, or why it is not well. */
function Why({ cluster }: { cluster: Cluster }) {
  const { t } = useTranslation();
  const { operation } = cluster;
  const reason = operation?.reason || cluster.reason;
  if (!operation && !reason) return null;
  return (
    <span className="cell-note">
      {operation && <>{t("list.working", { percent: operation.percent })} </>}
      {reason && <Said>{reason}</Said>}
    </span>
  );
}
