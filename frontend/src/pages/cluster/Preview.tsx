import { useTranslation } from "react-i18next";

import type { Rehearsal } from "../../api/types";
import { ProblemNotice } from "../../components/ProblemNotice";
import { Said } from "../../components/Said";
import { useResourceLabel } from "../../components/resourceLabel";
import { amountText } from "../../lib/quota";
import { duration } from "../../lib/time";

function estimateWords({ seconds, based_on: count }: { seconds: number; based_on: number }) {
  return { time: duration(seconds), count };
}

/** How long it is going to take, as far as past ones tell. */
export function Takes({ operation }: Pick<Rehearsal, "operation">) {
  const { t } = useTranslation();
  if (!operation) return null;
  return <p className="muted">{operation.estimate ? t("estimate.takes", estimateWords(operation.estimate)) : t("estimate.unknown")}</p>;
}

/** The portal's answer to the dry run: effect by effect, the quota, and what the target says. */
export function Preview({ rehearsal, error }: { rehearsal: Rehearsal | undefined; error: Error | null }) {
  const { t, i18n } = useTranslation();
  const label = useResourceLabel();
  if (error) return <ProblemNotice error={error} />;
  if (!rehearsal)
    return (
      <p className="muted" role="status">
        {t("change.asking")}
      </p>
    );
  const { quota, effects, target, objects, operation } = rehearsal;
  const refusals = objects.filter(({ refusal }) => refusal !== null);
  return (
    <div role="status">
      <ul className="impacts">
        {effects.map((impact) => (
          <li key={`${impact.pointer} ${impact.message}`} className={impact.effect === "loss" ? "impact--loss" : undefined}>
            <Said>{impact.message}</Said>
          </li>
        ))}
      </ul>
      <Takes operation={operation} />
      {quota.length > 0 && (
        <p className="quota__takes">
          {quota.map(({ resource, target: place, unit, before, after }) => (
            <span key={`${resource} ${place ?? ""}`}>
              {label(resource)} <b>{amountText(before, unit, i18n.language)}</b> → <b>{amountText(after, unit, i18n.language)}</b>
            </span>
          ))}
        </p>
      )}
      {target.problem && (
        <p className="notice notice--warn">
          <Said>{target.problem.message}</Said> {target.problem.remedy && <Said>{target.problem.remedy}</Said>}
        </p>
      )}
      {refusals.map(({ kind, name, refusal }) => (
        <p key={`${kind} ${name}`} className="notice notice--warn">
          {kind} {name}: <Said>{refusal?.message ?? ""}</Said>
        </p>
      ))}
    </div>
  );
}
