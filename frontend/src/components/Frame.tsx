import { type ReactNode, useEffect, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { Link, NavLink, useLocation, useNavigate } from "react-router";

import type { Session, Tenant } from "../api/types";
import { useConnection } from "../hooks/connection";
import { useSignOut } from "../hooks/session";
import { chooseLanguage, type Language, LANGUAGES } from "../i18n";
import { ProblemNotice } from "./ProblemNotice";
import { Time } from "./Time";

// State of the address after signing out, so that nobody is told that the session ended by itself.
export const LEFT = "left";

interface Props {
  user: Session["user"];
  tenants: readonly Tenant[];
  tenant: Tenant | undefined;
  children: ReactNode;
}

/** What is around every page: name, tenant, language, who is signed in, and whether the portal can be reached. */
export function Frame({ user, tenants, tenant, children }: Props) {
  const { t } = useTranslation();
  const main = useRef<HTMLElement>(null);
  const { pathname } = useLocation();
  const before = useRef(pathname);
  useEffect(() => {
    // A new page begins at its top, for the keyboard too.
    if (before.current === pathname) return;
    before.current = pathname;
    window.scrollTo(0, 0);
    main.current?.focus({ preventScroll: true });
  }, [pathname]);
  return (
    <>
      <a className="skip" href="#main">
        {t("common.skip")}
      </a>
      <header className="top">
        <div className="top__inner">
          <Link className="brand" to="/">
            <img src="/berth.svg" alt="" width="26" height="26" />
            Berth
          </Link>
          {user && tenant && (
            <>
              <TenantChoice tenants={tenants} tenant={tenant} />
              <nav className="top__nav">
                <NavLink to={`/t/${tenant.slug}/clusters`}>{t("frame.clusters")}</NavLink>
              </nav>
            </>
          )}
          <div className="top__end">
            <a href="/api/docs">{t("frame.reference")}</a>
            <LanguageChoice />
            {user && <SignedIn user={user} />}
          </div>
        </div>
      </header>
      <ConnectionNotice />
      <main id="main" ref={main} tabIndex={-1}>
        {tenant?.suspended && (
          <p className="notice notice--warn" role="status">
            {t("frame.suspended")}
          </p>
        )}
        {children}
      </main>
    </>
  );
}

function TenantChoice({ tenants, tenant }: { tenants: readonly Tenant[]; tenant: Tenant }) {
  const { t } = useTranslation();
  const navigate = useNavigate();
  if (tenants.length === 1)
    return (
      <span className="top__tenant">
        <span className="hidden">{t("frame.tenant")}: </span>
        {tenant.name}
      </span>
    );
  return (
    <select
      className="top__tenant"
      aria-label={t("frame.tenant")}
      value={tenant.slug}
      onChange={(event) => void navigate(`/t/${event.target.value}/clusters`)}
    >
      {tenants.map(({ slug, name }) => (
        <option key={slug} value={slug}>
          {name}
        </option>
      ))}
    </select>
  );
}

function LanguageChoice() {
  const { t, i18n } = useTranslation();
  return (
    <select
      aria-label={t("frame.language")}
      value={i18n.language}
      onChange={(event) => void chooseLanguage(event.target.value as Language)}
    >
      {Object.entries(LANGUAGES).map(([tag, { title }]) => (
        <option key={tag} value={tag} lang={tag}>
          {title}
        </option>
      ))}
    </select>
  );
}

function SignedIn({ user }: { user: NonNullable<Session["user"]> }) {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const signOut = useSignOut(() => void navigate("/", { state: LEFT }));
  const name = user.name || user.username;
  return (
    <>
      <span className="top__user" title={t("frame.signedInAs", { name })}>
        {name}
      </span>
      <button type="button" className="button button--small" onClick={() => signOut.mutate()} disabled={signOut.isPending}>
        {t("frame.signOut")}
      </button>
      {signOut.isError && <ProblemNotice error={signOut.error} />}
    </>
  );
}

const BACK_FOR_MS = 4_000;

function ConnectionNotice() {
  const { t } = useTranslation();
  const since = useConnection();
  const [wasLost, setWasLost] = useState(false);
  if (since !== null && !wasLost) setWasLost(true);
  useEffect(() => {
    if (since !== null || !wasLost) return;
    const timer = setTimeout(() => setWasLost(false), BACK_FOR_MS);
    return () => clearTimeout(timer);
  }, [since, wasLost]);
  return (
    <div role="status" className="connection">
      {since !== null ? (
        <p className="connection__lost">
          {splitAt(t("frame.lost", { time: "\0" }), <Time at={new Date(since).toISOString()} style="clock" />)}
        </p>
      ) : (
        wasLost && <p className="connection__back">{t("frame.back")}</p>
      )}
    </div>
  );
}

/** A text with an element in the place of "\0". */
function splitAt(text: string, element: ReactNode): ReactNode {
  const [head, tail] = text.split("\0");
  return (
    <>
      {head}
      {element}
      {tail}
    </>
  );
}
