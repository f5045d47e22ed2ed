import { type ReactNode, type SubmitEvent, useId, useState } from "react";
import { useTranslation } from "react-i18next";

import type { ClusterPath } from "../../api/clusters";
import { ApiProblem } from "../../api/problem";
import type { ClusterUser, UserRules } from "../../api/types";
import { Dialog } from "../../components/Dialog";
import { FaultSummary } from "../../components/FaultSummary";
import { ExactInput } from "../../components/ExactInput";
import { FormActions } from "../../components/FormActions";
import { FormRow } from "../../components/FormRow";
import { Said } from "../../components/Said";
import { type UserChange, useChangeUsers } from "../../hooks/users";

interface DialogProps {
  path: ClusterPath;
  user: ClusterUser;
  onClose: () => void;
}

// In hours; 0 ends the old password at once.
const OVERLAPS = [0, 1, 24, 168, 720] as const;
const COMMON = ["read", "write", "transaction"];

interface FrameProps {
  title: string;
  path: ClusterPath;
  submit: string;
  isDanger?: boolean;
  /** What is sent when the form is. */
  change: () => UserChange;
  onClose: () => void;
  children: (faultAt: (pointer: string) => string | undefined) => ReactNode;
}

/** A dialog that sends one change of the users, and says what is wrong with it. */
function ChangeFrame({ title, path, submit, isDanger = false, change, onClose, children }: FrameProps) {
  const { t } = useTranslation();
  const id = useId();
  const send = useChangeUsers(path);
  const [attempt, setAttempt] = useState(0);
  const fields = send.error instanceof ApiProblem ? send.error.fields : [];
  const onSubmit = (event: SubmitEvent) => {
    event.preventDefault();
    if (!send.isPending) send.mutate(change(), { onSuccess: onClose, onError: () => setAttempt((count) => count + 1) });
  };
  // A wrong entry of a list is told at the list.
  const faultAt = (pointer: string) =>
    fields.find((field) => field.pointer === pointer || field.pointer.startsWith(`${pointer}/`))?.message;
  return (
    <Dialog title={title} onClose={onClose}>
      <form id={id} onSubmit={onSubmit} noValidate>
        {send.isError && (
          <FaultSummary faults={fields.map(({ message }) => ({ id, message }))} error={send.error} attempt={attempt} />
        )}
        {children(faultAt)}
        <FormActions
          submit={submit}
          busy={t("users.busy")}
          isPending={send.isPending}
          isDanger={isDanger}
          onClose={onClose}
        />
      </form>
    </Dialog>
  );
}

interface AccessProps {
  path: ClusterPath;
  rules: UserRules;
  /** Null: one is to be made. */
  user: ClusterUser | null;
  onClose: () => void;
}

/** Makes a user, or changes what one may do. */
export function AccessDialog({ path, rules, user, onClose }: AccessProps) {
  const { t } = useTranslation();
  const id = useId();
  const [name, setName] = useState("");
  const [isEverything, setIsEverything] = useState(user !== null && user.access === null);
  const [isEnabled, setIsEnabled] = useState(user?.enabled ?? true);
  const [keyPrefixes, setKeyPrefixes] = useState(textOf(user?.access?.key_prefixes ?? []));
  const [channelPrefixes, setChannelPrefixes] = useState(textOf(user?.access?.channel_prefixes ?? []));
  const [commands, setCommands] = useState<readonly string[]>(user?.access?.commands ?? COMMON);
  const access = { key_prefixes: listOf(keyPrefixes), channel_prefixes: listOf(channelPrefixes), commands: [...commands] };
  const change = (): UserChange => {
    if (user === null) return { kind: "add", order: { name, ...access } };
    return { kind: "edit", user, patch: { enabled: isEnabled, ...(isEverything ? { everything: true } : access) } };
  };
  return (
    <ChangeFrame
      title={user === null ? t("users.addTitle") : t("users.accessTitle", { name: user.name })}
      path={path}
      submit={t(user === null ? "users.addSubmit" : "users.accessSubmit")}
      change={change}
      onClose={onClose}
    >
      {(faultAt) => (
        <>
          {user === null ? (
            <FormRow id={`${id}-name`} label={t("users.name")} help={t("users.nameHelp")} fault={faultAt("/name")}>
              {(control) => <ExactInput control={control} value={name} maxLength={30} onChange={setName} />}
            </FormRow>
          ) : (
            <Tick id={`${id}-on`} label={t("users.enabled")} isOn={isEnabled} onTurn={setIsEnabled} />
          )}
          {user?.name === "default" && (
            <Tick id={`${id}-all`} label={t("users.everything")} isOn={isEverything} onTurn={setIsEverything} />
          )}
          {!isEverything && (
            <>
              <FormRow
                id={`${id}-keys`}
                label={t("users.keyPrefixes")}
                help={t("users.prefixesHelp")}
                fault={faultAt("/key_prefixes")}
              >
                {(control) => <ExactInput control={control} value={keyPrefixes} onChange={setKeyPrefixes} />}
              </FormRow>
              <FormRow id={`${id}-channels`} label={t("users.channelPrefixes")} fault={faultAt("/channel_prefixes")}>
                {(control) => <ExactInput control={control} value={channelPrefixes} onChange={setChannelPrefixes} />}
              </FormRow>
              <fieldset>
                <legend>{t("users.groups")}</legend>
                {faultAt("/commands") && <p className="row__fault">{faultAt("/commands")}</p>}
                {rules.commands.map(({ key, title, help }) => (
                  <Tick
                    key={key}
                    id={`${id}-${key}`}
                    label={<Said>{title}</Said>}
                    help={<Said>{help}</Said>}
                    isOn={commands.includes(key)}
                    onTurn={(isOn) => setCommands(isOn ? [...commands, key] : commands.filter((one) => one !== key))}
                  />
                ))}
              </fieldset>
            </>
          )}
        </>
      )}
    </ChangeFrame>
  );
}

