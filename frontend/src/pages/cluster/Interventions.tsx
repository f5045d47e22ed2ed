import { type SubmitEvent, useId, useState } from "react";
import { useTranslation } from "react-i18next";

import type { ClusterPath } from "../../api/clusters";
import type { Operation } from "../../api/types";
import { Dialog } from "../../components/Dialog";
import { FormActions } from "../../components/FormActions";
import { FormRow } from "../../components/FormRow";
import { ProblemNotice } from "../../components/ProblemNotice";
import { Time } from "../../components/Time";
import { useCancelOperation, useOverrideGate, useRetryOperation } from "../../hooks/interventions";
import { useSession } from "../../hooks/session";

/** Stops what is under way, after asking; the reason is optional and shown to everybody who sees the cluster. */
export function CancelButton({ operation }: { operation: Operation }) {
  const { t } = useTranslation();
  const [isAsking, setIsAsking] = useState(false);
  return (
    <p>
      <button type="button" className="button" onClick={() => setIsAsking(true)}>
        {t("intervene.cancel")}
      </button>
      {isAsking && <CancelDialog operation={operation} onClose={() => setIsAsking(false)} />}
    </p>
  );
}

function CancelDialog({ operation, onClose }: { operation: Operation; onClose: () => void }) {
  const { t } = useTranslation();
  const id = useId();
  const cancel = useCancelOperation(pathOf(operation));
  const [reason, setReason] = useState("");
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    if (!cancel.isPending) cancel.mutate({ id: operation.id, reason: reason.trim() }, { onSuccess: onClose });
  };
  return (
    <Dialog title={t("intervene.cancelTitle")} onClose={onClose}>
      <form onSubmit={submit} noValidate>
        {cancel.isError && <ProblemNotice error={cancel.error} />}
        <p>{t(operation.kind === "create" ? "intervene.cancelCreate" : "intervene.cancelChange")}</p>
        <FormRow id={id} label={t("intervene.reason")} help={t("intervene.reasonHelp")}>
          {(control) => <input {...control} value={reason} maxLength={500} onChange={(event) => setReason(event.target.value)} />}
        </FormRow>
        <FormActions
          submit={t("intervene.cancelSubmit")}
          busy={t("intervene.canceling")}
          away={t("intervene.goOn")}
          isPending={cancel.isPending}
          isDanger
          onClose={onClose}
        />
      </form>
    </Dialog>
  );
}

type Gate = NonNullable<Operation["gate"]>;

/** The health gate an operation waits at; platform administrators may let it pass, with a reason. */
export function GateNotice({ operation, gate }: { operation: Operation; gate: Gate }) {
  const { t } = useTranslation();
  const { data: session } = useSession();
  const [isAsking, setIsAsking] = useState(false);
  return (
    <div className="notice notice--warn" role="status">
      <p>
        {t("gate.waits", { what: gate.message })} <Time at={gate.since} style="clock" />
      </p>
      <p>{gate.refusal || gate.risk}</p>
      {session?.user?.admin && !gate.refusal && (
        <p>
          <button type="button" className="button" onClick={() => setIsAsking(true)}>
            {t("gate.pass")}
          </button>
        </p>
      )}
      {isAsking && <GateDialog operation={operation} gate={gate} onClose={() => setIsAsking(false)} />}
    </div>
  );
}

function GateDialog({ operation, gate, onClose }: { operation: Operation; gate: Gate; onClose: () => void }) {
  const { t } = useTranslation();
  const id = useId();
  const override = useOverrideGate(pathOf(operation));
  const [reason, setReason] = useState("");
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    if (!override.isPending) override.mutate({ id: operation.id, gate: gate.key, reason: reason.trim() }, { onSuccess: onClose });
  };
  return (
    <Dialog title={t("gate.title")} onClose={onClose}>
      <form onSubmit={submit} noValidate>
        {override.isError && <ProblemNotice error={override.error} />}
        <p>{t("gate.waits", { what: gate.message })}</p>
        <p>{gate.risk}</p>
        <FormRow id={id} label={t("gate.reason")} help={t("intervene.reasonHelp")}>
          {(control) => <input {...control} value={reason} maxLength={500} required onChange={(event) => setReason(event.target.value)} />}
        </FormRow>
        <FormActions
          submit={t("gate.submit")}
          away={t("gate.wait")}
          isPending={override.isPending}
          isDanger
          onClose={onClose}
        />
      </form>
    </Dialog>
  );
}

/** Does again what failed or was canceled. */
export function RetryButton({ operation }: { operation: Operation }) {
  const { t } = useTranslation();
  const retry = useRetryOperation();
  return (
    <>
      {retry.isError && <ProblemNotice error={retry.error} />}
      <p>
        <button
          type="button"
          className="button button--main"
          aria-disabled={retry.isPending}
          onClick={() => {
            if (!retry.isPending) retry.mutate(operation.id);
          }}
        >
          {retry.isPending ? t("intervene.retrying") : t("intervene.retry")}
        </button>
      </p>
    </>
  );
}

function pathOf({ cluster: { tenant, name } }: Operation): ClusterPath {
  return { tenant, name };
}
