// The two ways a call can go wrong: the portal said no (ApiProblem), or nobody answered (Unreachable).
import type { FieldProblem, Problem } from "./types";

/** The portal's answer with status 4xx or 5xx: an RFC 9457 problem. */
export class ApiProblem extends Error {
  readonly status: number;
  readonly code: string;
  readonly title: string;
  readonly suggestion: string;
  readonly requestId: string;
  readonly fields: readonly FieldProblem[];

  constructor(problem: Problem) {
    super(problem.detail);
    this.name = "ApiProblem";
    this.status = problem.status;
    this.code = problem.code;
    this.title = problem.title;
    this.suggestion = problem.suggestion;
    this.requestId = problem.request_id;
    this.fields = problem.errors;
  }
}

/** No answer of the portal: the network, a proxy in between, or the portal being started again. */
export class Unreachable extends Error {
  constructor(cause?: unknown) {
    super("The portal does not answer.", { cause });
    this.name = "Unreachable";
  }
}

/** Whether repeating the same call later can help. */
export function isTemporary(error: unknown): boolean {
  return error instanceof Unreachable || (error instanceof ApiProblem && error.status >= 500);
}

/** Whether the portal says that nobody is signed in (any more). */
export function isSignedOut(error: unknown): boolean {
  return error instanceof ApiProblem && error.status === 401 && error.code === "unauthenticated";
}

export function isGone(error: unknown): boolean {
  return error instanceof ApiProblem && error.status === 404;
}

function isProblem(body: unknown): body is Problem {
  return typeof body === "object" && body !== null && "code" in body && "detail" in body && "errors" in body;
}

/**
 * The error for an answer that is not 2xx. A gateway's 502 to 504 without a problem of ours means that the portal
 * itself did not answer.
 */
export function errorFor(response: Response, body: unknown): ApiProblem | Unreachable {
  if (isProblem(body)) return new ApiProblem(body);
  if (response.status >= 500) return new Unreachable(response.status);
  return new ApiProblem({
    type: "about:blank",
    title: response.statusText,
    status: response.status,
    code: "unexpected_answer",
    detail: `The portal answered ${response.status} without saying why.`,
    errors: [],
    suggestion: "",
    request_id: response.headers.get("X-Request-Id") ?? "",
    instance: new URL(response.url).pathname,
  });
}
