import { type ReactNode } from "react";
import { useTranslation } from "react-i18next";

import { isOpen } from "../../api/operations";
import type { Operation, Step } from "../../api/types";
import { ProblemNotice } from "../../components/ProblemNotice";
import { Said } from "../../components/Said";
import { Time } from "../../components/Time";
import { useNow } from "../../hooks/now";
import type { LiveView } from "../../hooks/operations";
import { duration, secondsBetween } from "../../lib/time";
import { CancelButton, GateNotice, RetryButton } from "./Interventions";

interface Props {
  operation: Operation;
  /** Null when nobody follows it (any more). */
  live: LiveView | null;
  /** Whether the reader may cancel and repeat. */
  mayChange: boolean;
}

const KINDS = ["create", "update", "upgrade", "restart", "rebalance-masters", "accept-loss", "change-users", "delete"] as const;
type Kind = (typeof KINDS)[number];

// Each pod that restarts is waited for a moment; only what lasts is worth a word.
const GATE_SECONDS = 15;

function isKind(kind: string): kind is Kind {
  return (KINDS as readonly string[]).includes(kind);
}

/** How a change is going, step by step; once it went well, one line that can be unfolded. */
export function OperationPanel({ operation, live, mayChange }: Props) {
  const isLive = isOpen(operation);
  return (
    <section className={`card operation operation--${operation.state}`} aria-labelledby="operation-title">
      <Announcement operation={operation} />
      {isLive ? (
        <Open operation={operation} live={live} mayChange={mayChange} />
      ) : (
        <Ended operation={operation} mayChange={mayChange} />
      )}
    </section>
  );
}

function Open({ operation, live, mayChange }: Props) {
  const { t } = useTranslation();
  const { kind, percent, deadline, actor, created, started, gate, estimate } = operation;
  const now = useNow(true);
  const seconds = secondsBetween(started ?? created, null, now);
  const elapsed = duration(seconds);
  const isLate = estimate !== null && seconds > estimate.seconds;
  return (
    <>
      <div className="operation__head">
        <h2 id="operation-title">{isKind(kind) ? t(`operation.${kind}`) : kind}</h2>
        <span className="operation__percent">{t("operation.progress", { percent })}</span>
      </div>
      <progress max={100} value={percent} aria-label={t("operation.progressLabel")} />
      <p className="muted operation__facts">
        <span className="figures">{t("operation.elapsed", { time: elapsed })}</span>
        {estimate && (
          <span className="figures">
            {t(isLate ? "estimate.late" : "estimate.of", { time: duration(estimate.seconds), count: estimate.based_on })}
          </span>
        )}
        <span>{replaceTime(t("operation.deadline", { time: "\0" }), deadline)}</span>
        {actor && <span>{t("operation.by", { name: actor })}</span>}
      </p>
      {live?.pause != null && (
        <p className="notice notice--warn" role="status">
          {t("operation.reconnecting", { seconds: live.pause })}{" "}
          <button type="button" className="link" onClick={live.retryNow}>
            {t("operation.retryNow")}
          </button>
        </p>
      )}
      {live?.error != null && <ProblemNotice error={live.error} />}
      <Steps steps={operation.steps} now={now} />
      {operation.reason && !operation.steps.some(({ reason }) => reason === operation.reason) && (
        <p className="reason">
          <Said>{operation.reason}</Said>
        </p>
      )}
      {gate && secondsBetween(gate.since, null, now) >= GATE_SECONDS && <GateNotice operation={operation} gate={gate} />}
      {mayChange && operation.cancelable && <CancelButton operation={operation} />}
    </>
  );
}

function replaceTime(text: string, at: string): ReactNode {
  const [head, tail] = text.split("\0");
  return (
    <>
      {head}
      <Time at={at} style="clock" />
      {tail}
    </>
  );
}

