import { type SubmitEvent, useState } from "react";
import { useTranslation } from "react-i18next";
import { useNavigate } from "react-router";

import { ApiProblem } from "../../api/problem";
import type { CopiedOrder, Engine, Field, Plan, Target } from "../../api/types";
import { type Fault, FaultSummary } from "../../components/FaultSummary";
import { ExactInput } from "../../components/ExactInput";
import { FormRow } from "../../components/FormRow";
import { useFieldValue } from "../../components/fieldValue";
import { Said } from "../../components/Said";
import { useCreateCluster } from "../../hooks/clusters";
import { canChange, useTenant } from "../tenant";
import {
  controlId, copiedForm, draftOf, emptyForm, idOf, isChanged, orderOf, type OrderForm, parse, type Raw, specPointer, targetsFor,
} from "../spec/form";
import { FieldGroup, groupsOf } from "../spec/FieldGroup";
import { QuotaPanel } from "./QuotaPanel";
import { SpecField } from "../spec/SpecField";

interface Props {
  engine: Engine;
  plan: Plan | null;
  targets: readonly Target[];
  /** The order of another cluster to start from. */
  copy: CopiedOrder | null;
}

const CONFIRM = "?confirm";
const OWN_POINTERS = ["/name", "/version", "/target", "/description", CONFIRM];

/** The form below engine and plan, and the order as it stands beside it. */
export function OrderDetails({ engine, plan, targets, copy }: Props) {
  const { t } = useTranslation();
  const tenant = useTenant();
  const navigate = useNavigate();
  const create = useCreateCluster(tenant.slug);
  const [form, setForm] = useState<OrderForm>(() =>
    copy ? copiedForm(copy, engine, plan, targets) : emptyForm(engine, plan, targets),
  );
  const [faults, setFaults] = useState<readonly Fault[]>([]);
  const [attempt, setAttempt] = useState(0);
  // The name typed again, once the portal has asked for that; what was typed for another name does not count.
  const [confirm, setConfirm] = useState<string>();

  const usable = targetsFor(plan, targets);
  const target = usable.find(({ name }) => name === form.target);
  const known = new Set([...OWN_POINTERS, ...engine.fields.map(({ key }) => specPointer(key))]);
  const faultAt = (pointer: string) => {
    const messages = faults.filter(({ id }) => id === idOf(pointer)).map(({ message }) => message);
    return messages.length > 0 ? messages.join(" ") : undefined;
  };

  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    if (create.isPending) return;
    create.reset();
    const outcome = orderOf(form, engine, plan, targets);
    if ("faults" in outcome) {
      setFaults(outcome.faults.map(({ pointer, text, values }) => ({ id: idOf(pointer), message: t(`order.${text}`, values) })));
      setAttempt((count) => count + 1);
      return;
    }
    setFaults([]);
    const order = { ...outcome.order, ...(copy && { labels: copy.labels }) };
    create.mutate({ order, confirm: confirm || undefined }, {
      onSuccess: ({ cluster }) => void navigate(`/t/${tenant.slug}/clusters/${cluster.name}`),
      onError: (error) => {
        const fields = error instanceof ApiProblem ? error.fields : [];
        setFaults(fields.map(({ pointer, message }) => ({ id: controlId(pointer, known), message })));
        if (fields.some(({ pointer }) => pointer === CONFIRM)) setConfirm((typed) => typed ?? "");
        setAttempt((count) => count + 1);
      },
    });
  };
  const set = (change: Partial<OrderForm>) => setForm((before) => ({ ...before, ...change }));
  const setSpec = (key: string, raw: Raw) => setForm((before) => ({ ...before, spec: { ...before.spec, [key]: raw } }));

  if (usable.length === 0)
    return (
      <div className="empty">
        <h2>{t("order.noTarget")}</h2>
        <p>{t("order.noTargetHelp")}</p>
      </div>
    );
  const isRefused = faults.length > 0 || create.isError;
  return (
    <form className="order" onSubmit={submit} noValidate aria-labelledby="order-details">
      <div className="order__main">
        <h2 id="order-details">{t("order.details")}</h2>
        {isRefused && <FaultSummary faults={faults} error={create.isError ? create.error : null} attempt={attempt} />}
        <section className="card">
          <FormRow
            id={idOf("/name")}
            label={t("order.name")}
            help={
              <>
                <span className="row__line">{t("order.nameHelp")}</span>
                <span className="row__line effect effect--fixed">{t("order.fixed")}</span>
              </>
            }
            fault={faultAt("/name")}
          >
            {(control) => (
              <ExactInput control={control} value={form.name} maxLength={30} onChange={(name) => set({ name })} />
            )}
          </FormRow>
          {engine.versions.length > 1 && (
            <FormRow id={idOf("/version")} label={t("order.version")} fault={faultAt("/version")}>
              {(control) => (
                <select {...control} value={form.version} onChange={(event) => set({ version: event.target.value })}>
                  {engine.versions.map((version, index) => (
                    <option key={version} value={version}>
                      {index === 0 ? t("order.versionDefault", { version }) : version}
                    </option>
                  ))}
                </select>
              )}
            </FormRow>
          )}
          {(usable.length > 1 || usable[0]?.reachable === false) && (
            <TargetChoice targets={usable} chosen={form.target} fault={faultAt("/target")} onChange={(name) => set({ target: name })} />
          )}
          <FormRow
            id={idOf("/description")}
            label={t("order.description")}
            help={t("order.descriptionHelp")}
            fault={faultAt("/description")}
          >
            {(control) => (
              <textarea
                {...control}
                rows={2}
                maxLength={2000}
                value={form.description}
                onChange={(event) => set({ description: event.target.value })}
              />
            )}
          </FormRow>
        </section>
        {groupsOf(engine.fields).map(([group, fields]) => (
          <FieldGroup
            key={group}
            title={group}
            fields={fields}
            draw={(field) => (
              <SpecField
                key={field.key}
                field={field}
                raw={form.spec[field.key] ?? ""}
                plan={plan}
                target={target}
                fault={faultAt(specPointer(field.key))}
                onChange={(raw) => setSpec(field.key, raw)}
              />
            )}
            hasFault={(field) => faultAt(specPointer(field.key)) !== undefined}
          />
        ))}
      </div>
      <aside className="order__side card" aria-labelledby="order-summary">
        <h2 id="order-summary">{t("order.summary")}</h2>
        <Summary engine={engine} plan={plan} form={form} target={target} />
        {canChange(tenant) && <QuotaPanel tenant={tenant.slug} draft={draftOf(form, engine, plan, targets)} />}
        {confirm !== undefined && (
          <FormRow id={idOf(CONFIRM)} label={t("change.confirm", { name: form.name })} fault={faultAt(CONFIRM)}>
            {(control) => <ExactInput control={control} value={confirm} maxLength={30} onChange={setConfirm} />}
          </FormRow>
        )}
        <button className="button button--main button--wide" aria-disabled={create.isPending} disabled={!canChange(tenant)}>
          {create.isPending ? t("order.busy") : t("order.submit")}
        </button>
      </aside>
    </form>
  );
}

