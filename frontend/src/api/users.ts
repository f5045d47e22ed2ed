import { allPages, body, client } from "./client";
import { type ClusterPath, accepted } from "./clusters";
import type { Accepted, ClusterUser, Rotation, UserOrder, UserPatch } from "./types";

const USERS = "/api/v1/tenants/{tenant}/clusters/{name}/users";
const ONE = `${USERS}/{user}` as const;

export function listUsers(path: ClusterPath, signal: AbortSignal): Promise<ClusterUser[]> {
  return allPages((cursor) => body(client.GET(USERS, { params: { path, query: cursor ? { cursor } : {} }, signal })));
}

/** Make a user; the portal makes its password. The same `key` with the same order is safe to send again. */
export function addUser(path: ClusterPath, order: UserOrder, key: string): Promise<Accepted> {
  return accepted(body(client.POST(USERS, { params: { path, header: { "Idempotency-Key": key } }, body: order })));
}

/** Change what a user may do; null when all stays as it is. */
export async function editUser(path: ClusterPath, user: ClusterUser, patch: UserPatch): Promise<Accepted | null> {
  const answer = await body(client.PATCH(ONE, { params: about(path, user), body: patch }));
  return "operation" in answer ? accepted(answer) : null;
}

export function removeUser(path: ClusterPath, user: ClusterUser): Promise<Accepted> {
  return accepted(body(client.DELETE(ONE, { params: about(path, user) })));
}

/** Give a user a new password beside the present one. */
export function rotatePassword(path: ClusterPath, user: ClusterUser, rotation: Rotation, key: string): Promise<Accepted> {
  const { path: names, header } = about(path, user);
  const params = { path: names, header: { ...header, "Idempotency-Key": key } };
  return accepted(body(client.POST(`${ONE}/rotate`, { params, body: rotation })));
}

/** End the old password before its time. */
export function revokeOldPassword(path: ClusterPath, user: ClusterUser): Promise<Accepted> {
  return accepted(body(client.POST(`${ONE}/revoke-old`, { params: about(path, user) })));
}

function about(path: ClusterPath, user: ClusterUser) {
  return { path: { ...path, user: user.name }, header: { "If-Match": `"${user.revision}"` } };
}
