import type { ReactNode } from "react";

/** The ids that tie a control to its help and its fault. */
export interface ControlIds {
  id: string;
  "aria-describedby"?: string;
  "aria-invalid"?: true;
}

interface Props {
  id: string;
  label: ReactNode;
  help?: ReactNode;
  fault?: string | undefined;
  /** Stands beside the label. */
  aside?: ReactNode;
  /** The control stands before its label: a box to tick. */
  isInline?: boolean;
  children: (control: ControlIds) => ReactNode;
}

/** A label, its control, what helps, and what is wrong. */
export function FormRow({ id, label, help, fault, aside, isInline = false, children }: Props) {
  const described = [help ? `${id}-help` : "", fault ? `${id}-fault` : ""].filter(Boolean).join(" ");
  return (
    <div className={["row", fault && "row--bad", isInline && "row--inline"].filter(Boolean).join(" ")}>
      <div className="row__head">
        <label htmlFor={id}>{label}</label>
        {aside}
      </div>
      {children({ id, ...(described && { "aria-describedby": described }), ...(fault && { "aria-invalid": true as const }) })}
      {fault && (
        <p className="row__fault" id={`${id}-fault`}>
          {fault}
        </p>
      )}
      {help && (
        <div className="row__help" id={`${id}-help`}>
          {help}
        </div>
      )}
    </div>
  );
}