interface TargetProps {
  targets: readonly Target[];
  chosen: string;
  fault: string | undefined;
  onChange: (name: string) => void;
}

function TargetChoice({ targets, chosen, fault, onChange }: TargetProps) {
  const { t } = useTranslation();
  const reasons = targets.filter(({ reachable, reason }) => reachable === false && reason);
  const help = (
    <>
      <span className="row__line">{t("order.targetHelp")}</span>
      {reasons.map(({ name, title, reason }) => (
        <span key={name} className="row__line" lang="en">
          {title}: {reason}
        </span>
      ))}
    </>
  );
  return (
    <FormRow id={idOf("/target")} label={t("order.target")} help={help} fault={fault}>
      {(control) => (
        <select {...control} value={chosen} onChange={(event) => onChange(event.target.value)}>
          {chosen === "" && <option value="" />}
          {targets.map(({ name, title, nodes, zones, reachable }) => (
            <option key={name} value={name} disabled={reachable === false && name !== chosen}>
              {reachable === false ? t("order.targetUnreachable", { title }) : t("order.targetFacts", { title, nodes, zones })}
            </option>
          ))}
        </select>
      )}
    </FormRow>
  );
}

function Summary({ engine, plan, form, target }: { engine: Engine; plan: Plan | null; form: OrderForm; target: Target | undefined }) {
  const { t } = useTranslation();
  const shown = useFieldValue();
  const changed = engine.fields.filter((field) => isChanged(field, form.spec[field.key] ?? "", plan));
  const valueOf = (field: Field) => {
    const raw = form.spec[field.key] ?? "";
    const parsed = parse(field, raw, typeof raw === "string" ? [raw] : []);
    return "value" in parsed ? shown(field, parsed.value) : "?";
  };
  return (
    <>
      <dl className="facts">
        <dt>{t("order.engine")}</dt>
        <dd>
          <Said>{engine.title}</Said> {form.version}
        </dd>
        <dt>{t("order.plan")}</dt>
        <dd>{plan ? <Said>{plan.title}</Said> : t("order.noPlan")}</dd>
        <dt>{t("order.name")}</dt>
        <dd className="breakable">{form.name || "–"}</dd>
        <dt>{t("order.target")}</dt>
        <dd>{target ? <Said>{target.title}</Said> : "–"}</dd>
      </dl>
      <h3>{t("order.changed")}</h3>
      {changed.length === 0 ? (
        <p className="muted">{t("order.unchanged")}</p>
      ) : (
        <dl className="facts">
          {changed.map((field) => (
            <div key={field.key}>
              <dt>
                <Said>{field.title}</Said>
              </dt>
              <dd className="breakable">{valueOf(field)}</dd>
            </div>
          ))}
        </dl>
      )}
    </>
  );
}
