import { type KeyboardEvent, type ReactNode, useId, useRef, useState } from "react";

interface Tab {
  key: string;
  title: string;
}

interface Props {
  label: string;
  tabs: readonly Tab[];
  children: (key: string) => ReactNode;
}

const MOVES: Record<string, (index: number, count: number) => number> = {
  ArrowRight: (index, count) => (index + 1) % count,
  ArrowLeft: (index, count) => (index - 1 + count) % count,
  Home: () => 0,
  End: (_, count) => count - 1,
};

/** One panel at a time; arrows, Home and End move between the tabs. */
export function Tabs({ label, tabs, children }: Props) {
  const id = useId();
  const [chosen, setChosen] = useState(tabs[0]?.key);
  const list = useRef<HTMLDivElement>(null);
  const found = tabs.findIndex(({ key }) => key === chosen);
  const current = Math.max(0, found);
  const shown = tabs[current];
  if (!shown) return null;

  const move = (event: KeyboardEvent) => {
    const next = MOVES[event.key]?.(current, tabs.length);
    if (next === undefined) return;
    event.preventDefault();
    setChosen(tabs[next]?.key);
    list.current?.querySelectorAll<HTMLElement>("[role=tab]")[next]?.focus();
  };
  return (
    <div className="tabs">
      <div ref={list} className="tabs__list" role="tablist" aria-label={label}>
        {tabs.map(({ key, title }, index) => (
          <button
            key={key}
            type="button"
            role="tab"
            id={`${id}-${index}`}
            className="tabs__tab"
            aria-selected={index === current}
            aria-controls={`${id}-panel`}
            tabIndex={index === current ? 0 : -1}
            onClick={() => setChosen(key)}
            onKeyDown={move}
          >
            {title}
          </button>
        ))}
      </div>
      <div role="tabpanel" id={`${id}-panel`} aria-labelledby={`${id}-${current}`}>
        {children(shown.key)}
      </div>
    </div>
  );
}
