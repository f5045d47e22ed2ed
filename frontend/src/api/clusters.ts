import { body, client } from "./client";
import type { Accepted, Cluster, ClusterCopy, ClusterEvent, ClusterOrder, Rehearsal, VolumesChoice } from "./types";

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
export async function accepted(answer: Accepted | Rehearsal | Promise<Accepted | Rehearsal>): Promise<Accepted> {
  const change = await answer;
  if ("dry_run" in change) throw new TypeError("A change was answered with a rehearsal of it.");
  return change;
}

/** The answer to a dry run. */
async function rehearsal(answer: Promise<object>): Promise<Rehearsal> {
  const found = await answer;
  if (!("dry_run" in found)) throw new TypeError("A rehearsal was answered with a change.");
  return found as Rehearsal;
}

/**
 * Order a cluster. The same `key` with the same order is safe to send again: it is executed once.
 * `confirm`: its name typed again, for what can lose data.
 */
export function createCluster(
  tenant: string, order: ClusterOrder, confirm: string | undefined, key: string,
): Promise<Accepted> {
  const params = { path: { tenant }, query: confirm === undefined ? {} : { confirm }, header: { "Idempotency-Key": key } };
  return accepted(body(client.POST(LIST, { params, body: order })));
}

/** New values of plan fields, merged into the present ones; null takes a value back to the plan's or the default. */
export type SpecPatch = Record<string, unknown>;

/** What a change of the spec would do; nothing is changed. */
export function rehearseChange(path: ClusterPath, spec: SpecPatch, signal: AbortSignal): Promise<Rehearsal> {
  const params = { path, query: { dry_run: true } };
  return rehearsal(body(client.PATCH(ONE, { params, body: { spec }, signal })));
}

/** Change the spec of the cluster as it was at `revision`; `confirm`: its name typed again, for what can lose data. */
export async function changeCluster(
  path: ClusterPath, revision: number, spec: SpecPatch, confirm: string | undefined,
): Promise<Accepted> {
  const params = { path, query: confirm === undefined ? {} : { confirm }, header: { "If-Match": `"${revision}"` } };
  const answer = await body(client.PATCH(ONE, { params, body: { spec } }));
  if (!("operation" in answer && "cluster" in answer) || "dry_run" in answer)
    throw new TypeError("A change of values was answered without an operation.");
  return answer;
}

/** What going to another version would do; nothing is changed. */
export function rehearseUpgrade(path: ClusterPath, version: string, signal: AbortSignal): Promise<Rehearsal> {
  const params = { path, query: { dry_run: true } };
  return rehearsal(body(client.PATCH(ONE, { params, body: { version }, signal })));
}

/** Go to another version; `confirm`: the cluster's name typed again, where that loses data. */
export async function upgradeCluster(
  path: ClusterPath, revision: number, version: string, confirm: string | undefined,
): Promise<Accepted> {
  const params = { path, query: confirm === undefined ? {} : { confirm }, header: { "If-Match": `"${revision}"` } };
  const answer = await body(client.PATCH(ONE, { params, body: { version } }));
  if (!("operation" in answer && "cluster" in answer) || "dry_run" in answer)
    throw new TypeError("A change of version was answered without an operation.");
  return answer;
}

/** What a restart of every pod would do; nothing is done. */
export function rehearseRestart(path: ClusterPath, signal: AbortSignal): Promise<Rehearsal> {
  return rehearsal(body(client.POST(`${ONE}/restart`, { params: { path, query: { dry_run: true } }, signal })));
}

/** Restart every pod, one at a time; `confirm`: the cluster's name typed again, where a restart loses data. */
export function restartCluster(path: ClusterPath, revision: number, confirm: string): Promise<Accepted> {
  const params = { path, query: confirm === "" ? {} : { confirm }, header: { "If-Match": `"${revision}"` } };
  return accepted(body(client.POST(`${ONE}/restart`, { params })));
}

/** What evening out the masters would do; nothing is done. */
export function rehearseRebalance(path: ClusterPath, signal: AbortSignal): Promise<Rehearsal> {
  return rehearsal(body(client.POST(`${ONE}/rebalance-masters`, { params: { path, query: { dry_run: true } }, signal })));
}

/** Have replicas take over until masters are even over the nodes. */
export function rebalanceMasters(path: ClusterPath, revision: number): Promise<Accepted> {
  const params = { path, header: { "If-Match": `"${revision}"` } };
  return accepted(body(client.POST(`${ONE}/rebalance-masters`, { params })));
}

/** What accepting that data is gone would give up; nothing is done. */
export function rehearseLoss(path: ClusterPath, signal: AbortSignal): Promise<Rehearsal> {
  return rehearsal(body(client.POST(`${ONE}/accept-loss`, { params: { path, query: { dry_run: true } }, signal })));
}

/** Give up for good what the cluster's `loss` names; `confirm`: the cluster's name typed again. */
export function acceptLoss(path: ClusterPath, revision: number, confirm: string): Promise<Accepted> {
  const params = { path, query: confirm === "" ? {} : { confirm }, header: { "If-Match": `"${revision}"` } };
  return accepted(body(client.POST(`${ONE}/accept-loss`, { params })));
}

/** The order for another cluster like this one, all but its name; and what could not be taken over. */
export function getCopy(path: ClusterPath, signal: AbortSignal): Promise<ClusterCopy> {
  return body(client.GET(`${ONE}/order`, { params: { path }, signal }));
}

/** Have the portal only watch the cluster; `reason` is shown to everybody who sees it. */
export function pauseCluster(path: ClusterPath, revision: number, reason: string): Promise<Cluster> {
  const params = { path, header: { "If-Match": `"${revision}"` } };
  return body(client.POST(`${ONE}/pause`, { params, body: { reason } }));
}

/** Have a paused cluster looked after again. */
export function resumeCluster(path: ClusterPath, revision: number): Promise<Cluster> {
  return body(client.POST(`${ONE}/resume`, { params: { path, header: { "If-Match": `"${revision}"` } } }));
}

/** What a deletion would do; nothing is deleted. */
export function rehearseDelete(path: ClusterPath, volumes: VolumesChoice, signal: AbortSignal): Promise<Rehearsal> {
  const query = { ...deletion(path, volumes), dry_run: true };
  return rehearsal(body(client.DELETE(ONE, { params: { path, query }, signal })));
}

function deletion(path: ClusterPath, volumes: VolumesChoice) {
  return volumes === "delete" ? { volumes, confirm: path.name } : { volumes };
}

/** Delete the cluster as it was at `revision`; refused when people changed it since. */
export function deleteCluster(path: ClusterPath, revision: number, volumes: VolumesChoice): Promise<Accepted> {
  const params = { path, query: deletion(path, volumes), header: { "If-Match": `"${revision}"` } };
  return accepted(body(client.DELETE(ONE, { params })));
}

export async function listEvents(path: ClusterPath, limit: number, signal: AbortSignal): Promise<ClusterEvent[]> {
  const page = await body(client.GET(`${ONE}/events`, { params: { path, query: { limit } }, signal }));
  return page.items;
}
