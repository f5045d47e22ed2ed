import { type SubmitEvent, useState } from "react";
import { useTranslation } from "react-i18next";

import { ApiProblem } from "../../api/problem";
import type { Cluster, Engine, Target } from "../../api/types";
import { type Fault, FaultSummary } from "../../components/FaultSummary";
import { ExactInput } from "../../components/ExactInput";
import { FormActions } from "../../components/FormActions";
import { FormRow } from "../../components/FormRow";
import { useChangeCluster, useRehearsal } from "../../hooks/clusters";
import { FieldGroup, groupsOf } from "../spec/FieldGroup";
import { controlId, idOf, type OrderForm, type Raw, specPointer } from "../spec/form";
import { SpecField } from "../spec/SpecField";
import { changeable, patchOf, presentAsPlan, presentForm } from "./change";
import { Preview } from "./Preview";

interface Props {
  cluster: Cluster;
  engine: Engine;
  target: Target | undefined;
  onClose: () => void;
}

const CONFIRM = "/confirm";

/** New values for a running cluster; what they would do is asked of the portal while typing, and shown before. */
export function ChangeForm({ cluster, engine, target, onClose }: Props) {
  const { t } = useTranslation();
  const path = { tenant: cluster.tenant, name: cluster.name };
  const change = useChangeCluster(path);
  const fields = changeable(engine);
  // As it was when the form was opened: what others change meanwhile is refused, not overwritten.
  const [start] = useState(cluster);
  const [raws, setRaws] = useState<OrderForm["spec"]>(() => presentForm(cluster, fields));
  const [typed, setTyped] = useState("");
  const [faults, setFaults] = useState<readonly Fault[]>([]);
  const [attempt, setAttempt] = useState(0);

  const patch = patchOf(start, fields, raws, target);
  const hasChanges = Object.keys(patch.spec).length > 0;
  const rehearsal = useRehearsal(path, hasChanges && patch.faults.length === 0 ? patch.spec : null);
  const impacts = rehearsal.isCurrent ? (rehearsal.data?.effects ?? []) : [];
  const isLoss = impacts.some(({ effect }) => effect === "loss");
  const known = new Set(fields.map(({ key }) => specPointer(key)));
  const faultAt = (id: string) => {
    const messages = faults.filter((fault) => fault.id === id).map(({ message }) => message);
    return messages.length > 0 ? messages.join(" ") : undefined;
  };
  const complain = (found: readonly Fault[]) => {
    setFaults(found);
    setAttempt((count) => count + 1);
  };

  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    if (change.isPending) return;
    change.reset();
    const found: Fault[] = patch.faults.map(({ pointer, text, values }) => ({
      id: idOf(pointer), message: t(`order.${text}`, values),
    }));
    if (isLoss && typed !== cluster.name)
      found.push({ id: idOf(CONFIRM), message: t("remove.confirmWrong", { name: cluster.name }) });
    if (!hasChanges && found.length === 0) found.push({ id: null, message: t("change.nothing") });
    if (found.length > 0) {
      complain(found);
      return;
    }
    setFaults([]);
    const wish = { revision: start.revision, spec: patch.spec, confirm: isLoss ? typed : undefined };
    change.mutate(wish, {
      onSuccess: onClose,
      onError: (error) => {
        const told = error instanceof ApiProblem ? error.fields : [];
        complain(told.map(({ pointer, message }) => ({ id: controlId(pointer, known), message })));
      },
    });
  };
  const set = (key: string, raw: Raw) => setRaws((before) => ({ ...before, [key]: raw }));

  return (
    <form onSubmit={submit} noValidate aria-labelledby="change-title">
      <h2 id="change-title">{t("change.title", { name: cluster.name })}</h2>
      {(faults.length > 0 || change.isError) && (
        <FaultSummary faults={faults} error={change.isError ? change.error : null} attempt={attempt} />
      )}
      {groupsOf(fields).map(([group, members]) => (
        <FieldGroup
          key={group}
          title={group}
          fields={members}
          draw={(field) => (
            <SpecField
              key={field.key}
              field={field}
              raw={raws[field.key] ?? ""}
              plan={presentAsPlan(start)}
              target={target}
              fault={faultAt(idOf(specPointer(field.key)))}
              onChange={(raw) => set(field.key, raw)}
            />
          )}
          hasFault={(field) => faultAt(idOf(specPointer(field.key))) !== undefined}
        />
      ))}
      <section className="card" aria-labelledby="change-effects">
        <h3 id="change-effects">{t("change.effects")}</h3>
        {!hasChanges && <p className="muted">{t("change.untouched")}</p>}
        {patch.faults.length > 0 && <p className="muted">{t("quota.unfinished")}</p>}
        {hasChanges && patch.faults.length === 0 && (
          <Preview rehearsal={rehearsal.isCurrent ? rehearsal.data : undefined} error={rehearsal.isCurrent ? rehearsal.error : null} />
        )}
        {isLoss && (
          <FormRow id={idOf(CONFIRM)} label={t("change.confirm", { name: cluster.name })} fault={faultAt(idOf(CONFIRM))}>
            {(control) => <ExactInput control={control} value={typed} onChange={setTyped} />}
          </FormRow>
        )}
        <FormActions
          submit={t("change.submit")}
          busy={t("change.busy")}
          isPending={change.isPending}
          isDanger={isLoss}
          onClose={onClose}
        />
      </section>
    </form>
  );
}
