import type { ReactNode } from "react";
import { useTranslation } from "react-i18next";

import { ApiProblem, Unreachable } from "../api/problem";
import { Said } from "./Said";

interface Props {
  error: unknown;
  onRetry?: () => void;
}

/** What went wrong, what to do about it, and the number to give to an administrator. */
export function ProblemNotice({ error, onRetry }: Props) {
  const { t } = useTranslation();
  return (
    <div className="notice notice--bad" role="alert">
      <ProblemText error={error} />
      {onRetry && (
        <p>
          <button type="button" className="button" onClick={onRetry}>
            {t("common.retry")}
          </button>
        </p>
      )}
    </div>
  );
}

/** The words of a ProblemNotice, to be put into other notices. `children` stands between detail and suggestion. */
export function ProblemText({ error, children }: { error: unknown; children?: ReactNode }) {
  const { t } = useTranslation();
  if (error instanceof ApiProblem)
    return (
      <>
        <p className="notice__title">
          <Said>{error.title}</Said>
        </p>
        {children || (
          <p>
            <Said>{error.message}</Said>
          </p>
        )}
        {error.suggestion && (
          <p>
            <Said>{error.suggestion}</Said>
          </p>
        )}
        <p className="notice__small">
          {t("problem.code", { code: error.code })}
          {error.requestId && (
            <>
              {" · "}
              <span className="breakable">{t("problem.requestId", { id: error.requestId })}</span>
            </>
          )}
        </p>
      </>
    );
  const isUnreachable = error instanceof Unreachable;
  return (
    <>
      <p className="notice__title">{t(isUnreachable ? "problem.unreachable" : "problem.unexpected")}</p>
      <p>{t(isUnreachable ? "problem.unreachableHelp" : "problem.unexpectedHelp")}</p>
      {!isUnreachable && error instanceof Error && <p className="notice__small">{error.message}</p>}
    </>
  );
}
