import { type QueryClient, useQueryClient } from "@tanstack/react-query";
import { useEffect } from "react";

import type { ClusterPath } from "../api/clusters";
import { askPortal } from "./connection";
import { keys } from "./keys";

// How often what nobody changes right now is looked at again: phases and health change by themselves.
const REFRESH_MS = 5_000;
// The same while the portal tells what changes: only for what it cannot know of.
const CALM_REFRESH_MS = 60_000;
// When the portal has no place for another stream.
const RETRY_MS = 30_000;
// The portal says something at least every 15 s: a stream silent for longer is dead, whatever the browser thinks of it.
const SILENCE_MS = 40_000;

let isTold = false;

/** How long until a shown thing is looked at again without news of it. */
export function refreshMs(): number {
  return isTold ? CALM_REFRESH_MS : REFRESH_MS;
}

/**
 * Listen to what changes, and read again what is shown of it. Without a stream (none free, an old proxy) the pages go on
 * asking every few seconds.
 */
export function useChanges(isSignedIn: boolean): void {
  const cache = useQueryClient();
  useEffect(() => {
    if (!isSignedIn || typeof EventSource === "undefined") return;
    let stream: EventSource;
    let timer: ReturnType<typeof setTimeout> | undefined;

    function expectNews(): void {
      clearTimeout(timer);
      timer = setTimeout(() => {
        isTold = false;
        stream.close();
        askPortal(cache);
        open();
      }, SILENCE_MS);
    }

    function open(): void {
      stream = new EventSource("/api/v1/changes");
      expectNews();
      stream.addEventListener("heartbeat", expectNews);
      stream.addEventListener("resync", () => {
        isTold = true;
        expectNews();
        void cache.invalidateQueries({ queryKey: ["tenant"], predicate: isReadAgain });
      });
      stream.addEventListener("cluster", ({ data }: MessageEvent<string>) => {
        expectNews();
        const { tenant, name } = JSON.parse(data) as ClusterPath;
        readAgain(cache, { tenant, name });
      });
      stream.addEventListener("operation", ({ data }: MessageEvent<string>) => {
        expectNews();
        const { tenant, cluster } = JSON.parse(data) as { tenant: string; cluster: string };
        readAgain(cache, { tenant, name: cluster });
      });
      stream.onerror = () => {
        isTold = false;
        askPortal(cache);
        // A lost connection is opened again by the browser, a refused one is not.
        if (stream.readyState !== EventSource.CLOSED) return;
        clearTimeout(timer);
        timer = setTimeout(open, RETRY_MS);
      };
    }

    open();
    return () => {
      isTold = false;
      clearTimeout(timer);
      stream.close();
    };
  }, [cache, isSignedIn]);
}

function readAgain(cache: QueryClient, path: ClusterPath): void {
  void cache.invalidateQueries({ queryKey: keys.clusters(path.tenant) });
  void cache.invalidateQueries({ queryKey: keys.cluster(path), predicate: isReadAgain });
}

/** All but operations, which the long poll follows. */
function isReadAgain({ queryKey }: { queryKey: readonly unknown[] }): boolean {
  return !queryKey.includes("operation");
}
