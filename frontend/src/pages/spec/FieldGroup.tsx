import { useState } from "react";
import { useTranslation } from "react-i18next";

import type { Field } from "../../api/types";

/** Fields under their headings, in the order the engine gives them. */
export function groupsOf(fields: readonly Field[]): [string, Field[]][] {
  const groups = new Map<string, Field[]>();
  for (const field of fields) groups.set(field.group, [...(groups.get(field.group) ?? []), field]);
  return [...groups];
}

interface GroupProps {
  title: string;
  fields: readonly Field[];
  draw: (field: Field) => React.ReactNode;
  hasFault: (field: Field) => boolean;
}

export function FieldGroup({ title, fields, draw, hasFault }: GroupProps) {
  const { t } = useTranslation();
  const plain = fields.filter(({ advanced }) => !advanced);
  const advanced = fields.filter((field) => field.advanced);
  const [isOpen, setIsOpen] = useState(false);
  const isFaulty = advanced.some(hasFault);
  return (
    <section className="card">
      <h3 lang="en">{title}</h3>
      {plain.map(draw)}
      {advanced.length > 0 && (
        <details open={isOpen || isFaulty} onToggle={(event) => setIsOpen(event.currentTarget.open)}>
          <summary>{t("order.advanced", { titles: advanced.map((field) => field.title).join(", ") })}</summary>
          {advanced.map(draw)}
        </details>
      )}
    </section>
  );
}
