import "@testing-library/jest-dom/vitest";

import { cleanup } from "@testing-library/react";
import { afterEach, beforeAll } from "vitest";

import { startLanguages } from "../i18n";

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
