// The query cache: the only place where the page keeps what the portal says.
import { MutationCache, QueryCache, QueryClient } from "@tanstack/react-query";

import { isSignedOut, isTemporary } from "./api/problem";
import { keys } from "./hooks/keys";
import { nobody } from "./hooks/session";

const REPEATS = 2;

export function createQueryClient(): QueryClient {
  // The session ended while the page was open: the frame shows the sign-in form in the page's place.
  const onError = (error: unknown) => {
    if (isSignedOut(error)) client.setQueryData(keys.session, nobody);
  };
  const client: QueryClient = new QueryClient({
    queryCache: new QueryCache({ onError }),
    mutationCache: new MutationCache({ onError }),
    defaultOptions: {
      // "always": a browser that believes to be offline must not leave a page waiting without a word.
      queries: {
        networkMode: "always",
        retry: (failures, error) => isTemporary(error) && failures < REPEATS,
        refetchOnWindowFocus: true,
      },
      mutations: { networkMode: "always" },
    },
  });
  return client;
}
