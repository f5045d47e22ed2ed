// Languages. Adding one: a file like zh-CN.ts and a line in LANGUAGES.
import i18next from "i18next";
import { initReactI18next } from "react-i18next";

import { en } from "./en";
import { zhCN } from "./zh-CN";

export const LANGUAGES = { en: { title: "English", texts: en }, "zh-CN": { title: "简体中文", texts: zhCN } } as const;
export type Language = keyof typeof LANGUAGES;

declare module "i18next" {
  interface CustomTypeOptions {
    defaultNS: "translation";
    resources: { translation: typeof en };
  }
}

const STORED = "berth.language";

function isLanguage(value: string | null): value is Language {
  return value !== null && value in LANGUAGES;
}

/** The reader's choice, else the browser's first language we have, else English. */
function preferredLanguage(): Language {
  const stored = localStorage.getItem(STORED);
  if (isLanguage(stored)) return stored;
  for (const tag of navigator.languages) {
    if (tag.toLowerCase().startsWith("zh")) return "zh-CN";
    if (tag.toLowerCase().startsWith("en")) return "en";
  }
  return "en";
}

export async function startLanguages(language: Language = preferredLanguage()): Promise<void> {
  i18next.on("languageChanged", (tag) => {
    document.documentElement.lang = tag;
  });
  await i18next.use(initReactI18next).init({
    lng: language,
    fallbackLng: "en",
    resources: Object.fromEntries(Object.entries(LANGUAGES).map(([tag, { texts }]) => [tag, { translation: texts }])),
    interpolation: { escapeValue: false }, // React escapes
  });
}

export async function chooseLanguage(language: Language): Promise<void> {
  localStorage.setItem(STORED, language);
  await i18next.changeLanguage(language);
}
