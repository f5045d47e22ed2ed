import { body, client } from "./client";
import type { Accepted, Cluster, ClusterEvent, ClusterOrder, Rehearsal, VolumesChoice } from "./types";

export interface ClusterPath {
  tenant: string;
  name: string;
}

const LIST = "/api/v1/tenants/{tenant}/clusters";
const ONE = "/api/v1/tenants/{tenant}/clusters/{name}";

export interface Page<T> {
  items: T[];
  next: string | null;
}

export function listClusters(tenant: string, cursor: string, signal: AbortSignal): Promise<Page<Cluster>> {
  return body(client.GET(LIST, { params: { path: { tenant }, query: cursor ? { cursor } : {} }, signal }));
}

export function getCluster(path: ClusterPath, signal: AbortSignal): Promise<Cluster> {
  return body(client.GET(ONE, { params: { path }, signal }));
}

/** A deleted cluster as it was, null when the portal no longer knows it: names are used again, ids are not. */
export async function getDeletedCluster(path: ClusterPath, id: string, signal: AbortSignal): Promise<Cluster | null> {
  const query = { phase: "deleted", q: path.name, order: "-created" } as const;
  const page = await body(client.GET(LIST, { params: { path: { tenant: path.tenant }, query }, signal }));
  return page.items.find((cluster) => cluster.id === id) ?? null;
}

/** The answer to a real change: only a dry run is answered with a rehearsal. */
async function accepted(answer: Promise<Accepted | Rehearsal>): Promise<Accepted> {
  const change = await answer;
  if ("dry_run" in change) throw new TypeError("A change was answered with a rehearsal of it.");
  return change;
}

/** Order a cluster. The same `key` with the same order is safe to send again: it is executed once. */
export function createCluster(tenant: string, order: ClusterOrder, key: string): Promise<Accepted> {
  const params = { path: { tenant }, header: { "Idempotency-Key": key } };
  return accepted(body(client.POST(LIST, { params, body: order })));
}

/** Delete the cluster as it was at `revision`; refused when people changed it since. */
export function deleteCluster(path: ClusterPath, revision: number, volumes: VolumesChoice): Promise<Accepted> {
  const query = volumes === "delete" ? { volumes, confirm: path.name } : { volumes };
  return accepted(body(client.DELETE(ONE, { params: { path, query, header: { "If-Match": `"${revision}"` } } })));
}

export async function listEvents(path: ClusterPath, limit: number, signal: AbortSignal): Promise<ClusterEvent[]> {
  const page = await body(client.GET(`${ONE}/events`, { params: { path, query: { limit } }, signal }));
  return page.items;
}
