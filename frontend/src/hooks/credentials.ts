import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect } from "react";

import type { ClusterPath } from "../api/clusters";
import { getCertificate, listCredentials, listSnippets, revealCredential } from "../api/credentials";
import { keys } from "./keys";

export const HIDE_AFTER_MINUTES = 2;

export function useCredentials(path: ClusterPath, isEnabled: boolean) {
  return useQuery({
    queryKey: keys.credentials(path),
    queryFn: ({ signal }) => listCredentials(path, signal),
    enabled: isEnabled,
  });
}

export function useSnippets(path: ClusterPath, isEnabled: boolean) {
  return useQuery({
    queryKey: keys.snippets(path),
    queryFn: ({ signal }) => listSnippets(path, signal),
    enabled: isEnabled,
  });
}

export function useCertificate(path: ClusterPath, isEnabled: boolean) {
  return useQuery({
    queryKey: keys.certificate(path),
    queryFn: ({ signal }) => getCertificate(path, signal),
    enabled: isEnabled,
  });
}

/** A password, on request: held by the component that asked, never in a cache, forgotten after a while. */
export function useReveal(path: ClusterPath) {
  const cache = useQueryClient();
  const mutation = useMutation({
    mutationFn: (principal: string) => revealCredential(path, principal),
    gcTime: 0,
    // It was noted there.
    onSuccess: () => void cache.invalidateQueries({ queryKey: keys.events(path) }),
  });
  const { data, reset } = mutation;
  useEffect(() => {
    if (!data) return;
    const timer = setTimeout(reset, HIDE_AFTER_MINUTES * 60_000);
    return () => clearTimeout(timer);
  }, [data, reset]);
  return mutation;
}
