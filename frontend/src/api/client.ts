// The one door to the API: typed paths, CSRF, time limits, problems as errors.
import createClient, { type Middleware } from "openapi-fetch";

import { noteAnswer, noteNoAnswer } from "../lib/connection";
import { noteServerTime } from "../lib/time";
import { ApiProblem, errorFor, Unreachable } from "./problem";
import type { paths } from "./schema";

const SAFE_METHODS = new Set(["GET", "HEAD", "OPTIONS"]);
const TIME_LIMIT_MS = 30_000;
// What a long poll may take beyond the seconds it asked to wait.
const LONG_POLL_GRACE_MS = 15_000;

function cookie(name: string): string {
  const found = document.cookie.split("; ").find((part) => part.startsWith(`${name}=`));
  return found ? decodeURIComponent(found.slice(name.length + 1)) : "";
}

function timeLimit(url: string): number {
  const wait = Number(new URL(url).searchParams.get("wait") ?? 0);
  return wait > 0 ? wait * 1000 + LONG_POLL_GRACE_MS : TIME_LIMIT_MS;
}

const middleware: Middleware = {
  onRequest({ request }) {
    // Every changing call needs the token of the cookie, also signing in.
    if (!SAFE_METHODS.has(request.method)) request.headers.set("X-CSRFToken", cookie("csrftoken"));
    return request;
  },
  onResponse({ response }) {
    noteServerTime(response.headers.get("Date"));
  },
};

/** fetch with a time limit; a failure that is not the caller's own abort becomes Unreachable. */
async function fetchWithin(request: Request): Promise<Response> {
  const limit = AbortSignal.timeout(timeLimit(request.url));
  try {
    return await fetch(request, { signal: AbortSignal.any([request.signal, limit]) });
  } catch (error) {
    if (request.signal.aborted) throw error;
    noteNoAnswer();
    throw new Unreachable(error);
  }
}

export const client = createClient<paths>({
  baseUrl: window.location.origin,
  fetch: fetchWithin,
  credentials: "same-origin",
  headers: { Accept: "application/json, application/problem+json" },
});
client.use(middleware);

interface Answer<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** The body of a 2xx answer. Raises ApiProblem or Unreachable. */
export async function body<T>(call: Promise<Answer<T>>): Promise<T> {
  const { data, error, response } = await settled(call);
  if (!response.ok || data === undefined) throw noted(errorFor(response, error));
  noteAnswer();
  return data;
}

/** Wait for an answer without a body (204). Raises ApiProblem or Unreachable. */
export async function done(call: Promise<Answer<unknown>>): Promise<void> {
  const { error, response } = await settled(call);
  if (!response.ok) throw noted(errorFor(response, error));
  noteAnswer();
}

async function settled<T>(call: Promise<Answer<T>>): Promise<Answer<T>> {
  try {
    return await call;
  } catch (error) {
    // A body that breaks off or is not JSON is no answer either.
    if (error instanceof TypeError || error instanceof SyntaxError) {
      noteNoAnswer();
      throw new Unreachable(error);
    }
    throw error;
  }
}

function noted(error: ApiProblem | Unreachable): Error {
  if (error instanceof Unreachable) noteNoAnswer();
  else noteAnswer();
  return error;
}

interface Page<T> {
  items: T[];
  next: string | null;
}

// A list we show whole (plans, targets, tenants) stays far below this; more is a mistake worth hearing of.
const MOST_PAGES = 50;

/** All rows of a cursor-paginated list. `load` fetches the page after a cursor. */
export async function allPages<T>(load: (cursor: string | undefined) => Promise<Page<T>>): Promise<T[]> {
  const rows: T[] = [];
  let cursor: string | undefined;
  for (let number = 0; number < MOST_PAGES; number += 1) {
    const page = await load(cursor);
    rows.push(...page.items);
    if (page.next === null) return rows;
    cursor = page.next;
  }
  throw new Error(`The list has more than ${MOST_PAGES} pages.`);
}
