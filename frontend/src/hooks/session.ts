import { type QueryClient, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";

import { getSession, signIn, signOut } from "../api/session";
import type { Session, SignIn } from "../api/types";
import { keys } from "./keys";

/** Nobody is signed in any more; how one can sign in stays as it was told before. */
export function nobody(before: Session | undefined): Session {
  return { user: null, memberships: [], oidc: before?.oidc ?? null };
}

/** Another person, or nobody: nothing that was shown to the one before stays. */
function begin(cache: QueryClient, session: Session): void {
  // Not the session's own entry: the page watches that one.
  cache.removeQueries({ predicate: ({ queryKey }) => queryKey[0] !== keys.session[0] });
  cache.setQueryData(keys.session, session);
}

export function useSession() {
  return useQuery({ queryKey: keys.session, queryFn: ({ signal }) => getSession(signal), staleTime: 5 * 60_000 });
}

export function useSignIn() {
  const cache = useQueryClient();
  return useMutation({
    mutationFn: (credentials: SignIn) => signIn(credentials),
    gcTime: 0, // its variables hold the password
    onSuccess: (session) => {
      begin(cache, session);
    },
  });
}

/** `after` runs once nobody is signed in, even if the component that asked is no longer shown. */
export function useSignOut(after: () => void) {
  const cache = useQueryClient();
  return useMutation({
    mutationFn: () => signOut(),
    onSuccess: () => {
      after();
      begin(cache, nobody(cache.getQueryData<Session>(keys.session)));
    },
  });
}
