import { body, client } from "./client";
import type { ClusterPath } from "./clusters";
import type { Reservations } from "./types";

/** The newest addresses of a cluster's pods that rest or rested. */
export function listReservations(path: ClusterPath, limit: number, signal: AbortSignal): Promise<Reservations> {
  const params = { path: { tenant: path.tenant }, query: { cluster: path.name, limit } };
  return body(client.GET("/api/v1/tenants/{tenant}/ip-reservations", { params, signal }));
}
