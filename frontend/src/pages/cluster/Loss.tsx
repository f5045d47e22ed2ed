import { type SubmitEvent, useId, useState } from "react";
import { useTranslation } from "react-i18next";

import { isOpen } from "../../api/operations";
import { ApiProblem } from "../../api/problem";
import type { Cluster } from "../../api/types";
import { Dialog } from "../../components/Dialog";
import { ExactInput } from "../../components/ExactInput";
import { FaultSummary } from "../../components/FaultSummary";
import { FormActions } from "../../components/FormActions";
import { FormRow } from "../../components/FormRow";
import { Said } from "../../components/Said";
import { useAcceptLoss, useLossRehearsal } from "../../hooks/clusters";
import { Preview } from "./Preview";

/** Data that is gone, and the way to go on without it. Nothing is shown while it may still come back. */
export function LossNotice({ cluster, mayChange }: { cluster: Cluster; mayChange: boolean }) {
  const { t } = useTranslation();
  const [isAsking, setIsAsking] = useState(false);
  const isBusy = cluster.paused !== null || (cluster.operation !== null && isOpen(cluster.operation));
  if (!cluster.loss) return null;
  return (
    <section className="notice notice--warn" aria-labelledby="loss-title">
      <h2 id="loss-title" className="notice__title">
        {t("loss.title")}
      </h2>
      <p>
        <Said>{cluster.loss.message}</Said>
      </p>
      <p className="muted">{t(isBusy ? "loss.later" : "loss.what")}</p>
      {mayChange && !isBusy && (
        <button type="button" className="button button--danger" onClick={() => setIsAsking(true)}>
          {t("loss.open")}
        </button>
      )}
      {isAsking && <LossDialog cluster={cluster} onClose={() => setIsAsking(false)} />}
    </section>
  );
}

/** Says what is given up, and wants the name typed. */
function LossDialog({ cluster, onClose }: { cluster: Cluster; onClose: () => void }) {
  const { t } = useTranslation();
  const id = useId();
  const { name, revision } = cluster;
  const path = { tenant: cluster.tenant, name };
  const accept = useAcceptLoss(path);
  const [typed, setTyped] = useState("");
  const [attempt, setAttempt] = useState(0);
  const fields = accept.error instanceof ApiProblem ? accept.error.fields : [];
  const rehearsal = useLossRehearsal(path, cluster.loss?.extent ?? "");

  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    if (accept.isPending || rehearsal.data === undefined) return;
    accept.mutate({ revision, confirm: typed }, { onSuccess: onClose, onError: () => setAttempt((count) => count + 1) });
  };

  return (
    <Dialog title={t("loss.ask", { name })} onClose={onClose}>
      <form onSubmit={submit} noValidate>
        {accept.isError && (
          <FaultSummary faults={fields.map(({ message }) => ({ id, message }))} error={accept.error} attempt={attempt} />
        )}
        <Preview rehearsal={rehearsal.data} error={rehearsal.error} />
        <FormRow id={id} label={t("change.confirm", { name })}>
          {(control) => <ExactInput control={control} value={typed} onChange={setTyped} />}
        </FormRow>
        <FormActions submit={t("loss.submit")} busy={t("loss.busy")} isPending={accept.isPending} isDanger onClose={onClose} />
      </form>
    </Dialog>
  );
}
