import { skipToken, useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useRef } from "react";

import type { ClusterPath, SpecPatch } from "../api/clusters";
import {
  acceptLoss, changeCluster, createCluster, deleteCluster, getCluster, getCopy, getDeletedCluster, listClusters, listEvents, rehearseChange,
  pauseCluster, rebalanceMasters, rehearseDelete, rehearseLoss, rehearseRebalance, rehearseRestart, rehearseUpgrade, restartCluster, resumeCluster,
  upgradeCluster,
} from "../api/clusters";
import { isGone, isTemporary } from "../api/problem";
import type { Accepted, Cluster, ClusterOrder, VolumesChoice } from "../api/types";
import { refreshMs } from "./changes";
import { useDebounced } from "./debounced";
import { keys } from "./keys";

const EVENTS_SHOWN = 50;
const REPEATS_OF_AN_ORDER = 2;

export function useClusters(tenant: string) {
  return useInfiniteQuery({
    queryKey: keys.clusters(tenant),
    queryFn: ({ pageParam, signal }) => listClusters(tenant, pageParam, signal),
    initialPageParam: "",
    getNextPageParam: (page) => page.next,
    refetchInterval: refreshMs,
  });
}

/** One cluster, refreshed until it is gone. */
export function useCluster(path: ClusterPath, isEnabled: boolean) {
  return useQuery({
    queryKey: keys.cluster(path),
    queryFn: ({ signal }) => getCluster(path, signal),
    enabled: isEnabled,
    refetchInterval: ({ state }) => (isGone(state.error) ? false : refreshMs()),
  });
}

/** The order for another cluster like the one of this name; "" asks nothing. */
export function useCopy(path: ClusterPath) {
  return useQuery({
    queryKey: keys.copy(path),
    queryFn: path.name === "" ? skipToken : ({ signal }) => getCopy(path, signal),
    // The form starts from it once: what comes later must not change what was typed.
    staleTime: Infinity,
    gcTime: 0,
  });
}

/** What became of a cluster after its deletion. */
export function useDeletedCluster(path: ClusterPath, id: string) {
  return useQuery({
    queryKey: keys.deletedCluster(path.tenant, id),
    queryFn: ({ signal }) => getDeletedCluster(path, id, signal),
  });
}

export function useEvents(path: ClusterPath, isEnabled: boolean) {
  return useQuery({
    queryKey: keys.events(path),
    queryFn: ({ signal }) => listEvents(path, EVENTS_SHOWN, signal),
    enabled: isEnabled,
    refetchInterval: ({ state }) => (isGone(state.error) ? false : refreshMs()),
  });
}

/**
 * Order a cluster. One Idempotency-Key per intended order: kept while the same order is sent again (by us after a lost
 * answer, or by the person), fresh once anything in it was changed.
 */
export function useCreateCluster(tenant: string) {
  const remember = useAccepted();
  const attempt = useRef({ order: "", key: "" });
  return useMutation({
    mutationFn: ({ order, confirm }: { order: ClusterOrder; confirm: string | undefined }) => {
      const text = JSON.stringify([order, confirm]);
      if (attempt.current.order !== text) attempt.current = { order: text, key: newKey() };
      return createCluster(tenant, order, confirm, attempt.current.key);
    },
    retry: (failures, error) => isTemporary(error) && failures < REPEATS_OF_AN_ORDER,
    onSuccess: (accepted) => {
      attempt.current = { order: "", key: "" };
      return remember(accepted);
    },
  });
}

export function useRestartCluster(path: ClusterPath) {
  const cache = useQueryClient();
  const remember = useAccepted();
  return useMutation({
    mutationFn: ({ revision, confirm }: { revision: number; confirm: string }) => restartCluster(path, revision, confirm),
    onSuccess: remember,
    onError: () => cache.invalidateQueries({ queryKey: keys.cluster(path), exact: true }),
  });
}

export function useRebalanceMasters(path: ClusterPath) {
  const cache = useQueryClient();
  const remember = useAccepted();
  return useMutation({
    mutationFn: ({ revision }: { revision: number }) => rebalanceMasters(path, revision),
    onSuccess: remember,
    onError: () => cache.invalidateQueries({ queryKey: keys.cluster(path), exact: true }),
  });
}

export function useAcceptLoss(path: ClusterPath) {
  const cache = useQueryClient();
  const remember = useAccepted();
  return useMutation({
    mutationFn: ({ revision, confirm }: { revision: number; confirm: string }) => acceptLoss(path, revision, confirm),
    onSuccess: remember,
    onError: () => cache.invalidateQueries({ queryKey: keys.cluster(path), exact: true }),
  });
}

export function usePauseCluster(path: ClusterPath) {
  return useClusterEdit(path, ({ revision, reason }: { revision: number; reason: string }) => pauseCluster(path, revision, reason));
}

export function useResumeCluster(path: ClusterPath) {
  return useClusterEdit(path, ({ revision }: { revision: number }) => resumeCluster(path, revision));
}

