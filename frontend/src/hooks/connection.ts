import { useQueryClient } from "@tanstack/react-query";
import { useEffect, useSyncExternalStore } from "react";

import { connectionLostSince, subscribeToConnection } from "../lib/connection";
import { keys } from "./keys";

const PROBE_MS = 3_000;

/** Since when the portal does not answer (ms), null while it does. Meanwhile it is asked again and again. */
export function useConnection(): number | null {
  const cache = useQueryClient();
  const since = useSyncExternalStore(subscribeToConnection, connectionLostSince);
  useEffect(() => {
    if (since === null) return;
    const probe = () => void cache.refetchQueries({ queryKey: keys.session });
    const timer = setInterval(probe, PROBE_MS);
    window.addEventListener("online", probe);
    return () => {
      clearInterval(timer);
      window.removeEventListener("online", probe);
      // It answers again: everything on the page is looked at anew.
      void cache.invalidateQueries({ predicate: ({ queryKey }) => !queryKey.includes("operation") });
    };
  }, [cache, since]);
  return since;
}
