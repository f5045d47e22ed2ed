import { type QueryClient, useQueryClient } from "@tanstack/react-query";
import { useEffect, useSyncExternalStore } from "react";

import { connectionLostSince, subscribeToConnection } from "../lib/connection";
import { keys } from "./keys";

const PROBE_MS = 3_000;

/** Ask the portal something small, so that the page learns whether it still answers. */
export function askPortal(cache: QueryClient): void {
  void cache.refetchQueries({ queryKey: keys.session }, { cancelRefetch: false });
}

/** Since when the portal does not answer (ms), null while it does. Meanwhile it is asked again and again. */
export function useConnection(): number | null {
  const cache = useQueryClient();
  const since = useSyncExternalStore(subscribeToConnection, connectionLostSince);
  useEffect(() => {
    // A page that is told of changes asks for nothing by itself, and an open stream outlives the network for a while.
    const probe = () => {
      askPortal(cache);
    };
    window.addEventListener("offline", probe);
    return () => {
      window.removeEventListener("offline", probe);
    };
  }, [cache]);
  useEffect(() => {
    if (since === null) return;
    const probe = () => {
      askPortal(cache);
    };
    const timer = setInterval(probe, PROBE_MS);
    window.addEventListener("online", probe);
    return () => {
      clearInterval(timer);
      window.removeEventListener("online", probe);
      // It answers again: everything on the page is looked at anew. Not the session, which is the probe: were it refused
      // where the rest answers, each answer would ask for it again, without end.
      void cache.invalidateQueries({
        predicate: ({ queryKey }) => !queryKey.includes("operation") && queryKey[0] !== keys.session[0],
      });
    };
  }, [cache, since]);
  return since;
}
