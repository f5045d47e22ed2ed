import type { ReactNode } from "react";

interface Props {
  legend: string;
  name: string;
  chosen: string | undefined;
  cards: readonly { value: string; title: ReactNode; text: ReactNode }[];
  onChoose: (value: string) => void;
}

/** Radio buttons that look like cards. */
export function Cards({ legend, name, chosen, cards, onChoose }: Props) {
  return (
    <fieldset className="cards">
      <legend>
        <h2>{legend}</h2>
      </legend>
      <div className="cards__grid">
        {cards.map(({ value, title, text }) => (
          <label key={value} className="choice">
            <input type="radio" name={name} value={value} checked={value === chosen} onChange={() => onChoose(value)} />
            <span className="choice__title">{title}</span>
            <span className="choice__text">{text}</span>
          </label>
        ))}
      </div>
    </fieldset>
  );
}
