import { useQuery } from "@tanstack/react-query";

import type { ClusterPath } from "../api/clusters";
import { isGone } from "../api/problem";
import { listReservations } from "../api/reservations";
import { keys } from "./keys";

const SHOWN = 50;
// Every look asks the target itself, and nothing here changes by the second.
const REFRESH_MS = 15_000;

export function useReservations(path: ClusterPath, isEnabled: boolean) {
  return useQuery({
    queryKey: keys.reservations(path),
    queryFn: ({ signal }) => listReservations(path, SHOWN, signal),
    enabled: isEnabled,
    refetchInterval: ({ state }) => (isGone(state.error) ? false : REFRESH_MS),
  });
}
