import { useEffect, useState } from "react";

import { serverNow } from "../lib/time";

const TICK_MS = 500;

/** The portal's present time in ms, ticking while `isTicking`. */
export function useNow(isTicking: boolean): number {
  const [now, setNow] = useState(serverNow);
  useEffect(() => {
    if (!isTicking) return;
    const timer = setInterval(() => setNow(serverNow()), TICK_MS);
    return () => clearInterval(timer);
  }, [isTicking]);
  return now;
}