interface TickProps {
  id: string;
  label: ReactNode;
  help?: ReactNode;
  isOn: boolean;
  onTurn: (isOn: boolean) => void;
}

function Tick({ id, label, help, isOn, onTurn }: TickProps) {
  return (
    <FormRow id={id} label={label} help={help} isInline>
      {(control) => <input {...control} type="checkbox" checked={isOn} onChange={(event) => onTurn(event.target.checked)} />}
    </FormRow>
  );
}

function listOf(text: string): string[] {
  return text.split(/[\s,]+/).filter((word) => word !== "");
}

function textOf(list: readonly string[]): string {
  return list.join(" ");
}

/** Gives a user a new password, after asking how long the present one goes on. */
export function RotateDialog({ path, user, onClose }: DialogProps) {
  const { t } = useTranslation();
  const id = useId();
  const [hours, setHours] = useState<number>(24);
  const [isUntilUnused, setIsUntilUnused] = useState(false);
  const rotation = { overlap_seconds: hours * 3600, until_unused: hours > 0 && isUntilUnused };
  return (
    <ChangeFrame
      title={t("users.rotateTitle", { name: user.name })}
      path={path}
      submit={t("users.rotateSubmit")}
      change={() => ({ kind: "rotate", user, rotation })}
      onClose={onClose}
    >
      {() => (
        <>
          <p>{t("users.rotateWhat")}</p>
          <FormRow id={`${id}-overlap`} label={t("users.overlap")} help={t("users.overlapHelp")}>
            {(control) => (
              <select {...control} value={hours} onChange={(event) => setHours(Number(event.target.value))}>
                {OVERLAPS.map((count) => (
                  <option key={count} value={count}>
                    {count === 0 ? t("users.atOnce") : t("users.hours", { count })}
                  </option>
                ))}
              </select>
            )}
          </FormRow>
          {hours > 0 && (
            <Tick
              id={`${id}-unused`}
              label={t("users.untilUnused")}
              help={t("users.untilUnusedHelp")}
              isOn={isUntilUnused}
              onTurn={setIsUntilUnused}
            />
          )}
        </>
      )}
    </ChangeFrame>
  );
}

/** Ends the old password before its time. */
export function RevokeDialog({ path, user, onClose }: DialogProps) {
  const { t } = useTranslation();
  return (
    <ChangeFrame
      title={t("users.revokeTitle", { name: user.name })}
      path={path}
      submit={t("users.revokeSubmit")}
      isDanger
      change={() => ({ kind: "revoke", user })}
      onClose={onClose}
    >
      {() => <p>{t("users.revokeWhat")}</p>}
    </ChangeFrame>
  );
}

export function RemoveDialog({ path, user, onClose }: DialogProps) {
  const { t } = useTranslation();
  return (
    <ChangeFrame
      title={t("users.removeTitle", { name: user.name })}
      path={path}
      submit={t("users.removeSubmit")}
      isDanger
      change={() => ({ kind: "remove", user })}
      onClose={onClose}
    >
      {() => <p>{t("users.removeWhat")}</p>}
    </ChangeFrame>
  );
}
