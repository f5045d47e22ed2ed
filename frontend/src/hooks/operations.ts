import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";

import type { ClusterPath } from "../api/clusters";
import { awaitOperation, isOpen, latestOperation } from "../api/operations";
import { isTemporary } from "../api/problem";
import type { Operation } from "../api/types";
import { connectionLostSince, subscribeToConnection } from "../lib/connection";
import { keys } from "./keys";

const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 10_000;

/** How a live view is doing. `pause` counts the seconds of the present pause; null while it is connected. */
export interface LiveView {
  pause: number | null;
  error: unknown;
  retryNow: () => void;
}

/** The newest operation of a cluster. `expected` is the id the cluster names as under way, null when none is. */
export function useLatestOperation(path: ClusterPath, expected: string | null, isEnabled: boolean) {
  const cache = useQueryClient();
  const { tenant, name } = path;
  const query = useQuery({
    queryKey: keys.operation(path),
    queryFn: ({ signal }) => latestOperation(path, signal),
    enabled: isEnabled,
    staleTime: Infinity, // the long poll keeps it fresh
  });
  const known = query.data?.id ?? null;
  useEffect(() => {
    // Somebody else started another one.
    if (expected !== null && known !== null && expected > known)
      void cache.invalidateQueries({ queryKey: keys.operation({ tenant, name }) });
  }, [cache, expected, known, tenant, name]);
  return query;
}

/**
 * Follow an open operation by long polling, writing every change into the cache, until it has ended.
 *
 * A lost connection is repeated with growing pauses, at once when the portal answers anything again; nothing is missed,
 * since each call says which revision was seen last. Ends for good when the portal says no.
 */
export function useFollowOperation(path: ClusterPath, operation: Operation | null | undefined): LiveView {
  const cache = useQueryClient();
  const { tenant, name } = path;
  const id = operation && isOpen(operation) ? operation.id : null;
  const [pause, setPause] = useState<number | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [wake] = useState(() => new EventTarget());

  useEffect(() => {
    if (id === null) return;
    const stop = new AbortController();
    const target = { tenant, name };

    async function follow(id: string): Promise<void> {
      let failures = 0;
      for (;;) {
        const seen = cache.getQueryData<Operation | null>(keys.operation(target));
        // Another operation took its place in the cache: the effect runs again for that one.
        if (seen?.id !== id || !isOpen(seen)) return;
        try {
          const next = await awaitOperation(id, seen.revision, stop.signal);
          failures = 0;
          setPause(null);
          if (next.revision !== seen.revision || next.state !== seen.state) {
            cache.setQueryData(keys.operation(target), next);
            // Its steps change the cluster too: phase, members, addresses, events.
            void cache.invalidateQueries({ queryKey: keys.cluster(target), predicate: ({ queryKey }) => !queryKey.includes("operation") });
            if (!isOpen(next)) void cache.invalidateQueries({ queryKey: keys.clusters(tenant) });
          }
        } catch (failure) {
          if (stop.signal.aborted) return;
          if (!isTemporary(failure)) {
            setError(failure);
            return;
          }
          const milliseconds = Math.min(FIRST_PAUSE_MS * 2 ** failures, LONGEST_PAUSE_MS);
          failures += 1;
          setPause(milliseconds / 1000);
          await sleep(milliseconds, stop.signal, wake);
        }
        if (stop.signal.aborted) return;
      }
    }

    void follow(id);
    const online = () => wake.dispatchEvent(new Event("wake"));
    window.addEventListener("online", online);
    const unsubscribe = subscribeToConnection(() => {
      if (connectionLostSince() === null) online();
    });
    return () => {
      stop.abort();
      window.removeEventListener("online", online);
      unsubscribe();
      setPause(null);
      setError(null);
    };
  }, [cache, id, tenant, name, wake]);

  return { pause: id === null ? null : pause, error, retryNow: () => wake.dispatchEvent(new Event("wake")) };
}

/** Ends after the time, at a "wake", or when aborted. */
function sleep(milliseconds: number, signal: AbortSignal, wake: EventTarget): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      wake.removeEventListener("wake", end);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    wake.addEventListener("wake", end);
    signal.addEventListener("abort", end);
  });
}
