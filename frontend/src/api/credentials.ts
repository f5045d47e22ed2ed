import { allPages, body, client } from "./client";
import type { ClusterPath } from "./clusters";
import type { Certificate, Credential, Revealed, Snippet } from "./types";

const CLUSTER = "/api/v1/tenants/{tenant}/clusters/{name}";

export function listCredentials(path: ClusterPath, signal: AbortSignal): Promise<Credential[]> {
  return allPages((cursor) =>
    body(client.GET(`${CLUSTER}/credentials`, { params: { path, query: cursor ? { cursor } : {} }, signal })),
  );
}

/** Read a password. Noted in the cluster's events; the answer is kept nowhere. */
export function revealCredential(path: ClusterPath, principal: string): Promise<Revealed> {
  return body(client.POST(`${CLUSTER}/credentials/{principal}/reveal`, { params: { path: { ...path, principal } } }));
}

/** What verifies the cluster's servers; nothing of it is secret. */
export function getCertificate(path: ClusterPath, signal: AbortSignal): Promise<Certificate> {
  return body(client.GET(`${CLUSTER}/certificate`, { params: { path }, signal }));
}

export async function listSnippets(path: ClusterPath, signal: AbortSignal): Promise<Snippet[]> {
  const page = await body(client.GET(`${CLUSTER}/snippets`, { params: { path }, signal }));
  return page.items;
}
