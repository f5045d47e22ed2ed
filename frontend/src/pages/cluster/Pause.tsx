import { type SubmitEvent, useId, useState } from "react";
import { useTranslation } from "react-i18next";

import type { Cluster } from "../../api/types";
import { Dialog } from "../../components/Dialog";
import { FormActions } from "../../components/FormActions";
import { FormRow } from "../../components/FormRow";
import { ProblemNotice } from "../../components/ProblemNotice";
import { Said } from "../../components/Said";
import { Time } from "../../components/Time";
import { usePauseCluster, useResumeCluster } from "../../hooks/clusters";

/** Says that the portal only watches the cluster: who wanted it so, since when and why; and the way back. */
export function PauseNotice({ cluster, mayChange }: { cluster: Cluster; mayChange: boolean }) {
  const { t } = useTranslation();
  const { paused, name, tenant, revision } = cluster;
  const resume = useResumeCluster({ tenant, name });
  if (!paused) return null;
  const drifted = cluster.conditions.find(({ type, status }) => type === "SettingsInForce" && status === "False");
  return (
    <div className="notice notice--warn" role="status">
      <p className="notice__title">
        {t("pause.notice", { name: paused.by })} <Time at={paused.since} />
      </p>
      <p>{paused.reason}</p>
      <p>{t("pause.means")}</p>
      {drifted && (
        <p>
          {t("pause.drifted")} <Said>{drifted.message}</Said>
        </p>
      )}
      {resume.isError && <ProblemNotice error={resume.error} />}
      {mayChange && (
        <p>
          <button
            type="button"
            className="button"
            aria-disabled={resume.isPending}
            onClick={() => !resume.isPending && resume.mutate({ revision })}
          >
            {resume.isPending ? t("pause.resuming") : t("pause.resume")}
          </button>
        </p>
      )}
    </div>
  );
}

/** Has the portal only watch the cluster, after asking why. */
export function PauseButton({ cluster }: { cluster: Cluster }) {
  const { t } = useTranslation();
  const [isAsking, setIsAsking] = useState(false);
  return (
    <>
      <button type="button" className="button" onClick={() => setIsAsking(true)}>
        {t("pause.open")}
      </button>
      {isAsking && <PauseDialog cluster={cluster} onClose={() => setIsAsking(false)} />}
    </>
  );
}

function PauseDialog({ cluster, onClose }: { cluster: Cluster; onClose: () => void }) {
  const { t } = useTranslation();
  const id = useId();
  const { name, tenant, revision } = cluster;
  const pause = usePauseCluster({ tenant, name });
  const [reason, setReason] = useState("");
  const [isMissing, setIsMissing] = useState(false);
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    if (pause.isPending) return;
    setIsMissing(reason.trim() === "");
    if (reason.trim() !== "") pause.mutate({ revision, reason: reason.trim() }, { onSuccess: onClose });
  };
  return (
    <Dialog title={t("pause.title", { name })} onClose={onClose}>
      <form onSubmit={submit} noValidate>
        {pause.isError && <ProblemNotice error={pause.error} />}
        <p>{t("pause.what")}</p>
        <FormRow
          id={id}
          label={t("pause.reason")}
          help={t("intervene.reasonHelp")}
          fault={isMissing ? t("pause.reasonMissing") : undefined}
        >
          {(control) => (
            <input {...control} value={reason} maxLength={500} required onChange={(event) => setReason(event.target.value)} />
          )}
        </FormRow>
        <FormActions
          submit={t("pause.submit")}
          busy={t("pause.busy")}
          isPending={pause.isPending}
          onClose={onClose}
        />
      </form>
    </Dialog>
  );
}
