import type { ControlIds } from "./FormRow";

interface Props {
  control: ControlIds;
  value: string;
  maxLength?: number;
  onChange: (value: string) => void;
}

/** A text that is taken letter by letter, such as a name: nothing is corrected, completed or capitalized. */
export function ExactInput({ control, value, maxLength, onChange }: Props) {
  return (
    <input
      {...control}
      value={value}
      maxLength={maxLength}
      autoComplete="off"
      autoCapitalize="none"
      spellCheck={false}
      onChange={(event) => onChange(event.target.value)}
    />
  );
}
