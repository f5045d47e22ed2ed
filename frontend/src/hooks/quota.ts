import { keepPreviousData, skipToken, useQuery } from "@tanstack/react-query";

import { forecastQuota } from "../api/quota";
import type { ForecastDraft } from "../api/types";
import { useDebounced } from "./debounced";
import { keys } from "./keys";

// Long enough that a typed number is one question, short enough to feel immediate.
const TYPING_MS = 300;
// What others order meanwhile changes the answer.
const STALE_MS = 5_000;

/** What the draft would take of the quota, asked anew when typing pauses; the last answer stays until the next is there. */
export function useForecast(tenant: string, draft: ForecastDraft | null) {
  const settled = useDebounced(draft, TYPING_MS);
  return useQuery({
    queryKey: keys.forecast(tenant, settled),
    queryFn: settled === null ? skipToken : ({ signal }) => forecastQuota(tenant, settled, signal),
    placeholderData: keepPreviousData,
    staleTime: STALE_MS,
  });
}
