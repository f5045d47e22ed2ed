import { body, client } from "./client";
import type { ClusterPath } from "./clusters";
import type { Accepted, Operation } from "./types";

export const LONG_POLL_SECONDS = 30;

export function isOpen(operation: Operation): boolean {
  return operation.state === "queued" || operation.state === "running";
}

/** Wait for news of an operation seen at `revision`; answers with the same state when there is none in time. */
export function awaitOperation(id: string, revision: number, signal: AbortSignal): Promise<Operation> {
  const params = { path: { operation: id }, query: { wait: LONG_POLL_SECONDS, revision } };
  return body(client.GET("/api/v1/operations/{operation}", { params, signal }));
}

/** Stop an operation where it can be stopped; `reason` is shown to whoever asks why. */
export function cancelOperation(id: string, reason: string): Promise<Operation> {
  return body(client.POST("/api/v1/operations/{operation}/cancel", { params: { path: { operation: id } }, body: { reason } }));
}

/** Do again what failed or was canceled, by a new operation. */
export function retryOperation(id: string): Promise<Accepted> {
  return body(client.POST("/api/v1/operations/{operation}/retry", { params: { path: { operation: id } } }));
}

/** Let an operation pass the health gate it waits at; for platform administrators. `reason` is shown to everybody. */
export function overrideGate(id: string, gate: string, reason: string): Promise<Operation> {
  return body(client.POST("/api/v1/operations/{operation}/override", { params: { path: { operation: id } }, body: { gate, reason } }));
}

/** The newest operation of a cluster, null when it never had one. */
export async function latestOperation(path: ClusterPath, signal: AbortSignal): Promise<Operation | null> {
  const address = "/api/v1/tenants/{tenant}/clusters/{name}/operations";
  const page = await body(client.GET(address, { params: { path, query: { limit: 1 } }, signal }));
  return page.items[0] ?? null;
}
