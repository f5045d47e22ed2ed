import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Link, useParams } from "react-router";

import { isOpen } from "../../api/operations";
import { isGone } from "../../api/problem";
import type { Cluster, Engine, Operation } from "../../api/types";
import { Loading } from "../../components/Loading";
import { PhaseChip } from "../../components/PhaseChip";
import { ProblemNotice } from "../../components/ProblemNotice";
import { Said } from "../../components/Said";
import { useEngines } from "../../hooks/catalogue";
import { useCluster, useDeletedCluster } from "../../hooks/clusters";
import { useFollowOperation, useLatestOperation } from "../../hooks/operations";
import { canChange, useTenant } from "../tenant";
import { useTitle } from "../useTitle";
import { Addresses } from "./Addresses";
import { Causes } from "./Causes";
import { Connect } from "./Connect";
import { DeleteDialog } from "./DeleteDialog";
import { Events } from "./Events";
import { LossNotice } from "./Loss";
import { Members } from "./Members";
import { MonitoringCard } from "./MonitoringCard";
import { OperationPanel } from "./OperationPanel";
import { PauseNotice } from "./Pause";
import { Settings } from "./Settings";
import { SpreadCard } from "./SpreadCard";
import { Users } from "./Users";

/** The cluster in the address; a fresh page for each. */
export function ClusterPage() {
  const { name = "" } = useParams();
  return <ClusterView key={name} name={name} />;
}

function ClusterView({ name }: { name: string }) {
  const { t } = useTranslation();
  const tenant = useTenant();
  useTitle(name);
  const path = { tenant: tenant.slug, name };
  // Once its deletion has ended there is nothing left to ask for; what we know stays on the page.
  const [isDeleted, setIsDeleted] = useState(false);
  const cluster = useCluster(path, !isDeleted);
  const operation = useLatestOperation(path, cluster.data?.operation?.id ?? null, !isDeleted && cluster.isSuccess);
  const live = useFollowOperation(path, operation.data);
  const engines = useEngines();
  const engine = engines.data?.find((one) => one.name === cluster.data?.engine);

  if (!isDeleted && operation.data && hasDeleted(operation.data)) setIsDeleted(true);
  const crumb = (
    <p className="crumb">
      <Link to={`/t/${tenant.slug}/clusters`}>← {t("cluster.back")}</Link>
    </p>
  );
  if (!cluster.data) {
    if (isGone(cluster.error)) return <Missing name={name} />;
    return (
      <>
        {crumb}
        {cluster.isError ? (
          <ProblemNotice error={cluster.error} onRetry={() => void cluster.refetch()} />
        ) : (
          <Loading lines={6} />
        )}
      </>
    );
  }
  if (isDeleted && operation.data)
    return (
      <>
        {crumb}
        <Deleted name={name} operation={operation.data} />
      </>
    );
  const hasVanished = isGone(cluster.error);
  return (
    <>
      {crumb}
      {hasVanished && (
        <p className="notice notice--warn" role="alert">
          {t("cluster.vanished")}
        </p>
      )}
      <Head cluster={cluster.data} engine={engine} canDelete={canChange(tenant) && !hasVanished} />
      <PauseNotice cluster={cluster.data} mayChange={canChange(tenant) && !hasVanished} />
      <Causes causes={cluster.data.causes} />
      <LossNotice cluster={cluster.data} mayChange={canChange(tenant) && !hasVanished} />
      {operation.data && <OperationPanel operation={operation.data} live={live} mayChange={canChange(tenant) && !hasVanished} />}
      {operation.isError && <ProblemNotice error={operation.error} onRetry={() => void operation.refetch()} />}
      <Connect cluster={cluster.data} mayReveal={canChange(tenant)} />
      <Users cluster={cluster.data} rules={engine?.user_rules} mayChange={canChange(tenant) && !hasVanished} />
      <Members members={cluster.data.members} />
      <SpreadCard cluster={cluster.data} mayChange={canChange(tenant) && !hasVanished} />
      <Settings cluster={cluster.data} engine={engine} mayChange={canChange(tenant) && !hasVanished} />
      <MonitoringCard path={path} isEnabled={!hasVanished} />
      <Addresses path={path} isEnabled={!hasVanished} />
      <Events path={path} isEnabled={!hasVanished} />
    </>
  );
}

function hasDeleted(operation: Operation): boolean {
  return operation.kind === "delete" && operation.state === "succeeded";
}

function Head({ cluster, engine, canDelete }: { cluster: Cluster; engine: Engine | undefined; canDelete: boolean }) {
  const { t } = useTranslation();
  const [isAsking, setIsAsking] = useState(false);
  const isDeleting = cluster.operation?.kind === "delete" && isOpen(cluster.operation);
  return (
    <header className="page-head">
      <div>
        <h1>
          {cluster.name} <PhaseChip phase={cluster.phase} />
        </h1>
        <p className="muted">
          {t("cluster.facts", { engine: engine?.title ?? cluster.engine, version: cluster.version })}
          {cluster.plan && <> · {t("cluster.fromPlan", { plan: cluster.plan })}</>}
          {" · "}
          {t("cluster.onTarget", { target: cluster.target })}
        </p>
        {/* While something is under way its steps say it. */}
        {cluster.reason && !cluster.operation && cluster.causes.length === 0 && (
          <p className="reason">
            <Said>{cluster.reason}</Said>
          </p>
        )}
      </div>
      {canDelete && !isDeleting && (
        <button type="button" className="button button--danger" onClick={() => setIsAsking(true)}>
          {t("cluster.delete")}
        </button>
      )}
      {isAsking && <DeleteDialog cluster={cluster} onClose={() => setIsAsking(false)} />}
    </header>
  );
}

function Missing({ name }: { name: string }) {
  const { t } = useTranslation();
  const tenant = useTenant();
  return (
    <div className="empty">
      <h1>{t("cluster.missing", { name })}</h1>
      <p>{t("cluster.missingHelp")}</p>
      <p>
        <Link className="button" to={`/t/${tenant.slug}/clusters`}>
          {t("cluster.back")}
        </Link>
      </p>
    </div>
  );
}

function Deleted({ name, operation }: { name: string; operation: Operation }) {
  const { t } = useTranslation();
  const tenant = useTenant();
  const deleted = useDeletedCluster({ tenant: tenant.slug, name }, operation.cluster.id);
  return (
    <>
      <h1>{t("cluster.goneTitle", { name })}</h1>
      {deleted.data && <p>{t(deleted.data.volumes_kept ? "cluster.goneKept" : "cluster.goneVolumes")}</p>}
      <OperationPanel operation={operation} live={null} mayChange={false} />
    </>
  );
}
