import { useEffect, useRef } from "react";
import { useTranslation } from "react-i18next";

import { ApiProblem } from "../api/problem";
import { ProblemText } from "./ProblemNotice";

/** One thing to mend: `id` is the control's, null when no control is at fault. */
export interface Fault {
  id: string | null;
  message: string;
}

interface Props {
  faults: readonly Fault[];
  /** The portal's answer, when the faults come from it. */
  error: unknown;
  /** Changes with every attempt, so that the focus comes back here. */
  attempt: number;
}

/** All faults of a form above it, each a link to its control. Takes the focus when it appears. */
export function FaultSummary({ faults, error, attempt }: Props) {
  const { t } = useTranslation();
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => box.current?.focus(), [attempt]);
  const list = (
    <ul>
      {faults.map(({ id, message }) => (
        <li key={`${id ?? ""} ${message}`}>{id === null ? message : <FaultLink id={id} message={message} />}</li>
      ))}
    </ul>
  );
  // "Some values are wrong, see errors" says nothing beside the list of them.
  const isPlain = error === null || (error instanceof ApiProblem && error.code === "invalid" && faults.length > 0);
  return (
    <div ref={box} className="notice notice--bad" role="alert" tabIndex={-1}>
      {faults.length > 0 && isPlain && <p className="notice__title">{t("problem.summary", { count: faults.length })}</p>}
      {isPlain ? list : <ProblemText error={error}>{faults.length > 0 && list}</ProblemText>}
      {isPlain && error instanceof ApiProblem && (
        <p className="notice__small breakable">{t("problem.requestId", { id: error.requestId })}</p>
      )}
    </div>
  );
}

function FaultLink({ id, message }: { id: string; message: string }) {
  return (
    <a
      href={`#${id}`}
      onClick={(event) => {
        event.preventDefault();
        const control = document.getElementById(id);
        // It may be folded away.
        control?.closest("details")?.setAttribute("open", "");
        control?.focus();
      }}
    >
      {message}
    </a>
  );
}
