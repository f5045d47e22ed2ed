import { useState } from "react";
import { useTranslation } from "react-i18next";

import { isOpen } from "../../api/operations";
import type { Cluster, ClusterUser, UserRules } from "../../api/types";
import { CopyButton } from "../../components/CopyButton";
import { Loading } from "../../components/Loading";
import { ProblemNotice } from "../../components/ProblemNotice";
import { Time } from "../../components/Time";
import { useReveal } from "../../hooks/credentials";
import { useUsers } from "../../hooks/users";
import { AccessDialog, RemoveDialog, RevokeDialog, RotateDialog } from "./UserDialogs";

interface Props {
  cluster: Cluster;
  /** What the engine's users can be; null: its clusters have one that never changes. */
  rules: UserRules | null | undefined;
  mayChange: boolean;
}

type Asked = { what: "access" | "rotate" | "revoke" | "remove"; user: ClusterUser } | { what: "add" };

/** Who signs in to the cluster, what each may do, and how the rotation of its password stands. */
export function Users({ cluster, rules, mayChange }: Props) {
  const { t } = useTranslation();
  const path = { tenant: cluster.tenant, name: cluster.name };
  const isShown = rules != null && cluster.ready_at !== null && cluster.phase !== "deleting";
  const users = useUsers(path, isShown);
  const reveal = useReveal(path);
  const [asked, setAsked] = useState<Asked | null>(null);
  if (!isShown) return null;
  const isBusy = cluster.paused !== null || (cluster.operation !== null && isOpen(cluster.operation));
  const close = () => setAsked(null);
  return (
    <section className="card" aria-labelledby="users-title">
      <div className="card__head">
        <h2 id="users-title">{t("users.title")}</h2>
        {mayChange && !isBusy && (
          <button type="button" className="button" onClick={() => setAsked({ what: "add" })}>
            {t("users.add")}
          </button>
        )}
      </div>
      {users.isPending && <Loading lines={2} />}
      {users.isError && <ProblemNotice error={users.error} onRetry={() => void users.refetch()} />}
      {reveal.isError && <ProblemNotice error={reveal.error} />}
      {users.data && (
        <div className="scroll">
          <table className="table">
            <caption className="hidden">{t("users.title")}</caption>
            <thead>
              <tr>
                <th scope="col">{t("users.name")}</th>
                <th scope="col">{t("users.access")}</th>
                <th scope="col">{t("users.password")}</th>
                {mayChange && (
                  <th scope="col">
                    <span className="hidden">{t("users.actions")}</span>
                  </th>
                )}
              </tr>
            </thead>
            <tbody>
              {users.data.map((user) => (
                <tr key={user.name}>
                  <th scope="row">
                    <code>{user.name}</code>
                    {!user.enabled && <span className="cell-note">{t("users.disabled")}</span>}
                  </th>
                  <td>
                    <AccessView user={user} />
                  </td>
                  <td>
                    <PasswordView user={user} reveal={reveal} mayReveal={mayChange} />
                  </td>
                  {mayChange && (
                    <td className="table__end">
                      {!isBusy && <Actions user={user} onAsk={(what) => setAsked({ what, user })} />}
                    </td>
                  )}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {asked?.what === "add" && <AccessDialog path={path} rules={rules} user={null} onClose={close} />}
      {asked?.what === "access" && <AccessDialog path={path} rules={rules} user={asked.user} onClose={close} />}
      {asked?.what === "rotate" && <RotateDialog path={path} user={asked.user} onClose={close} />}
      {asked?.what === "revoke" && <RevokeDialog path={path} user={asked.user} onClose={close} />}
      {asked?.what === "remove" && <RemoveDialog path={path} user={asked.user} onClose={close} />}
    </section>
  );
}

function AccessView({ user: { access } }: { user: ClusterUser }) {
  const { t } = useTranslation();
  if (!access) return <>{t("users.everything")}</>;
  const prefixes = (list: readonly string[]) =>
    list.length === 0 ? t("common.none") : list.map((prefix) => (prefix === "*" ? t("users.all") : `${prefix}…`)).join(", ");
  return (
    <>
      {t("users.keys", { prefixes: prefixes(access.key_prefixes) })}
      <span className="cell-note">{t("users.channels", { prefixes: prefixes(access.channel_prefixes) })}</span>
      <span className="cell-note">{t("users.commands", { groups: access.commands.join(", ") })}</span>
    </>
  );
}

interface PasswordProps {
  user: ClusterUser;
  reveal: ReturnType<typeof useReveal>;
  mayReveal: boolean;
}

function PasswordView({ user, reveal, mayReveal }: PasswordProps) {
  const { t } = useTranslation();
  const password = reveal.data?.name === user.name ? reveal.data.password : null;
  return (
    <>
      {password !== null && (
        <span className="password">
          <code className="breakable">{password}</code>{" "}
          <CopyButton isShort text={password} label={t("credentials.copyPassword")} />{" "}
        </span>
      )}
      {mayReveal && (
        <button
          type="button"
          className="button button--small"
          aria-label={t(password === null ? "users.revealOf" : "users.hideOf", { name: user.name })}
          aria-disabled={reveal.isPending}
          onClick={() => {
            if (password !== null) reveal.reset();
            else if (!reveal.isPending) reveal.mutate(user.name);
          }}
        >
          {t(password === null ? "users.reveal" : "users.hide")}
        </button>
      )}
      {!user.in_force && <span className="cell-note">{t("users.notYet")}</span>}
      {user.rotated && (
        <span className="cell-note">
          {t("users.rotated")} <Time at={user.rotated} />
        </span>
      )}
      {user.old_password && <OldPassword old={user.old_password} />}
    </>
  );
}

function OldPassword({ old }: { old: NonNullable<ClusterUser["old_password"]> }) {
  const { t } = useTranslation();
  return (
    <>
      <span className="cell-note">
        {t(old.until_unused ? "users.oldUntilUnused" : "users.oldUntil")} <Time at={old.until} />
      </span>
      {old.connections !== null && (
        <span className="cell-note">
          {t("users.oldConnections", { count: old.connections })}
          {old.last_active && (
            <>
              {" "}
              {t("users.oldLast")} <Time at={old.last_active} />
            </>
          )}
        </span>
      )}
    </>
  );
}

function Actions({ user, onAsk }: { user: ClusterUser; onAsk: (what: "access" | "rotate" | "revoke" | "remove") => void }) {
  const { t } = useTranslation();
  const all = ["access", "rotate", ...(user.old_password ? (["revoke"] as const) : []), ...(user.name === "default" ? [] : (["remove"] as const))] as const;
  return (
    <div className="row__actions">
      {all.map((what) => (
        <button
          key={what}
          type="button"
          className="button button--small"
          aria-label={t(`users.${what}Of`, { name: user.name })}
          onClick={() => onAsk(what)}
        >
          {t(`users.${what}Open`)}
        </button>
      ))}
    </div>
  );
}
