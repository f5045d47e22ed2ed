import { body, client, done } from "./client";
import type { Session, SignIn } from "./types";

export function getSession(signal?: AbortSignal): Promise<Session> {
  return body(client.GET("/api/v1/session", { signal: signal ?? null }));
}

export function signIn(credentials: SignIn): Promise<Session> {
  return body(client.POST("/api/v1/session", { body: credentials }));
}

export function signOut(): Promise<void> {
  return done(client.DELETE("/api/v1/session"));
}
