import { type SubmitEvent, useId, useState } from "react";
import { useTranslation } from "react-i18next";

import type { Cluster } from "../../api/types";
import { Dialog } from "../../components/Dialog";
import { ExactInput } from "../../components/ExactInput";
import { FormActions } from "../../components/FormActions";
import { FormRow } from "../../components/FormRow";
import { ProblemNotice } from "../../components/ProblemNotice";
import { useUpgradeCluster, useUpgradeRehearsal } from "../../hooks/clusters";
import { Preview } from "./Preview";

interface Props {
  cluster: Cluster;
  /** Where it can go from its version; not empty. */
  versions: readonly string[];
  onClose: () => void;
}

/** Another version for a running cluster: what that does is shown before. */
export function UpgradeDialog({ cluster, versions, onClose }: Props) {
  const { t } = useTranslation();
  const id = useId();
  const { name, tenant, revision } = cluster;
  const upgrade = useUpgradeCluster({ tenant, name });
  const [version, setVersion] = useState(versions[0] ?? "");
  const [typed, setTyped] = useState("");
  const [isWrong, setIsWrong] = useState(false);
  const rehearsal = useUpgradeRehearsal({ tenant, name }, version);
  const isLoss = rehearsal.data?.effects.some(({ effect }) => effect === "loss") ?? false;
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    if (upgrade.isPending || rehearsal.data === undefined) return;
    setIsWrong(isLoss && typed !== name);
    if (!isLoss || typed === name)
      upgrade.mutate({ revision, version, confirm: isLoss ? typed : undefined }, { onSuccess: onClose });
  };
  return (
    <Dialog title={t("upgrade.title", { name })} onClose={onClose}>
      <form onSubmit={submit} noValidate>
        {upgrade.isError && <ProblemNotice error={upgrade.error} />}
        <FormRow id={`${id}-version`} label={t("upgrade.version", { version: cluster.version })}>
          {(control) => (
            <select {...control} value={version} onChange={(event) => setVersion(event.target.value)}>
              {versions.map((one) => (
                <option key={one}>{one}</option>
              ))}
            </select>
          )}
        </FormRow>
        <Preview rehearsal={rehearsal.data} error={rehearsal.error} />
        {isLoss && (
          <FormRow
            id={`${id}-name`}
            label={t("change.confirm", { name })}
            fault={isWrong ? t("remove.confirmWrong", { name }) : undefined}
          >
            {(control) => <ExactInput control={control} value={typed} onChange={setTyped} />}
          </FormRow>
        )}
        <FormActions
          submit={t("upgrade.submit")}
          busy={t("upgrade.busy")}
          isPending={upgrade.isPending}
          isDanger={isLoss}
          onClose={onClose}
        />
      </form>
    </Dialog>
  );
}
