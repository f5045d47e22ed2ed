import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";

import { isOpen } from "../../api/operations";
import type { Cluster, Engine } from "../../api/types";
import { useFieldValue } from "../../components/fieldValue";
import { Said } from "../../components/Said";
import { useTargets } from "../../hooks/catalogue";
import { ChangeForm } from "./ChangeForm";
import { PauseButton } from "./Pause";
import { RestartDialog } from "./RestartDialog";
import { UpgradeDialog } from "./UpgradeDialog";

interface Props {
  cluster: Cluster;
  engine: Engine | undefined;
  mayChange: boolean;
}

/** The values the cluster runs with, in the engine's words and order, and the form to change them. */
export function Settings({ cluster, engine, mayChange }: Props) {
  const { t } = useTranslation();
  const [isChanging, setIsChanging] = useState(false);
  const [isRestarting, setIsRestarting] = useState(false);
  const [isUpgrading, setIsUpgrading] = useState(false);
  const targets = useTargets();
  const shown = useFieldValue();
  const spec: Record<string, unknown> = cluster.spec;
  const fields = engine?.fields.filter(({ key }) => key in spec) ?? [];
  const target = targets.data?.find(({ name }) => name === cluster.target);
  if (isChanging && engine)
    return <ChangeForm cluster={cluster} engine={engine} target={target} onClose={() => setIsChanging(false)} />;
  const upgrades = engine?.upgrades[cluster.version] ?? [];
  const isBusy = cluster.operation !== null && isOpen(cluster.operation);
  return (
    <section className="card" aria-labelledby="settings-title">
      <div className="card__head">
        <h2 id="settings-title">{t("cluster.settings")}</h2>
        {mayChange && engine && targets.data && (
          <span className="card__actions">
            <Link className="button" to={`/t/${cluster.tenant}/order?like=${cluster.name}`}>
              {t("cluster.orderLike")}
            </Link>
            {!cluster.paused && <PauseButton cluster={cluster} />}
            {!cluster.paused && !isBusy && upgrades.length > 0 && (
              <button type="button" className="button" onClick={() => setIsUpgrading(true)}>
                {t("upgrade.open")}
              </button>
            )}
            {!cluster.paused && !isBusy && <ChangeButtons onRestart={() => setIsRestarting(true)} onChange={() => setIsChanging(true)} />}
          </span>
        )}
        {isUpgrading && <UpgradeDialog cluster={cluster} versions={upgrades} onClose={() => setIsUpgrading(false)} />}
        {isRestarting && <RestartDialog cluster={cluster} onClose={() => setIsRestarting(false)} />}
      </div>
      {cluster.description && <p>{cluster.description}</p>}
      <dl className="facts facts--columns">
        {fields.map((field) => (
          <div key={field.key}>
            <dt>
              <Said>{field.title}</Said>
            </dt>
            <dd className="breakable">{shown(field, spec[field.key])}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

function ChangeButtons({ onRestart, onChange }: { onRestart: () => void; onChange: () => void }) {
  const { t } = useTranslation();
  return (
    <>
      <button type="button" className="button" onClick={onRestart}>
        {t("restart.open")}
      </button>
      <button type="button" className="button" onClick={onChange}>
        {t("change.open")}
      </button>
    </>
  );
}
