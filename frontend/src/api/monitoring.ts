import { body, client } from "./client";
import type { ClusterPath } from "./clusters";
import type { Alerts, Monitoring } from "./types";

/** Where a cluster's metrics and its dashboard are. */
export function getMonitoring(path: ClusterPath, signal: AbortSignal): Promise<Monitoring> {
  return body(client.GET("/api/v1/tenants/{tenant}/clusters/{name}/monitoring", { params: { path }, signal }));
}

/** What fires about a cluster now. */
export function listAlerts(path: ClusterPath, limit: number, signal: AbortSignal): Promise<Alerts> {
  const params = { path, query: { limit } };
  return body(client.GET("/api/v1/tenants/{tenant}/clusters/{name}/alerts", { params, signal }));
}
