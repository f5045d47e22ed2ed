import { useTranslation } from "react-i18next";
import { Link, useSearchParams } from "react-router";

import type { CopiedOrder, Engine, Plan, Target } from "../../api/types";
import { Loading } from "../../components/Loading";
import { ProblemNotice } from "../../components/ProblemNotice";
import { useFieldValue } from "../../components/fieldValue";
import { Said } from "../../components/Said";
import { useEngines, usePlans, useTargets } from "../../hooks/catalogue";
import { useCopy } from "../../hooks/clusters";
import { canChange, useTenant } from "../tenant";
import { useTitle } from "../useTitle";
import { Cards } from "./Cards";
import { OrderDetails } from "./OrderDetails";

// In the address, so that a chosen engine and plan can be linked to. "-" stands for no plan.
const NO_PLAN = "-";
const FACTS_PER_CARD = 4;

/** Engine, then plan, then the form the engine describes. */
export function OrderPage() {
  const { t } = useTranslation();
  useTitle(t("order.title"));
  const tenant = useTenant();
  const [address, setAddress] = useSearchParams();
  const engines = useEngines();
  const targets = useTargets();
  const like = address.get("like") ?? "";
  const copy = useCopy({ tenant: tenant.slug, name: like });
  const original = copy.data?.order ?? null;
  const asked = address.get("engine") ?? original?.engine;
  // One engine is no choice.
  const engine = engines.data?.length === 1 ? engines.data[0] : engines.data?.find(({ name }) => name === asked);
  const plans = usePlans(engine?.name);

  const failed = [engines, targets, plans, copy].find((query) => query.isError && query.data === undefined);
  const chosenPlan = address.get("plan") ?? (original ? (original.plan ?? NO_PLAN) : undefined) ?? (plans.data?.length === 0 ? NO_PLAN : undefined);
  const plan = plans.data?.find(({ name }) => name === chosenPlan) ?? null;
  const isPlanChosen = plan !== null || chosenPlan === NO_PLAN;

  return (
    <>
      <p className="crumb">
        <Link to={`/t/${tenant.slug}/clusters`}>← {t("cluster.back")}</Link>
      </p>
      <h1>{t("order.title")}</h1>
      {!canChange(tenant) && !tenant.suspended && <p className="notice notice--warn">{t("order.viewer")}</p>}
      {failed && <ProblemNotice error={failed.error} onRetry={() => void failed.refetch()} />}
      {copy.data && (
        <div className="notice" role="status">
          <p>{t("order.like", { name: like })}</p>
          {copy.data.left_out.map(({ pointer, message }) => (
            <p key={pointer}>
              <Said>{message}</Said>
            </p>
          ))}
        </div>
      )}
      {(engines.isPending || copy.isLoading) && <Loading />}
      {engines.data?.length === 0 && (
        <div className="empty">
          <h2>{t("order.noEngines")}</h2>
          <p>{t("order.noEnginesHelp")}</p>
        </div>
      )}
      {engines.data && engines.data.length > 0 && (
        <EngineCards engines={engines.data} chosen={engine?.name} onChoose={(name) => setAddress({ engine: name }, { replace: true })} />
      )}
      {engine && plans.isLoading && <Loading />}
      {engine && plans.data && plans.data.length > 0 && (
        <PlanCards
          engine={engine}
          plans={plans.data}
          chosen={chosenPlan}
          onChoose={(name) => setAddress({ engine: engine.name, plan: name }, { replace: true })}
        />
      )}
      {engine && plans.data && isPlanChosen && targets.data && (like === "" || copy.data) && (
        <Details engine={engine} plan={plan} targets={targets.data} copy={original} />
      )}
    </>
  );
}

/** A fresh form for each engine and plan: other fields, other values to start from. */
function Details({ engine, plan, targets, copy }: {
  engine: Engine; plan: Plan | null; targets: Target[]; copy: CopiedOrder | null;
}) {
  return <OrderDetails key={`${engine.name} ${plan?.name ?? ""}`} engine={engine} plan={plan} targets={targets} copy={copy} />;
}

function EngineCards({ engines, chosen, onChoose }: {
  engines: readonly Engine[]; chosen: string | undefined; onChoose: (name: string) => void;
}) {
  const { t } = useTranslation();
  const cards = engines.map(({ name, title, summary, versions }) => ({
    value: name,
    title: <Said>{title}</Said>,
    text: (
      <>
        <Said>{summary}</Said>
        <span className="choice__facts">{t("order.versions", { versions: versions.join(", ") })}</span>
      </>
    ),
  }));
  return <Cards legend={t("order.engine")} name="engine" chosen={chosen} cards={cards} onChoose={onChoose} />;
}

function PlanCards({ engine, plans, chosen, onChoose }: {
  engine: Engine; plans: readonly Plan[]; chosen: string | undefined; onChoose: (name: string) => void;
}) {
  const { t } = useTranslation();
  const shown = useFieldValue();
  const facts = (plan: Plan) =>
    engine.fields
      .filter((field) => !field.advanced && field.key in plan.values)
      .slice(0, FACTS_PER_CARD)
      .map((field) => ({ key: field.key, title: field.title, value: shown(field, plan.values[field.key]) }));
  const cards = plans.map((plan) => ({
    value: plan.name,
    title: <Said>{plan.title}</Said>,
    text: (
      <>
        {plan.description && <Said>{plan.description}</Said>}
        <span className="choice__facts" lang="en">
          {facts(plan).map(({ key, title, value }) => (
            <span key={key}>
              {title} <b>{value}</b>
            </span>
          ))}
        </span>
      </>
    ),
  }));
  const own = { value: NO_PLAN, title: t("order.noPlan"), text: t("order.noPlanHelp") };
  return <Cards legend={t("order.plan")} name="plan" chosen={chosen} cards={[...cards, own]} onChoose={onChoose} />;
}
