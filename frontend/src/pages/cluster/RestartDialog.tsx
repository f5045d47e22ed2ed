import { type SubmitEvent, useId, useState } from "react";
import { useTranslation } from "react-i18next";

import { ApiProblem } from "../../api/problem";
import type { Cluster } from "../../api/types";
import { Dialog } from "../../components/Dialog";
import { FaultSummary } from "../../components/FaultSummary";
import { ExactInput } from "../../components/ExactInput";
import { FormActions } from "../../components/FormActions";
import { FormRow } from "../../components/FormRow";
import { useRestartCluster, useRestartRehearsal } from "../../hooks/clusters";
import { Preview } from "./Preview";

/** Says what a restart does and how long it takes; wants the name typed where the portal says that it loses data. */
export function RestartDialog({ cluster, onClose }: { cluster: Cluster; onClose: () => void }) {
  const { t } = useTranslation();
  const id = useId();
  const { name, revision } = cluster;
  const restart = useRestartCluster({ tenant: cluster.tenant, name });
  const [typed, setTyped] = useState("");
  const [attempt, setAttempt] = useState(0);
  const fields = restart.error instanceof ApiProblem ? restart.error.fields : [];
  const rehearsal = useRestartRehearsal({ tenant: cluster.tenant, name });
  const isLoss = rehearsal.data?.effects.some(({ effect }) => effect === "loss") ?? false;

  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    if (restart.isPending || rehearsal.data === undefined) return;
    restart.mutate(
      { revision, confirm: typed },
      {
        onSuccess: onClose,
        onError: () => setAttempt((count) => count + 1),
      },
    );
  };

  return (
    <Dialog title={t("restart.title", { name })} onClose={onClose}>
      <form onSubmit={submit} noValidate>
        {restart.isError && (
          <FaultSummary faults={fields.map(({ message }) => ({ id, message }))} error={restart.error} attempt={attempt} />
        )}
        <Preview rehearsal={rehearsal.data} error={rehearsal.error} />
        {isLoss && (
          <FormRow id={id} label={t("change.confirm", { name })}>
            {(control) => <ExactInput control={control} value={typed} onChange={setTyped} />}
          </FormRow>
        )}
        <FormActions
          submit={t("restart.submit")}
          busy={t("restart.busy")}
          isPending={restart.isPending}
          isDanger={isLoss}
          onClose={onClose}
        />
      </form>
    </Dialog>
  );
}
