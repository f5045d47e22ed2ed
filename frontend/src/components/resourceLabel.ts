import { useTranslation } from "react-i18next";

import { resourceParts } from "../lib/quota";

/** Names resources: "Memory", "Storage of fast-ssd". */
export function useResourceLabel(): (resource: string) => string {
  const { t } = useTranslation();
  const names: Record<string, string> = {
    clusters: t("quota.clusters"),
    pods: t("quota.pods"),
    cpu: t("quota.cpu"),
    memory: t("quota.memory"),
    storage: t("quota.storage"),
  };
  return (resource) => {
    const { kind, of } = resourceParts(resource);
    const name = names[kind] ?? kind;
    return of === "" ? name : t("quota.of", { name, of });
  };
}