/** A change that is answered with the cluster as it is then. */
function useClusterEdit<Wish>(path: ClusterPath, mutationFn: (wish: Wish) => Promise<Cluster>) {
  const cache = useQueryClient();
  return useMutation({
    mutationFn,
    onSuccess: async (cluster) => {
      // An answer under way was asked for before the change.
      await cache.cancelQueries({ queryKey: keys.cluster(path) });
      cache.setQueryData(keys.cluster(path), cluster);
      void cache.invalidateQueries({ queryKey: keys.operation(path) });
      void cache.invalidateQueries({ queryKey: keys.events(path) });
    },
    onError: () => cache.invalidateQueries({ queryKey: keys.cluster(path), exact: true }),
  });
}

export function useDeleteCluster(path: ClusterPath) {
  const cache = useQueryClient();
  const remember = useAccepted();
  return useMutation({
    mutationFn: ({ revision, volumes }: { revision: number; volumes: VolumesChoice }) =>
      deleteCluster(path, revision, volumes),
    onSuccess: remember,
    // What was refused may be refused because the cluster changed: show it as it is.
    onError: () => cache.invalidateQueries({ queryKey: keys.cluster(path), exact: true }),
  });
}

// Long enough that a typed number is one question: the target is asked about each object.
const TYPING_MS = 500;

/** What a change of the spec would do, asked anew when typing pauses. `spec` null: there is nothing to ask yet. */
export function useRehearsal(path: ClusterPath, spec: SpecPatch | null) {
  const settled = useDebounced(spec, TYPING_MS);
  const rehearsal = useQuery({
    queryKey: keys.rehearsal(path, settled),
    queryFn: settled === null ? skipToken : ({ signal }) => rehearseChange(path, settled, signal),
    gcTime: 0,
  });
  return { ...rehearsal, isCurrent: JSON.stringify(settled) === JSON.stringify(spec) };
}

/** What a restart of every pod would do. */
export function useRestartRehearsal(path: ClusterPath) {
  return useQuery({ queryKey: keys.restart(path), queryFn: ({ signal }) => rehearseRestart(path, signal), gcTime: 0 });
}

/** What evening out the masters would do; `handOvers`: how many that takes, as far as is known. */
export function useRebalanceRehearsal(path: ClusterPath, handOvers: number, isEnabled: boolean) {
  return useQuery({
    queryKey: keys.rebalance(path, handOvers),
    queryFn: ({ signal }) => rehearseRebalance(path, signal),
    enabled: isEnabled,
    gcTime: 0,
  });
}

/** What accepting a loss would give up; `extent`: what is lost, as far as is known. */
export function useLossRehearsal(path: ClusterPath, extent: string) {
  return useQuery({ queryKey: keys.loss(path, extent), queryFn: ({ signal }) => rehearseLoss(path, signal), gcTime: 0 });
}

/** What a deletion would do. */
export function useDeleteRehearsal(path: ClusterPath, volumes: VolumesChoice) {
  return useQuery({
    queryKey: keys.deletion(path, volumes),
    queryFn: ({ signal }) => rehearseDelete(path, volumes, signal),
    gcTime: 0,
  });
}

/** What going to another version would do. */
export function useUpgradeRehearsal(path: ClusterPath, version: string) {
  return useQuery({
    queryKey: keys.upgrade(path, version),
    queryFn: ({ signal }) => rehearseUpgrade(path, version, signal),
    gcTime: 0,
  });
}

export function useUpgradeCluster(path: ClusterPath) {
  const cache = useQueryClient();
  const remember = useAccepted();
  return useMutation({
    mutationFn: ({ revision, version, confirm }: { revision: number; version: string; confirm: string | undefined }) =>
      upgradeCluster(path, revision, version, confirm),
    onSuccess: remember,
    onError: () => cache.invalidateQueries({ queryKey: keys.cluster(path), exact: true }),
  });
}

export function useChangeCluster(path: ClusterPath) {
  const cache = useQueryClient();
  const remember = useAccepted();
  return useMutation({
    mutationFn: ({ revision, spec, confirm }: { revision: number; spec: SpecPatch; confirm: string | undefined }) =>
      changeCluster(path, revision, spec, confirm),
    onSuccess: remember,
    onError: () => cache.invalidateQueries({ queryKey: keys.cluster(path), exact: true }),
  });
}

/** Puts the answer to a change into the cache, so that the next page shows it at once. */
export function useAccepted() {
  const cache = useQueryClient();
  return async ({ cluster, operation }: Accepted) => {
    const path = { tenant: cluster.tenant, name: cluster.name };
    // An answer under way was asked for before the change.
    await cache.cancelQueries({ queryKey: keys.cluster(path) });
    cache.setQueryData(keys.cluster(path), cluster);
    cache.setQueryData(keys.operation(path), operation);
    void cache.invalidateQueries({ queryKey: keys.clusters(cluster.tenant) });
    void cache.invalidateQueries({ queryKey: keys.events(path) });
  };
}

/** A random key; also where the page is served without TLS, which crypto.randomUUID refuses. */
export function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
