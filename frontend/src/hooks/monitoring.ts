import { useQuery } from "@tanstack/react-query";

import type { ClusterPath } from "../api/clusters";
import { getMonitoring, listAlerts } from "../api/monitoring";
import { isGone } from "../api/problem";
import { keys } from "./keys";

const SHOWN = 50;
// Every look asks Alertmanager itself.
const REFRESH_MS = 15_000;

export function useMonitoring(path: ClusterPath, isEnabled: boolean) {
  return useQuery({
    queryKey: keys.monitoring(path),
    queryFn: ({ signal }) => getMonitoring(path, signal),
    enabled: isEnabled,
  });
}

export function useAlerts(path: ClusterPath, isEnabled: boolean) {
  return useQuery({
    queryKey: keys.alerts(path),
    queryFn: ({ signal }) => listAlerts(path, SHOWN, signal),
    enabled: isEnabled,
    refetchInterval: ({ state }) => (isGone(state.error) ? false : REFRESH_MS),
  });
}
