import { useRef } from "react";
import { useTranslation } from "react-i18next";

import type { Cluster, Credential, Endpoint, Snippet } from "../../api/types";
import { CopyButton } from "../../components/CopyButton";
import { Loading } from "../../components/Loading";
import { ProblemNotice } from "../../components/ProblemNotice";
import { Tabs } from "../../components/Tabs";
import { Time } from "../../components/Time";
import { HIDE_AFTER_MINUTES, useCertificate, useCredentials, useReveal, useSnippets } from "../../hooks/credentials";

const PLACEHOLDER = "{password}";

interface Props {
  cluster: Cluster;
  mayReveal: boolean;
}

/** Addresses, the user, the password on request, and examples that work. */
export function Connect({ cluster, mayReveal }: Props) {
  const { t } = useTranslation();
  const path = { tenant: cluster.tenant, name: cluster.name };
  const hasWorked = cluster.ready_at !== null;
  const credentials = useCredentials(path, hasWorked);
  const snippets = useSnippets(path, hasWorked);
  // One password is on the page at a time: the example shows it too.
  const reveal = useReveal(path);

  if (cluster.phase === "deleting") return null;
  if (!hasWorked)
    return (
      <section className="card" aria-labelledby="connect-title">
        <h2 id="connect-title">{t("cluster.connect")}</h2>
        <p className="muted">{t("cluster.notYet")}</p>
      </section>
    );
  // The one the examples sign in as; the others are with the cluster's users.
  const first = credentials.data?.find(({ name }) => name === "default") ?? credentials.data?.[0];
  return (
    <section className="card" aria-labelledby="connect-title">
      <h2 id="connect-title">{t("cluster.connect")}</h2>
      <Endpoints endpoints={cluster.endpoints} />
      {cluster.conditions.some(({ type }) => type === "CertificateValid") && <Encryption cluster={cluster} />}
      <h3>{t("credentials.title")}</h3>
      {credentials.isPending && <Loading lines={1} />}
      {credentials.isError && <ProblemNotice error={credentials.error} onRetry={() => void credentials.refetch()} />}
      {credentials.data?.length === 0 && <p className="muted">{t("credentials.empty")}</p>}
      {first && <CredentialRow credential={first} mayReveal={mayReveal} reveal={reveal} />}
      {reveal.isError && <ProblemNotice error={reveal.error} />}
      <h3>{t("snippets.title")}</h3>
      {snippets.isPending && <Loading lines={4} />}
      {snippets.isError && <ProblemNotice error={snippets.error} onRetry={() => void snippets.refetch()} />}
      {snippets.data?.length === 0 && <p className="muted">{t("snippets.empty")}</p>}
      {snippets.data && snippets.data.length > 0 && (
        <Tabs label={t("snippets.choose")} tabs={tabsOf(snippets.data)}>
          {(key) => (
            <SnippetView
              snippet={snippets.data[Number(key)]}
              password={reveal.data?.password}
              onFill={mayReveal && first ? () => reveal.mutate(first.name) : undefined}
            />
          )}
        </Tabs>
      )}
    </section>
  );
}

function tabsOf(snippets: readonly Snippet[]) {
  return snippets.map(({ title }, index) => ({ key: String(index), title }));
}

