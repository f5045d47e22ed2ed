import { skipToken, useQuery } from "@tanstack/react-query";

import { listEngines, listPlans, listTargets, listTenants } from "../api/catalogue";
import { keys } from "./keys";

// The catalogue changes when an administrator changes it; targets when nodes come and go.
const CATALOGUE_STALE_MS = 60_000;

export function useEngines() {
  return useQuery({
    queryKey: keys.engines,
    queryFn: ({ signal }) => listEngines(signal),
    staleTime: CATALOGUE_STALE_MS,
  });
}

/** The plans of an engine; idle without one. */
export function usePlans(engine: string | undefined) {
  return useQuery({
    queryKey: keys.plans(engine ?? ""),
    queryFn: engine === undefined ? skipToken : ({ signal }) => listPlans(engine, signal),
    staleTime: CATALOGUE_STALE_MS,
  });
}

export function useTargets() {
  return useQuery({ queryKey: keys.targets, queryFn: ({ signal }) => listTargets(signal) });
}

export function useTenants() {
  return useQuery({
    queryKey: keys.tenants,
    queryFn: ({ signal }) => listTenants(signal),
    staleTime: CATALOGUE_STALE_MS,
  });
}
