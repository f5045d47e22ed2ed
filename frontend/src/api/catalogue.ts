// What can be ordered, and where: engines, plans, targets, and the tenants one may order for.
import { allPages, body, client } from "./client";
import type { Engine, Plan, Target, Tenant } from "./types";

const LIMIT = 200;

export async function listEngines(signal: AbortSignal): Promise<Engine[]> {
  const page = await body(client.GET("/api/v1/engines", { signal }));
  return page.items;
}

export function listPlans(engine: string, signal: AbortSignal): Promise<Plan[]> {
  return allPages((cursor) =>
    body(client.GET("/api/v1/plans", { params: { query: { engine, offered: true, limit: LIMIT, ...(cursor && { cursor }) } }, signal })),
  );
}

export function listTargets(signal: AbortSignal): Promise<Target[]> {
  return allPages((cursor) =>
    body(client.GET("/api/v1/targets", { params: { query: { limit: LIMIT, ...(cursor && { cursor }) } }, signal })),
  );
}

export function listTenants(signal: AbortSignal): Promise<Tenant[]> {
  return allPages((cursor) =>
    body(client.GET("/api/v1/tenants", { params: { query: { limit: LIMIT, ...(cursor && { cursor }) } }, signal })),
  );
}
