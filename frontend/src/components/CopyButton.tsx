import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";

import { copyText } from "../lib/clipboard";

interface Props {
  text: string;
  label: string;
  /** Said after copying instead of "Copied". */
  said?: string;
  /** Shows the short word "Copy"; the label is for those who listen. */
  isShort?: boolean;
  /** Selects the text when copying is forbidden, so that Ctrl+C does it. */
  onRefused?: () => void;
}

const SAID_FOR_MS = 5_000;

export function CopyButton({ text, label, said, isShort = false, onRefused }: Props) {
  const { t } = useTranslation();
  const [outcome, setOutcome] = useState<string | null>(null);
  useEffect(() => {
    if (outcome === null) return;
    const timer = setTimeout(() => setOutcome(null), SAID_FOR_MS);
    return () => clearTimeout(timer);
  }, [outcome]);
  const copy = async () => {
    const isCopied = await copyText(text);
    if (!isCopied) onRefused?.();
    setOutcome(isCopied ? (said ?? t("common.copied")) : t("common.copyFailed"));
  };
  return (
    <span className="copy">
      <button type="button" className={isShort ? "button button--small" : "button"} onClick={() => void copy()}>
        {isShort ? (
          <>
            <span aria-hidden="true">{t("common.copy")}</span>
            <span className="hidden">{label}</span>
          </>
        ) : (
          label
        )}
      </button>
      <span className="copy__said" role="status">
        {outcome}
      </span>
    </span>
  );
}
