import "@testing-library/jest-dom/vitest";

import { cleanup, configure } from "@testing-library/react";
import { afterEach, beforeAll } from "vitest";

import { startLanguages } from "../i18n";

// A busy machine is no fault of the page.
configure({ asyncUtilTimeout: 10_000 });

// jsdom knows <dialog> but not how to open one.
HTMLDialogElement.prototype.showModal = function showModal() {
  this.open = true;
};
HTMLDialogElement.prototype.close = function close() {
  this.open = false;
};
window.scrollTo = () => undefined;

beforeAll(() => startLanguages("en"));
afterEach(() => {
  cleanup();
  localStorage.clear();
});
