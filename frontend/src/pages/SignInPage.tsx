import { type SubmitEvent, useId, useState } from "react";
import { useTranslation } from "react-i18next";
import { useLocation } from "react-router";

import { type Fault, FaultSummary } from "../components/FaultSummary";
import { FormRow } from "../components/FormRow";
import { useSignIn } from "../hooks/session";
import { useTitle } from "./useTitle";

/** What the portal may write into the address when signing in elsewhere failed (portal/oidc.py). */
const REASONS = ["oidc_off", "oidc_away", "oidc_state", "oidc_denied", "oidc_refused", "oidc_switched_off"] as const;
const REASON = "sign_in_error";

interface Props {
  hasEnded: boolean;
  /** Name of the provider one can also sign in with. */
  oidc: string | null;
}

/** Shown in the place of any page until somebody is signed in, so that the address asked for is kept. */
export function SignInPage({ hasEnded, oidc }: Props) {
  const { t } = useTranslation();
  useTitle(t("signIn.title"));
  const id = useId();
  const signIn = useSignIn();
  const [username, setUsername] = useState("");
  const [password, setPassword] = useState("");
  const [faults, setFaults] = useState<readonly Fault[]>([]);
  const [attempt, setAttempt] = useState(0);
  const ids = { username: `${id}-username`, password: `${id}-password` };

  const { pathname, search } = useLocation();
  const query = new URLSearchParams(search);
  const code = query.get(REASON);
  const reason = code === null ? null : (REASONS.find((one) => one === code) ?? "oidc_refused");
  query.delete(REASON);
  const next = query.size > 0 ? `${pathname}?${query.toString()}` : pathname;

  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    if (signIn.isPending) return;
    const missing = (["username", "password"] as const).filter((key) => !{ username, password }[key]);
    setFaults(missing.map((key) => ({ id: ids[key], message: t("signIn.missing", { field: t(`signIn.${key}`) }) })));
    signIn.reset();
    if (missing.length > 0) setAttempt((count) => count + 1);
    else signIn.mutate({ username, password }, { onError: () => setAttempt((count) => count + 1) });
  };
  const fault = (control: string) => faults.find((one) => one.id === control)?.message;

  return (
    <div className="sign-in">
      <h1>{t("signIn.title")}</h1>
      <p className="muted">{hasEnded ? t("signIn.needed") : t("signIn.about")}</p>
      {reason && (
        <div className="notice notice--bad" role="alert">
          {t(`signIn.reason.${reason}`, { name: oidc ?? t("signIn.provider") })}
        </div>
      )}
      {oidc && (
        // Not the router's link: this address is the portal's.
        <p>
          <a className="button button--main" href={`/auth/oidc/login?${new URLSearchParams({ next }).toString()}`}>
            {t("signIn.with", { name: oidc })}
          </a>
        </p>
      )}
      <form className="card" onSubmit={submit} noValidate>
        {(faults.length > 0 || signIn.isError) && (
          <FaultSummary faults={faults} error={signIn.isError ? signIn.error : null} attempt={attempt} />
        )}
        <FormRow id={ids.username} label={t("signIn.username")} fault={fault(ids.username)}>
          {(control) => (
            <input
              {...control}
              autoComplete="username"
              autoCapitalize="none"
              spellCheck={false}
              value={username}
              onChange={(event) => setUsername(event.target.value)}
            />
          )}
        </FormRow>
        <FormRow id={ids.password} label={t("signIn.password")} fault={fault(ids.password)}>
          {(control) => (
            <input
              {...control}
              type="password"
              autoComplete="current-password"
              value={password}
              onChange={(event) => setPassword(event.target.value)}
            />
          )}
        </FormRow>
        <button className="button button--main" aria-disabled={signIn.isPending}>
          {signIn.isPending ? t("signIn.busy") : t("signIn.submit")}
        </button>
      </form>
    </div>
  );
}
