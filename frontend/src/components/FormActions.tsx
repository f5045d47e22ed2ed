import { useTranslation } from "react-i18next";

interface Props {
  submit: string;
  /** In place of `submit` while it is under way. */
  busy?: string;
  /** In place of "Cancel". */
  away?: string;
  isPending: boolean;
  isDanger?: boolean;
  onClose: () => void;
}

/** The two buttons a dialog's form ends with. */
export function FormActions({ submit, busy = submit, away, isPending, isDanger = false, onClose }: Props) {
  const { t } = useTranslation();
  return (
    <div className="dialog__actions">
      <button type="button" className="button" onClick={onClose}>
        {away ?? t("common.cancel")}
      </button>
      <button className={isDanger ? "button button--danger-full" : "button button--main"} aria-disabled={isPending}>
        {isPending ? busy : submit}
      </button>
    </div>
  );
}
