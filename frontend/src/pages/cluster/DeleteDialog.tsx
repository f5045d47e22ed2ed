import { type SubmitEvent, useId, useState } from "react";
import { useTranslation } from "react-i18next";

import type { Cluster, VolumesChoice } from "../../api/types";
import { Dialog } from "../../components/Dialog";
import { type Fault, FaultSummary } from "../../components/FaultSummary";
import { ExactInput } from "../../components/ExactInput";
import { FormActions } from "../../components/FormActions";
import { FormRow } from "../../components/FormRow";
import { useDeleteCluster, useDeleteRehearsal } from "../../hooks/clusters";
import { Takes } from "./Preview";

interface Props {
  cluster: Cluster;
  onClose: () => void;
}

/** Says what is lost, keeps the data unless told otherwise, and wants the name typed when it is not kept. */
export function DeleteDialog({ cluster, onClose }: Props) {
  const { t } = useTranslation();
  const id = useId();
  const { name } = cluster;
  const remove = useDeleteCluster({ tenant: cluster.tenant, name });
  const [volumes, setVolumes] = useState<VolumesChoice>("keep");
  const [typed, setTyped] = useState("");
  const [faults, setFaults] = useState<readonly Fault[]>([]);
  const [attempt, setAttempt] = useState(0);
  const nameId = `${id}-name`;
  const isLoss = volumes === "delete";
  const rehearsal = useDeleteRehearsal({ tenant: cluster.tenant, name }, volumes);

  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    if (remove.isPending) return;
    remove.reset();
    const isWrong = isLoss && typed !== name;
    setFaults(isWrong ? [{ id: nameId, message: t("remove.confirmWrong", { name }) }] : []);
    if (isWrong) setAttempt((count) => count + 1);
    else
      remove.mutate(
        { revision: cluster.revision, volumes },
        { onSuccess: onClose, onError: () => setAttempt((count) => count + 1) },
      );
  };
  const choose = (choice: VolumesChoice) => {
    setVolumes(choice);
    setFaults([]);
  };

  return (
    <Dialog title={t("remove.title", { name })} onClose={onClose}>
      <form onSubmit={submit} noValidate>
        {(faults.length > 0 || remove.isError) && (
          <FaultSummary faults={faults} error={remove.isError ? remove.error : null} attempt={attempt} />
        )}
        <p>{t("remove.what")}</p>
        <fieldset className="cards">
          <legend>{t("remove.question")}</legend>
          {(["keep", "delete"] as const).map((choice) => (
            <label key={choice} className={choice === "delete" ? "choice choice--danger" : "choice"}>
              <input
                type="radio"
                name={`${id}-volumes`}
                checked={volumes === choice}
                onChange={() => choose(choice)}
                // The safe choice has the focus first.
                // eslint-disable-next-line jsx-a11y/no-autofocus
                autoFocus={choice === "keep"}
              />
              <span className="choice__title">{t(choice === "keep" ? "remove.keep" : "remove.volumes")}</span>
              <span className="choice__text">{t(choice === "keep" ? "remove.keepHelp" : "remove.volumesHelp")}</span>
            </label>
          ))}
        </fieldset>
        {rehearsal.data && <Takes operation={rehearsal.data.operation} />}
        {isLoss && (
          <FormRow id={nameId} label={t("remove.confirm", { name })} fault={faults[0]?.message}>
            {(control) => <ExactInput control={control} value={typed} onChange={setTyped} />}
          </FormRow>
        )}
        <FormActions
          submit={t(isLoss ? "remove.submitVolumes" : "remove.submitKeep")}
          busy={t("remove.busy")}
          isPending={remove.isPending}
          isDanger
          onClose={onClose}
        />
      </form>
    </Dialog>
  );
}
