import { useEffect, useRef } from "react";
import { useTranslation } from "react-i18next";

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
  return (
    <div ref={box} className="notice notice--bad" role="alert" tabIndex={-1}>
      {faults.length > 0 && <p className="notice__title">{t("problem.summary", { count: faults.length })}</p>}
      {error === null ? list : faults.length > 0 ? <ProblemText error={error}>{list}</ProblemText> : <ProblemText error={error} />}
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
