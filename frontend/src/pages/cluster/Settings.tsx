import { useTranslation } from "react-i18next";

import type { Cluster, Engine } from "../../api/types";
import { useFieldValue } from "../../components/fieldValue";
import { Said } from "../../components/Said";

/** The values the cluster runs with, in the engine's words and order. */
export function Settings({ cluster, engine }: { cluster: Cluster; engine: Engine | undefined }) {
  const { t } = useTranslation();
  const shown = useFieldValue();
  const spec: Record<string, unknown> = cluster.spec;
  const fields = engine?.fields.filter(({ key }) => key in spec) ?? [];
  return (
    <section className="card" aria-labelledby="settings-title">
      <h2 id="settings-title">{t("cluster.settings")}</h2>
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
