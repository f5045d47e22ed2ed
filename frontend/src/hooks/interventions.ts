import { useMutation, useQueryClient } from "@tanstack/react-query";

import type { ClusterPath } from "../api/clusters";
import { cancelOperation, overrideGate, retryOperation } from "../api/operations";
import { useAccepted } from "./clusters";
import { keys } from "./keys";

export function useCancelOperation(path: ClusterPath) {
  const cache = useQueryClient();
  return useMutation({
    mutationFn: ({ id, reason }: { id: string; reason: string }) => cancelOperation(id, reason),
    onSuccess: (operation) => {
      cache.setQueryData(keys.operation(path), operation);
      void cache.invalidateQueries({ queryKey: keys.cluster(path), exact: true });
      void cache.invalidateQueries({ queryKey: keys.events(path) });
    },
  });
}

export function useOverrideGate(path: ClusterPath) {
  const cache = useQueryClient();
  return useMutation({
    mutationFn: ({ id, gate, reason }: { id: string; gate: string; reason: string }) => overrideGate(id, gate, reason),
    onSuccess: (operation) => {
      cache.setQueryData(keys.operation(path), operation);
      void cache.invalidateQueries({ queryKey: keys.events(path) });
    },
  });
}

export function useRetryOperation() {
  const remember = useAccepted();
  return useMutation({ mutationFn: (id: string) => retryOperation(id), onSuccess: remember });
}
