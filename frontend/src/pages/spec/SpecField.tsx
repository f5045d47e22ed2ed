import { useRef } from "react";
import { useTranslation } from "react-i18next";

import type { Field, Plan, Target } from "../../api/types";
import { FormRow } from "../../components/FormRow";
import { useFieldValue } from "../../components/fieldValue";
import { Said } from "../../components/Said";
import { baseValue, type Entry, idOf, isChanged, type Raw, rawOf, specPointer, storageClassesFor, textIn } from "./form";

interface Props {
  field: Field;
  raw: Raw;
  plan: Plan | null;
  target: Target | undefined;
  fault: string | undefined;
  onChange: (raw: Raw) => void;
}

/** One plan field, drawn from its description alone. */
export function SpecField({ field, raw, plan, target, fault, onChange }: Props) {
  const { t } = useTranslation();
  const shown = useFieldValue();
  const id = idOf(specPointer(field.key));
  const base = baseValue(field, plan);
  const isBoolean = field.kind === "boolean";
  const help = (
    <>
      {field.help && (
        <span className="row__line">
          <Said>{field.help}</Said>
        </span>
      )}
      <span className="row__line row__facts">
        <Limits field={field} />
        <span className={`effect effect--${field.effect}`}>{t(`effect.${field.effect}`)}</span>
      </span>
    </>
  );
  const label = (
    <>
      <Said>{field.title}</Said>
      {field.unit && <span className="muted"> ({field.unit})</span>}
    </>
  );
  const reset = isChanged(field, raw, plan) && (
    <button type="button" className="link" onClick={() => onChange(rawOf(field, base))}>
      {t("order.reset", { value: shown(field, base) })}
    </button>
  );
  if (field.kind === "map")
    return <MapField field={field} id={id} entries={raw as readonly Entry[]} fault={fault} help={help} reset={reset} onChange={onChange} />;
  return (
    <FormRow id={id} label={label} help={help} fault={fault} aside={reset} isInline={isBoolean}>
      {(control) => {
        if (isBoolean)
          return (
            <input {...control} type="checkbox" checked={raw === true} onChange={(event) => onChange(event.target.checked)} />
          );
        const value = textIn(raw);
        if (field.kind === "enum")
          return (
            <select {...control} value={value} onChange={(event) => onChange(event.target.value)}>
              {field.choices.map((choice) => (
                <option key={choice}>{choice}</option>
              ))}
            </select>
          );
        if (field.kind === "storage-class")
          return (
            <select {...control} value={value} onChange={(event) => onChange(event.target.value)}>
              <StorageClassOptions plan={plan} target={target} chosen={value} base={base} />
            </select>
          );
        if (field.kind === "string")
          return <input {...control} value={value} spellCheck={false} onChange={(event) => onChange(event.target.value)} />;
        return (
          <input
            {...control}
            type="number"
            className="number"
            min={field.minimum ?? undefined}
            max={field.maximum ?? undefined}
            step={field.step ?? (field.kind === "integer" ? 1 : "any")}
            value={value}
            onChange={(event) => onChange(event.target.value)}
            // The wheel scrolls the page; it must not change an order.
            onWheel={(event) => event.currentTarget.blur()}
          />
        );
      }}
    </FormRow>
  );
}

function Limits({ field: { minimum, maximum, step } }: { field: Field }) {
  const { t } = useTranslation();
  const parts = [
    minimum !== null && maximum !== null && t("order.range", { minimum, maximum }),
    minimum !== null && maximum === null && t("order.rangeMinimum", { minimum }),
    minimum === null && maximum !== null && t("order.rangeMaximum", { maximum }),
    step !== null && step !== 1 && t("order.steps", { step }),
  ].filter(Boolean);
  return parts.length > 0 && <span>{parts.join(", ")}</span>;
}

interface StorageProps {
  plan: Plan | null;
  target: Target | undefined;
  chosen: string;
  base: unknown;
}

function StorageClassOptions({ plan, target, chosen, base }: StorageProps) {
  const { t } = useTranslation();
  const classes = storageClassesFor(plan, target);
  const standard = target?.storage_classes.find((one) => one.default)?.name;
  const mayStayOpen = base === "" || base === null || base === undefined;
  return (
    <>
      {mayStayOpen && (
        <option value="">{standard ? t("order.storageDefaultNamed", { name: standard }) : t("order.storageDefault")}</option>
      )}
      {/* What the plan names but the target lacks stays visible, so that the fault makes sense. */}
      {chosen !== "" && !classes.includes(chosen) && <option>{chosen}</option>}
      {classes.map((name) => (
        <option key={name}>{name}</option>
      ))}
    </>
  );
}

interface MapProps {
  field: Field;
  id: string;
  entries: readonly Entry[];
  fault: string | undefined;
  help: React.ReactNode;
  reset: React.ReactNode;
  onChange: (entries: readonly Entry[]) => void;
}

function MapField({ field, id, entries, fault, help, reset, onChange }: MapProps) {
  const { t } = useTranslation();
  const add = useRef<HTMLButtonElement>(null);
  const edit = (changed: Entry) => onChange(entries.map((entry) => (entry.id === changed.id ? changed : entry)));
  return (
    <fieldset
      className={fault ? "row row--bad" : "row"}
      id={id}
      tabIndex={-1}
      aria-describedby={fault ? `${id}-fault ${id}-help` : `${id}-help`}
    >
      <legend className="row__head">
        <Said>{field.title}</Said>
      </legend>
      {entries.map((entry, index) => (
        <div key={entry.id} className="entry">
          <input
            aria-label={`${field.title}: ${t("order.key")} ${index + 1}`}
            placeholder={t("order.key")}
            value={entry.key}
            spellCheck={false}
            onChange={(event) => edit({ ...entry, key: event.target.value })}
          />
          <input
            aria-label={`${field.title}: ${t("order.value")} ${index + 1}`}
            placeholder={t("order.value")}
            value={entry.value}
            spellCheck={false}
            onChange={(event) => edit({ ...entry, value: event.target.value })}
          />
          <button
            type="button"
            className="button button--small"
            aria-label={t("order.removeEntry", { number: index + 1, title: field.title })}
            onClick={() => {
              onChange(entries.filter(({ id: other }) => other !== entry.id));
              add.current?.focus();
            }}
          >
            ✕
          </button>
        </div>
      ))}
      <div className="row__actions">
        <button
          ref={add}
          type="button"
          className="button button--small"
          onClick={() => onChange([...entries, { id: Math.max(-1, ...entries.map((entry) => entry.id)) + 1, key: "", value: "" }])}
        >
          {t("order.addEntry", { title: field.title })}
        </button>
        {reset}
      </div>
      {fault && (
        <p className="row__fault" id={`${id}-fault`}>
          {fault}
        </p>
      )}
      <div className="row__help" id={`${id}-help`}>
        {help}
      </div>
    </fieldset>
  );
}
