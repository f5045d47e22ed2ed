import { useOutletContext } from "react-router";

import type { Tenant } from "../api/types";

/** The tenant in the address. */
export function useTenant(): Tenant {
  return useOutletContext<Tenant>();
}

/** Whether the signed-in person may order, delete and reveal there. The portal has the last word. */
export function canChange(tenant: Tenant): boolean {
  return tenant.role !== "viewer" && !tenant.suspended;
}
