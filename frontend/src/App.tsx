import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import { Navigate, Outlet, Route, Routes, useLocation, useParams } from "react-router";

import { Frame, LEFT } from "./components/Frame";
import { Loading } from "./components/Loading";
import { ProblemNotice } from "./components/ProblemNotice";
import { useTenants } from "./hooks/catalogue";
import { useChanges } from "./hooks/changes";
import { useSession } from "./hooks/session";
import { ClusterPage } from "./pages/cluster/ClusterPage";
import { ClusterListPage } from "./pages/ClusterListPage";
import { NotFoundPage } from "./pages/NotFoundPage";
import { OrderPage } from "./pages/order/OrderPage";
import { SignInPage } from "./pages/SignInPage";

/** Every address. Without a session each of them shows the sign-in form, and the page asked for afterwards. */
export function App() {
  const session = useSession();
  const user = session.data?.user ?? null;
  const location = useLocation();
  useChanges(user !== null);
  const [wasSignedIn, setWasSignedIn] = useState(false);
  if (user && !wasSignedIn) setWasSignedIn(true);
  if (session.data && !user)
    return (
      <Frame user={null} tenants={[]} tenant={undefined}>
        <SignInPage hasEnded={wasSignedIn && location.state !== LEFT} oidc={session.data.oidc} />
      </Frame>
    );
  if (!user)
    return (
      <Frame user={null} tenants={[]} tenant={undefined}>
        {session.isError ? <ProblemNotice error={session.error} onRetry={() => void session.refetch()} /> : <Loading />}
      </Frame>
    );
  return (
    <Routes>
      <Route path="/" element={<InTenant />} />
      <Route path="/t/:tenant" element={<InTenant />}>
        <Route index element={<Navigate to="clusters" replace />} />
        <Route path="clusters" element={<ClusterListPage />} />
        <Route path="clusters/:name" element={<ClusterPage />} />
        <Route path="order" element={<OrderPage />} />
        <Route path="*" element={<NotFoundPage />} />
      </Route>
      <Route path="*" element={<Lost />} />
    </Routes>
  );
}

const LAST_TENANT = "berth.tenant";

/** The frame for a tenant's pages; without one in the address, on to the one used last, or the first. */
function InTenant() {
  const { t } = useTranslation();
  const { tenant: slug } = useParams();
  const user = useSession().data?.user ?? null;
  const tenants = useTenants();
  const rows = tenants.data ?? [];
  const tenant = rows.find((one) => one.slug === slug);
  useEffect(() => {
    if (tenant) localStorage.setItem(LAST_TENANT, tenant.slug);
  }, [tenant]);
  if (tenants.data && slug === undefined) {
    const last = localStorage.getItem(LAST_TENANT);
    const start = rows.find((one) => one.slug === last) ?? rows[0];
    if (start) return <Navigate to={`/t/${start.slug}/clusters`} replace />;
  }
  return (
    <Frame user={user} tenants={rows} tenant={tenant}>
      {tenants.isError && !tenants.data && <ProblemNotice error={tenants.error} onRetry={() => void tenants.refetch()} />}
      {tenants.isPending && <Loading />}
      {tenant && <Outlet context={tenant} />}
      {tenants.data && !tenant && slug !== undefined && <NotFoundPage />}
      {tenants.data?.length === 0 && slug === undefined && (
        <div className="empty">
          <h1>{t("frame.noTenant")}</h1>
          <p>{t("frame.noTenantHelp", { name: user?.username ?? "" })}</p>
        </div>
      )}
    </Frame>
  );
}

function Lost() {
  const user = useSession().data?.user ?? null;
  return (
    <Frame user={user} tenants={[]} tenant={undefined}>
      <NotFoundPage />
    </Frame>
  );
}
