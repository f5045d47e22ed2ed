// A page under test: the whole application on an address, with a portal that answers what the test says.
import { QueryClientProvider } from "@tanstack/react-query";
import { render } from "@testing-library/react";
import { MemoryRouter } from "react-router";
import { vi } from "vitest";

import type { Cluster, Engine, Field, Monitoring, Operation, Plan, Problem, Session, Step, Target, Tenant } from "../api/types";
import { App } from "../App";
import { createQueryClient } from "../query";

interface Call {
  method: string;
  path: string;
  query: URLSearchParams;
  headers: Headers;
  body: unknown;
}

export interface Answer {
  status?: number;
  body?: unknown;
}

/** "METHOD /path below /api/v1": what to answer. A promise that never ends is a long poll without news. */
export type Answers = Record<string, (call: Call) => Answer | Promise<Answer>>;

/** The network is not there. */
export function noNetwork(): never {
  throw new TypeError("Failed to fetch");
}

const NOTHING: Answer = { body: { items: [], next: null } };

export const alice: Session = {
  user: { id: 1, username: "alice", name: "Alice", admin: false },
  memberships: [{ tenant: "demo", name: "Demo", role: "owner", suspended: false }],
  oidc: null,
};
export const demo: Tenant = { slug: "demo", name: "Demo", role: "owner", suspended: false, created: "2026-01-01T00:00:00Z" };

const unwatched: Monitoring = { metrics: [], labels: {}, dashboard: "", alerting: false };

/** Shows the application on `address`; returns every call the page makes. */
export function openPage(address: string, answers: Answers = {}): Call[] {
  const calls: Call[] = [];
  const all: Answers = {
    "GET /session": () => ({ body: alice }),
    "GET /tenants/demo/ip-reservations": () => ({ body: { targets: [], items: [], next: null } }),
    "GET /tenants/demo/clusters/orders/monitoring": () => ({ body: unwatched }),
    "GET /tenants/demo/clusters/orders/alerts": () => ({ body: { configured: true, remedy: "", items: [], next: null } }),
    "GET /tenants": () => ({ body: { items: [demo], next: null } }),
    ...answers,
  };
  vi.stubGlobal("fetch", async (request: Request) => {
    const url = new URL(request.url);
    const path = url.pathname.replace("/api/v1", "");
    const text = await request.text();
    const call: Call = {
      method: request.method,
      path,
      query: url.searchParams,
      headers: request.headers,
      body: text === "" ? null : (JSON.parse(text) as unknown),
    };
    calls.push(call);
    const { status = 200, body = null } = await (all[`${request.method} ${path}`]?.(call) ?? NOTHING);
    const type = status < 400 ? "application/json" : "application/problem+json";
    return new Response(status === 204 ? null : JSON.stringify(body), { status, headers: { "Content-Type": type } });
  });
  render(
    <QueryClientProvider client={createQueryClient()}>
      <MemoryRouter initialEntries={[address]} useTransitions={false}>
        <App />
      </MemoryRouter>
    </QueryClientProvider>,
  );
  return calls;
}

export function page(...items: unknown[]): () => Answer {
  return () => ({ body: { items, next: null } });
}

export function problem(status: number, code: string, detail: string, more: Partial<Problem> = {}): Answer {
  const body: Problem = {
    type: `/api/v1/problems/${code}`, title: code, status, code, detail, errors: [], suggestion: "", request_id: "req-1",
    instance: "/", ...more,
  };
  return { status, body };
}

export function field(key: string, more: Partial<Field> = {}): Field {
  return {
    key, title: key, kind: "integer", default: 3, effect: "live", help: "", unit: "", minimum: null, maximum: null,
    step: null, choices: [], group: "Size", advanced: false, entries: [], ...more,
  };
}

export const redis: Engine = {
  name: "redis",
  title: "Redis Cluster",
  summary: "Sharded.",
  versions: ["7.0"],
  upgrades: {},
  fields: [
    field("shards", { title: "Shards", minimum: 3, maximum: 32, effect: "move" }),
    field("memoryGiB", { title: "Memory", kind: "number", default: 2, minimum: 0.5, maximum: 32, step: 0.5, unit: "GiB" }),
    field("storageClass", { title: "Storage class", kind: "storage-class", default: "", effect: "fixed", group: "Storage" }),
    field("config", { title: "Own configuration", kind: "map", default: {}, advanced: true }),
  ],
  user_rules: null,
};

export const small: Plan = {
  name: "small", engine: "redis", title: "Small", description: "", values: { memoryGiB: 1 }, storage_classes: [], targets: [],
  position: 0, offered: true,
};

export const sandbox: Target = {
  name: "sandbox", title: "Sandbox", enabled: true, reachable: true, reason: "", checked: null, kubernetes_version: "v1",
  uid: "u-1", source: "file", reach: "direct", nodes: 3, zones: 2, cpu_millicores: 6000, memory_mib: 8192,
  storage_classes: [{ name: "standard", provisioner: "", default: true, expandable: true }],
};

export function step(key: string, more: Partial<Step> = {}): Step {
  return { key, title: key, state: "waiting", started: null, ended: null, reason: "", object: "", ...more };
}

export function operation(more: Partial<Operation> = {}): Operation {
  return {
    id: "op_1", kind: "create", cluster: { id: "clu_1", tenant: "demo", name: "orders", engine: "redis" }, state: "running",
    percent: 50, reason: "", steps: [], changes: [], estimate: null, proof: null, gate: null, error: null, cancelable: false, actor: "alice",
    generation: 1, revision: 1, request_id: "req-0", created: "2026-01-01T00:00:00Z", started: "2026-01-01T00:00:00Z", ended: null,
    deadline: "2026-01-01T00:15:00Z", ...more,
  };
}

export function cluster(more: Partial<Cluster> = {}): Cluster {
  return {
    id: "clu_1", tenant: "demo", name: "orders", engine: "redis", version: "7.0", plan: "small", target: "sandbox", spec: {},
    labels: {}, description: "", phase: "ready", reason: "", paused: null, causes: [], conditions: [], endpoints: [], members: [], spread: null, loss: null, generation: 1,
    observed_generation: 1, revision: 7, operation: null, created: "2026-01-01T00:00:00Z", created_by: "alice",
    ready_at: "2026-01-01T00:00:09Z", volumes_kept: false, deleted_at: null, ...more,
  };
}
