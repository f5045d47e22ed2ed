import { useTranslation } from "react-i18next";

import type { Phase } from "../api/types";

// Shape and word tell it too, not the colour alone.
const LOOK: Record<Phase, { tone: string; mark: string }> = {
  pending: { tone: "calm", mark: "○" },
  provisioning: { tone: "busy", mark: "◔" },
  ready: { tone: "good", mark: "●" },
  updating: { tone: "busy", mark: "◔" },
  degraded: { tone: "warn", mark: "▲" },
  deleting: { tone: "busy", mark: "◔" },
  deleted: { tone: "calm", mark: "○" },
  failed: { tone: "bad", mark: "✕" },
};

export function PhaseChip({ phase }: { phase: Phase }) {
  const { t } = useTranslation();
  const { tone, mark } = LOOK[phase];
  return (
    <span className={`chip chip--${tone}`} data-phase={phase}>
      <span aria-hidden="true">{mark}</span> {t(`phase.${phase}`)}
    </span>
  );
}
