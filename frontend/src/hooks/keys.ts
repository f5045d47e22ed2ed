// Every cache key, tenant first: what belongs to one tenant can never be shown for another.
import type { ClusterPath, SpecPatch } from "../api/clusters";
import type { ForecastDraft } from "../api/types";

export const keys = {
  session: ["session"] as const,
  tenants: ["tenants"] as const,
  engines: ["engines"] as const,
  plans: (engine: string) => ["plans", engine] as const,
  targets: ["targets"] as const,
  forecast: (tenant: string, draft: ForecastDraft | null) => ["tenant", tenant, "forecast", draft] as const,
  rehearsal: ({ tenant, name }: ClusterPath, spec: SpecPatch | null) => ["tenant", tenant, "rehearsal", name, spec] as const,
  restart: ({ tenant, name }: ClusterPath) => ["tenant", tenant, "restart", name] as const,
  rebalance: ({ tenant, name }: ClusterPath, handOvers: number) => ["tenant", tenant, "rebalance", name, handOvers] as const,
  loss: ({ tenant, name }: ClusterPath, extent: string) => ["tenant", tenant, "loss", name, extent] as const,
  deletion: ({ tenant, name }: ClusterPath, volumes: string) => ["tenant", tenant, "deletion", name, volumes] as const,
  upgrade: ({ tenant, name }: ClusterPath, version: string) => ["tenant", tenant, "upgrade", name, version] as const,
  clusters: (tenant: string) => ["tenant", tenant, "clusters"] as const,
  cluster: ({ tenant, name }: ClusterPath) => ["tenant", tenant, "cluster", name] as const,
  deletedCluster: (tenant: string, id: string) => ["tenant", tenant, "deleted-cluster", id] as const,
  copy: (path: ClusterPath) => [...keys.cluster(path), "copy"] as const,
  events: (path: ClusterPath) => [...keys.cluster(path), "events"] as const,
  monitoring: (path: ClusterPath) => [...keys.cluster(path), "monitoring"] as const,
  alerts: (path: ClusterPath) => [...keys.cluster(path), "alerts"] as const,
  reservations: (path: ClusterPath) => [...keys.cluster(path), "reservations"] as const,
  credentials: (path: ClusterPath) => [...keys.cluster(path), "credentials"] as const,
  users: (path: ClusterPath) => [...keys.cluster(path), "users"] as const,
  certificate: (path: ClusterPath) => [...keys.cluster(path), "certificate"] as const,
  snippets: (path: ClusterPath) => [...keys.cluster(path), "snippets"] as const,
  /** The newest operation of a cluster. */
  operation: (path: ClusterPath) => [...keys.cluster(path), "operation"] as const,
};