function Ended({ operation, mayChange }: { operation: Operation; mayChange: boolean }) {
  const { t } = useTranslation();
  const { state, proof, error, steps } = operation;
  const title = useEndedTitle(operation);
  return (
    <>
      <div className="operation__head">
        <h2 id="operation-title">{title}</h2>
        {operation.ended && (
          <span className="muted">
            <Time at={operation.ended} />
          </span>
        )}
      </div>
      {error && (
        <div className="notice notice--bad">
          <p className="notice__title">
            <Said>{error.message}</Said>
          </p>
          {error.remedy && (
            <p>
              <Said>{error.remedy}</Said>
            </p>
          )}
          <p className="notice__small">
            {t("problem.code", { code: error.code })} · {operation.id}
            {operation.request_id && <> · {t("problem.requestId", { id: operation.request_id })}</>}
          </p>
        </div>
      )}
      {proof && (
        <p className="operation__proof">
          <span className={`chip chip--${proof.ok ? "good" : "bad"}`}>
            {t(proof.ok ? "operation.proof" : "operation.noProof")}
          </span>{" "}
          <Said>{proof.summary}</Said>
        </p>
      )}
      {steps.length > 0 && (
        <details open={state !== "succeeded"}>
          <summary>{t("operation.showSteps")}</summary>
          <Steps steps={steps} now={0} />
        </details>
      )}
      {mayChange && state !== "succeeded" && <RetryButton operation={operation} />}
    </>
  );
}

/** "Made in 8.4 s", "Deleting failed after 12 s". */
function useEndedTitle({ kind, state, created, started, ended }: Operation): string {
  const { t } = useTranslation();
  const time = duration(secondsBetween(started ?? created, ended ?? created, 0));
  if (state === "canceled") return t("operation.canceled", { time });
  if (state === "failed") return isKind(kind) ? t(`operation.${kind}Failed`, { time }) : t("operation.otherFailed", { kind, time });
  return isKind(kind) ? t(`operation.${kind}Done`, { time }) : t("operation.otherDone", { kind, time });
}

const MARKS: Record<Step["state"], string> = { waiting: "○", running: "◔", done: "✓", failed: "✕" };

function Steps({ steps, now }: { steps: readonly Step[]; now: number }) {
  const { t } = useTranslation();
  return (
    <ol className="steps" aria-label={t("operation.steps")}>
      {steps.map((step) => (
        <li key={step.key} className={`step step--${step.state}`} aria-current={step.state === "running" ? "step" : undefined}>
          <span className="step__mark" aria-hidden="true">
            {MARKS[step.state]}
          </span>
          <span className="step__title">
            <Said>{step.title}</Said>
            <span className="hidden">: {t(`operation.${step.state}`)}</span>
          </span>
          <span className="step__time figures">
            {step.started && duration(secondsBetween(step.started, step.ended, now || Date.parse(step.started)))}
          </span>
          {(step.state === "running" || step.state === "failed") && (step.reason || step.object) && (
            <span className="step__reason" lang="en">
              {step.reason}
              {step.object && !step.reason.includes(step.object) && <code>{step.object}</code>}
            </span>
          )}
        </li>
      ))}
    </ol>
  );
}

/** Says aloud which step is under way and how it ended, without the ticking of percent and seconds. */
function Announcement({ operation }: { operation: Operation }) {
  const { t } = useTranslation();
  const { steps, state, error } = operation;
  const title = useEndedTitle(operation);
  const index = steps.findIndex((step) => step.state === "running");
  const step = steps[index];
  let text = "";
  if (state === "failed") text = t("operation.announceFailed", { message: error?.message ?? "" });
  else if (!isOpen(operation)) text = t("operation.announceDone", { title });
  else if (step)
    text = t("operation.announceStep", { number: index + 1, total: steps.length, title: step.title, reason: step.reason });
  return (
    <p className="hidden" role="status" data-testid="announcement">
      {text}
    </p>
  );
}