function Endpoints({ endpoints }: { endpoints: readonly Endpoint[] }) {
  const { t } = useTranslation();
  if (endpoints.length === 0) return null;
  return (
    <div className="scroll">
      <table className="table">
        <caption className="hidden">{t("cluster.endpoints")}</caption>
        <thead>
          <tr>
            <th scope="col">{t("cluster.use")}</th>
            <th scope="col">{t("cluster.address")}</th>
            <th scope="col">
              <span className="hidden">{t("common.copy")}</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {endpoints.map(({ name, host, port, scope }) => (
            <tr key={`${name} ${host} ${port}`}>
              <th scope="row">
                <span lang="en">{name}</span>
                <span className="cell-note">{t(scope === "cluster" ? "cluster.scopeCluster" : "cluster.scopeExternal")}</span>
              </th>
              <td>
                <code className="breakable">{`${host}:${port}`}</code>
              </td>
              <td className="table__end">
                <CopyButton isShort text={`${host}:${port}`} label={`${t("common.copy")}: ${host}:${port}`} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** What clients need to verify the servers, and how long it is good. */
function Encryption({ cluster }: { cluster: Cluster }) {
  const { t } = useTranslation();
  const certificate = useCertificate({ tenant: cluster.tenant, name: cluster.name }, true);
  if (certificate.isPending) return <Loading lines={2} />;
  if (certificate.isError) return <ProblemNotice error={certificate.error} onRetry={() => void certificate.refetch()} />;
  const { authority, expires, renews } = certificate.data;
  return (
    <>
      <h3>{t("certificate.title")}</h3>
      <dl className="facts facts--wide">
        <dt>{t("certificate.authority")}</dt>
        <dd>
          <a
            className="button button--small"
            href={`data:application/x-pem-file;charset=utf-8,${encodeURIComponent(authority)}`}
            download={`${cluster.name}-ca.crt`}
          >
            {t("certificate.download")}
          </a>{" "}
          <CopyButton isShort text={authority} label={t("certificate.copy")} />
        </dd>
        <dt>{t("certificate.expires")}</dt>
        <dd>
          <Time at={expires} />
        </dd>
        <dt>{t("certificate.renews")}</dt>
        <dd>
          <Time at={renews} />
        </dd>
      </dl>
      <p className="row__help">{t("certificate.note")}</p>
    </>
  );
}

interface RowProps {
  credential: Credential;
  mayReveal: boolean;
  reveal: ReturnType<typeof useReveal>;
}

function CredentialRow({ credential, mayReveal, reveal }: RowProps) {
  const { t } = useTranslation();
  const password = reveal.data?.name === credential.name ? reveal.data.password : null;
  return (
    <>
      <dl className="facts facts--wide">
        <dt>{t("credentials.user")}</dt>
        <dd>
          <code>{credential.name}</code> <CopyButton isShort text={credential.name} label={t("credentials.copyUser")} />
        </dd>
        <dt>{t("credentials.password")}</dt>
        <dd className="password">
          {password === null ? <span className="muted">{t("credentials.hidden")}</span> : <code className="breakable">{password}</code>}{" "}
          {password !== null && <CopyButton isShort text={password} label={t("credentials.copyPassword")} />}
          {mayReveal && (
            <button
              type="button"
              className="button button--small"
              aria-disabled={reveal.isPending}
              onClick={() => {
                if (password !== null) reveal.reset();
                else if (!reveal.isPending) reveal.mutate(credential.name);
              }}
            >
              {password !== null ? t("credentials.hide") : reveal.isPending ? t("credentials.revealing") : t("credentials.reveal")}
            </button>
          )}
        </dd>
      </dl>
      <p className="row__help">
        {mayReveal ? t("credentials.note", { minutes: HIDE_AFTER_MINUTES }) : t("credentials.viewer")}
      </p>
    </>
  );
}

interface SnippetProps {
  snippet: Snippet | undefined;
  password: string | undefined;
  onFill: (() => void) | undefined;
}

function SnippetView({ snippet, password, onFill }: SnippetProps) {
  const { t } = useTranslation();
  const code = useRef<HTMLElement>(null);
  if (!snippet) return null;
  const hasPlaceholder = snippet.code.includes(PLACEHOLDER);
  const isFilled = password !== undefined;
  const text = isFilled ? snippet.code.replaceAll(PLACEHOLDER, () => password) : snippet.code;
  const select = () => {
    if (code.current) window.getSelection()?.selectAllChildren(code.current);
  };
  return (
    <>
      {/* It scrolls, so the keyboard must reach it. */}
      {/* eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex */}
      <pre className="code" tabIndex={0} role="region" aria-label={snippet.title} data-language={snippet.language}>
        <code ref={code}>{hasPlaceholder && !isFilled ? withMarks(text) : text}</code>
      </pre>
      <div className="row__actions">
        <CopyButton
          text={text}
          label={t("snippets.copy")}
          said={!hasPlaceholder ? t("common.copied") : isFilled ? t("snippets.copiedFull") : t("snippets.copiedBare", { password: PLACEHOLDER })}
          onRefused={select}
        />
        {hasPlaceholder && !isFilled && onFill && (
          <button type="button" className="button" onClick={onFill}>
            {t("snippets.fill")}
          </button>
        )}
      </div>
    </>
  );
}

/** The code with every placeholder marked. */
function withMarks(code: string) {
  return code.split(PLACEHOLDER).flatMap((part, index) => (index === 0 ? [part] : [<mark key={index}>{PLACEHOLDER}</mark>, part]));
}

