// The form that changes a running cluster, without its looks. Pure.
import type { SpecPatch } from "../../api/clusters";
import type { Cluster, Engine, Field, Plan, Target } from "../../api/types";
import { differing, type FormFault, type OrderForm, rawOf, storageClassesFor } from "../spec/form";

/** The present values in the place of a plan: what is not touched stays as it is. */
export function presentAsPlan({ plan, engine, spec }: Cluster): Plan {
  return {
    name: plan ?? "", engine, title: "", description: "", values: spec, storage_classes: [], targets: [], position: 0,
    offered: true,
  };
}

/** What can be changed on a running cluster. */
export function changeable({ fields }: Engine): Field[] {
  return fields.filter(({ effect }) => effect !== "fixed");
}

export function presentForm(cluster: Cluster, fields: readonly Field[]): OrderForm["spec"] {
  const spec: Record<string, unknown> = cluster.spec;
  return Object.fromEntries(fields.map((field) => [field.key, rawOf(field, spec[field.key])]));
}

/** The merge patch for what was changed, or every fault. Entries taken out of a map are null in it. */
export function patchOf(
  cluster: Cluster, fields: readonly Field[], raws: OrderForm["spec"], target: Target | undefined,
): { spec: SpecPatch; faults: FormFault[] } {
  const plan = presentAsPlan(cluster);
  const { spec, faults } = differing(fields, raws, plan, storageClassesFor(plan, target));
  const present: Record<string, unknown> = cluster.spec;
  for (const { key, kind } of fields)
    if (kind === "map" && key in spec) {
      const removed = Object.keys((present[key] ?? {})).map((entry) => [entry, null] as const);
      spec[key] = { ...Object.fromEntries(removed), ...(spec[key] as Record<string, unknown>) };
    }
  return { spec, faults };
}
