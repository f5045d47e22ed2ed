import { body, client } from "./client";
import type { Forecast, ForecastDraft } from "./types";

/** What an order would take of the tenant's quota. Writes nothing. */
export function forecastQuota(tenant: string, draft: ForecastDraft, signal: AbortSignal): Promise<Forecast> {
  return body(client.POST("/api/v1/tenants/{tenant}/quota/forecast", { params: { path: { tenant } }, body: draft, signal }));
}
